"""A shop without WordPress: answers the mesh's signed calls as the plugin does, from orders in memory.

The plugin's own answers, which PHP's tests hold it to, are in `tests/wordpress/orders-route.json`.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import Any

from standardwebhooks import Webhook, WebhookVerificationError
from typing_extensions import override

from tests import woocommerce
from tests.receiver import SECRET

PAGE = 20
"""Orders of a page: small, so that there are several."""
MONEY = (
    *("order_id", "timestamp", "amount", "currency", "payment_method", "payment_status"),
    *("paid_at", "refunded_total", "reason", "reported_at"),
)


@dataclass
class Order:
    """An order of the shop."""

    number: int
    created: datetime
    total: Decimal
    _: KW_ONLY
    status: str = "completed"
    currency: str = "USD"
    paid: datetime | None = None
    refunds: dict[int, Decimal] = field(default_factory=dict[int, Decimal])

    @property
    def is_placed(self) -> bool:
        """False for a draft, which the plugin does not report."""
        return self.status != "checkout-draft"

    def purchase(self, at: datetime | None = None) -> dict[str, Any]:
        """The order as the plugin would report it at a time, by default now."""
        trashed = self.status == "trash"
        facts = {
            "id": f"wc-order-{self.number}-1-{self.total}{self.status}",
            "timestamp": _text(self.created),
            "email": f"buyer{self.number % 50}@example.org",
            "order_id": str(self.number),
            "amount": float(self.total),
            "currency": self.currency,
            "payment_method": "stripe",
            "payment_status": "cancelled" if trashed else self.status,
            "paid_at": _text(self.paid) if self.paid else None,
            "reason": "trashed" if trashed else None,
            "refunded_total": float(sum(self.refunds.values(), Decimal())),
            "lines": [{"product_id": "101", "product_name": "PMP", "product_type": "course", "quantity": 1, "amount": float(self.total)}],
            "source": "plugin",
            "reported_at": _text(at or datetime.now(UTC)),
            "is_test": False,
            "is_staff": False,
        }
        return {name: value for name, value in facts.items() if value is not None}

    def reports(self, at: datetime | None = None) -> dict[str, Any]:
        """Its reports, with those of its refunds."""
        purchase = self.purchase(at)
        refunds: list[dict[str, Any]] = [
            {
                "reference": str(reference),
                "amount": float(amount),
                "refunded_total": purchase["refunded_total"],
                "timestamp": _text(at or datetime.now(UTC)),
                "source": "plugin",
                "reported_at": purchase["reported_at"],
                "deleted": False,
            }
            for reference, amount in self.refunds.items()
        ]
        return {"order_id": str(self.number), "purchase": purchase, "refunds": refunds}

    @property
    def net(self) -> Decimal:
        """What the shop has earned by it."""
        is_sale = self.status in ("completed", "refunded", "processing")
        return self.total - sum(self.refunds.values(), Decimal()) if is_sale else Decimal()


@dataclass
class Shop:
    """The orders of a shop, and what it answers."""

    url: str
    orders: dict[int, Order] = field(default_factory=dict[int, Order])
    calls: list[str] = field(default_factory=list[str])
    """Types of the calls that it has answered."""
    failures: list[int] = field(default_factory=list[int])
    """Statuses of the next calls, which fail."""
    refunds = count(100_000)

    def refund(self, number: int, amount: Decimal) -> None:
        """Refunds a part of an order."""
        self.orders[number].refunds[next(self.refunds)] = amount

    def answer(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """The answer to a call."""
        seen: set[int] = {*data.get("seen", [])}
        self.calls.append(kind)
        at = {"read_at": _text(datetime.now(UTC))}
        if kind == "orders.read":
            asked = [self.orders.get(int(each)) for each in data["orders"]]
            return {"orders": [order.reports() for order in asked if order and order.is_placed], **at}
        since, until = data["after"], data["until"]
        ordered = sorted(self.orders.values(), key=lambda order: (int(order.created.timestamp()), -order.number))
        later = [each for each in ordered if since <= int(each.created.timestamp()) < until and each.number not in seen]
        page = later[:PAGE]
        orders = [{name: value for name, value in each.purchase().items() if name in MONEY} for each in page if each.is_placed]
        if len(page) < PAGE:
            return {"orders": orders, "next": None, **at}
        last = int(page[-1].created.timestamp())
        before = seen if last == since else set[int]()
        same = {each.number for each in page if int(each.created.timestamp()) == last} | before
        return {"orders": orders, "next": {"after": last, "seen": sorted(same)}, **at}


class RestApi(woocommerce.Shop):
    """The REST API of a shop: what its orders are there at the moment it is asked."""

    def __init__(self, shop: Shop) -> None:
        super().__init__()
        self._shop = shop

    @override
    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, Any, int]:
        self.orders, self.refunds = [], []
        for order in self._shop.orders.values():
            paid = woocommerce.times("date_paid", order.paid) if order.paid else {"date_paid": None, "date_paid_gmt": None}
            record = self.order(order.number, order.created, str(order.total), status=order.status, currency=order.currency, **paid)
            for reference, amount in order.refunds.items():
                self.refund(record, reference, str(amount), order.created)
        return super().answer(path, query)


@contextmanager
def open_shop() -> Generator[Shop]:
    """A shop on loopback, until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            if shop.failures:
                return self.reply(shop.failures.pop(0), {})
            try:
                call = Webhook(SECRET).verify(body, dict(self.headers))
            except WebhookVerificationError:
                return self.reply(401, {"code": "pmp_unsigned"})
            return self.reply(200, shop.answer(call["type"], call["data"]))

        def reply(self, status: int, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shop = Shop(f"http://127.0.0.1:{server.server_port}/wp-json/pmp/v1/orders")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield shop
        server.shutdown()
        thread.join()


def _text(at: datetime) -> str:
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
