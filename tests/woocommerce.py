"""A local double of WooCommerce's REST API: real HTTP on loopback, with the rules by which the real one pages, filters and refuses."""

from __future__ import annotations

import base64
import json
from bisect import bisect_right
from collections import Counter
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any
from urllib.parse import parse_qs, urlsplit

Record = dict[str, Any]
KEY, SECRET = "ck_0123456789abcdef", "cs_fedcba9876543210"
_BY_CHANGE = {"status": "any", "orderby": "modified", "order": "asc", "dates_are_gmt": "true"}
"""How an import asks for orders."""
SHOP_OFFSET = timedelta(hours=5, minutes=30)
"""The site's time is ahead of UTC: who compares in it without saying so misses or repeats orders."""


class Shop:
    """The data of a shop, which a test may change while it is read."""

    def __init__(self) -> None:
        self.orders: list[Record] = []
        self.refunds: list[Record] = []
        self.customers: list[Record] = []
        self.products: list[Record] = []
        self.roles = {"all", "customer", "administrator", "editor", "shop_manager"}
        self.has_refunds_route = True
        """WooCommerce 9.0 and later have it."""
        self.unknown_routes: set[str] = set()
        """Paths that WordPress does not know, as while a plugin is updated."""
        self.refusals: list[int] = []
        """Statuses of the next answers."""
        self.is_still = False
        """Its orders don't change any more: a page of many of them comes from an index, as a database's does."""
        self._index: list[Record] = []
        self.requests: Counter[str] = Counter()
        """By path."""
        self.url = ""

    def order(self, id_: int, at: datetime, total: str, *, modified: datetime | None = None, **fields: Any) -> Record:
        """Adds an order that was placed and paid at a time."""
        record = {
            "id": id_,
            "number": str(id_),
            "status": "completed",
            "currency": "USD",
            **times("date_created", at),
            **times("date_paid", at),
            **times("date_modified", modified or at),
            "total": total,
            "total_tax": "0.00",
            "discount_total": "0.00",
            "shipping_total": "0.00",
            "customer_id": 0,
            "payment_method": "stripe",
            "billing": {"first_name": "Ada", "email": f"buyer{id_}@example.org", "country": "GB", "company": ""},
            "line_items": [{"id": id_ * 10, "name": "PMP course", "product_id": 201, "quantity": 1, "total": total, "total_tax": "0.00"}],
            "coupon_lines": [],
            "refunds": [],
            "meta_data": [],
            "created_via": "checkout",
            **fields,
        }
        self.orders.append(record)
        return record

    def refund(self, order: Record, id_: int, amount: str, at: datetime, reason: str = "", *, lines: Sequence[Record] = ()) -> None:
        """Refunds a part of an order, which changes the order, too."""
        stated = {"id": id_, "parent_id": order["id"], "amount": amount, "reason": reason, "line_items": [*lines]}
        self.refunds.append({**stated, **times("date_created", at)})
        order["refunds"].append({"id": id_, "reason": reason, "total": f"-{amount}"})
        order |= times("date_modified", max(at, _modified(order)))

    def customer(self, id_: int, role: str = "customer", **fields: Any) -> None:
        """Adds a user of the site."""
        at = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=id_)
        names = {"email": f"user{id_}@example.org", "first_name": "Grace", "last_name": "Hopper"}
        self.customers.append({"id": id_, "role": role, **names, **times("date_created", at), **times("date_modified", at), **fields})

    def answer(self, path: str, query: Mapping[str, str]) -> tuple[int, Any, int]:
        """Status, body and number of all records that match."""
        if not 1 <= int(query.get("per_page", "10")) <= 100:
            return 400, {"code": "rest_invalid_param", "data": {"params": ["per_page"]}}, 0
        match [path] if path in self.unknown_routes else path.split("/"):
            case ["refunds"] if self.has_refunds_route:
                wanted = {int(id_) for id_ in query["include"].split(",")}
                return self._page([refund for refund in self.refunds if refund["id"] in wanted], query)
            case ["orders", id_]:
                found = next((order for order in self.orders if order["id"] == int(id_)), None)
                return (200, found, 1) if found else (404, {"code": "woocommerce_rest_shop_order_invalid_id"}, 0)
            case ["orders", id_, "refunds"]:
                return self._page([{**refund, "parent_id": None} for refund in self.refunds if refund["parent_id"] == int(id_)], query)
            case _:
                return self._collection(path, query)

    def _collection(self, path: str, query: Mapping[str, str]) -> tuple[int, Any, int]:
        collections = {"orders": self._orders, "customers": self._customers, "products": self._products}
        if path not in collections:
            return 404, {"code": "rest_no_route"}, 0
        if query.get("role", "all") not in self.roles:
            return 400, {"code": "rest_invalid_param", "data": {"params": ["role"]}}, 0
        return self._page(collections[path](query), query)

    def _orders(self, query: Mapping[str, str]) -> Sequence[Record]:
        if self.is_still and _BY_CHANGE.items() <= query.items():
            self._index = self._index or sorted(
                (order for order in self.orders if _has_status(order, "any")), key=lambda order: (order["date_modified_gmt"], order["id"])
            )
            first = bisect_right(self._index, query.get("modified_after", ""), key=lambda order: order["date_modified_gmt"])
            return self._index[first:]
        statuses = query.get("status", "any")
        orders = [order for order in self.orders if _has_status(order, statuses)]
        zone = "_gmt" if query.get("dates_are_gmt") == "true" else ""
        if after := query.get("modified_after"):
            orders = [order for order in orders if order[f"date_modified{zone}"] > after]
        if after := query.get("after"):
            orders = [order for order in orders if order[f"date_created{zone}"] > after]
        if before := query.get("before"):
            orders = [order for order in orders if order[f"date_created{zone}"] < before]
        if wanted := query.get("include"):
            orders = [order for order in orders if str(order["id"]) in wanted.split(",")]
        by = "date_modified_gmt" if query.get("orderby") == "modified" else "date_created_gmt"
        return sorted(orders, key=lambda order: (order[by], order["id"]), reverse=query.get("order", "desc") == "desc")

    def _customers(self, query: Mapping[str, str]) -> Sequence[Record]:
        role = query.get("role", "customer")
        found = [customer for customer in self.customers if role in {"all", customer["role"]}]
        return sorted(found, key=lambda customer: customer["id"], reverse=query.get("order", "asc") == "desc")

    def _products(self, _: Mapping[str, str]) -> Sequence[Record]:
        return self.products

    def _page(self, records: Sequence[Record], query: Mapping[str, str]) -> tuple[int, Any, int]:
        size = int(query.get("per_page", "10"))
        start = int(query["offset"]) if "offset" in query else (int(query.get("page", "1")) - 1) * size
        fields = query["_fields"].split(",") if "_fields" in query else None
        page = [{name: record[name] for name in fields or record if name in record} for record in records[start : start + size]]
        return 200, page, len(records)


@contextmanager
def serving(shop: Shop) -> Generator[Shop]:
    """Serves the API of a shop until the block ends."""
    credentials = base64.b64encode(f"{KEY}:{SECRET}".encode()).decode()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            shop.requests[parts.path.removeprefix("/wp-json/wc/v3/")] += 1
            query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
            if self.headers["authorization"] != f"Basic {credentials}":
                answer = 401, {"code": "woocommerce_rest_cannot_view"}, 0
            elif shop.refusals:
                answer = shop.refusals.pop(0), {"code": "busy"}, 0
            else:
                answer = shop.answer(parts.path.removeprefix("/wp-json/wc/v3/"), query)
            status, body, total = answer
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json; charset=UTF-8")
            self.send_header("content-length", str(len(content)))
            self.send_header("x-wp-total", str(total))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name)
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        shop.url = f"http://127.0.0.1:{server.server_port}"
        thread = Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield shop
        finally:
            server.shutdown()
            thread.join()


def _has_status(order: Record, asked: str) -> bool:
    """Neither the trash nor a status that another plugin keeps out of lists is any status."""
    return order["status"] not in {"trash", "archived"} if asked == "any" else order["status"] == asked


def _modified(order: Record) -> datetime:
    return datetime.fromisoformat(order["date_modified_gmt"]).replace(tzinfo=UTC)


def times(name: str, at: datetime) -> Record:
    """A time as the API has it: where the site is, and in GMT, both without a zone."""
    return {name: (at + SHOP_OFFSET).strftime("%Y-%m-%dT%H:%M:%S"), f"{name}_gmt": at.strftime("%Y-%m-%dT%H:%M:%S")}
