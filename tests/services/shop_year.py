"""A year of an invented shop: what happens to its orders, what its plugin reports of it, and its own books.

The books are written while things happen, in whole minor units and in SQL, and know nothing of the mesh.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from fractions import Fraction
from typing import Any, Final

DIGITS: Final = {"USD": 2, "EUR": 2, "JPY": 0, "KWD": 3}
"""Currencies of the shop, and their minor units."""
SOURCES: Final = ("newsletter", "google", "facebook", "partner")
_SCHEMA: Final = """
CREATE TABLE orders (id TEXT PRIMARY KEY, customer TEXT, currency TEXT, status TEXT, total INTEGER, placed TEXT, paid TEXT, session TEXT);
CREATE TABLE refunds (id TEXT PRIMARY KEY, order_id TEXT, amount INTEGER, made TEXT, deleted TEXT);
CREATE TABLE book (order_id TEXT, at TEXT, amount INTEGER);
CREATE TABLE sessions (session TEXT PRIMARY KEY, customer TEXT, began TEXT, source TEXT);
"""
_PAID: Final = ("processing", "completed", "refunded")


@dataclass(slots=True)
class _Order:
    id: str
    customer: str
    currency: str
    total: int
    placed: datetime
    method: str
    session: str
    status: str = "pending"
    paid: datetime | None = None
    reason: str = ""
    anonymised: bool = False
    refunds: dict[str, int] = field(default_factory=dict[str, int])
    """Refunds that were not deleted."""

    @property
    def net(self) -> int:
        """The order's net amount."""
        return self.total - sum(self.refunds.values()) if self.paid and self.status in _PAID else 0


class Shop:
    """The shop.

    Args:
        orders: the number of orders.
        now: the end of the year.
        seed: the seed of random events.
    """

    def __init__(self, orders: int, now: datetime, seed: int = 5) -> None:
        self.orders: list[str] = [f"2026/{number}" for number in range(orders)]
        self.books = sqlite3.connect(":memory:")
        self.books.executescript(_SCHEMA)
        self.reports: list[tuple[str, dict[str, Any]]] = []
        """What the plugin reports: `purchase`, or the number of the order that is refunded, and the body."""
        self.touchpoints: list[dict[str, Any]] = []
        """The touchpoint of each session."""
        self._now = now
        self._random = random.Random(seed)  # noqa: S311
        self._numbers = iter(range(10_000, 10_000_000))
        for order_id in self.orders:
            self._live(order_id, max(2, orders // 4))
        self.books.commit()

    def rate(self, day: date, currency: str) -> str:
        """Units of a currency for one euro on a day."""
        step = (day - date(2020, 1, 1)).days
        return {"USD": f"1.{1000 + step % 173:04}", "JPY": f"{150 + step % 17}.{step % 10}", "KWD": f"0.3{500 + step % 97:04}"}[currency]

    def in_dollars(self, placed: str, currency: str, minor: int) -> Fraction:
        """An amount in cents, at the rate of the order's day, not rounded."""
        day = datetime.fromisoformat(placed).date()
        units, dollars = (Fraction("1") if code == "EUR" else Fraction(self.rate(day, code)) for code in (currency, "USD"))
        return Fraction(minor, 10 ** DIGITS[currency]) * 100 * dollars / units

    def days(self, query: str) -> Mapping[tuple[str, str], int]:
        """An amount by day and currency."""
        return {(day, currency): amount for day, currency, amount in self.books.execute(query) if amount}

    def _live(self, order_id: str, customers: int) -> None:
        chance = self._random
        placed = self._now - timedelta(seconds=chance.randrange(5 * 86_400, 360 * 86_400))
        renewal = chance.random() < 0.1
        currency = chance.choice(list(DIGITS))
        order = _Order(
            id=order_id,
            customer=str(1 + chance.randrange(customers)),
            currency=currency,
            total=chance.randrange(10, 400) * 10 ** DIGITS[currency] + chance.randrange(10 ** DIGITS[currency]),
            placed=placed,
            method=chance.choice(["stripe", "stripe", "cod", "stripe_sepa"]),
            session="" if renewal else f"s-{order_id.replace('/', '-')}",
        )
        if order.session:
            self._start_session(order.customer, order.session, placed - timedelta(minutes=10))
        if chance.random() < 0.3:
            self._start_session(order.customer, f"{next(self._numbers)}", placed - timedelta(days=chance.randrange(1, 50)))
        self._report(order, placed + timedelta(seconds=1))
        at = placed
        for change in self._changes(order):
            at += timedelta(seconds=chance.randrange(3600, 6 * 86_400))
            if at > self._now:
                break
            before, paid = order.net, order.paid
            change(order, at)
            when = order.paid if order.paid and not paid else at
            if order.net != before:
                self.books.execute("INSERT INTO book VALUES (?, ?, ?)", (order.id, when.isoformat(), order.net - before))
            self._report(order, at)
        paid = order.paid and order.paid.isoformat()
        row = (order.id, order.customer, currency, order.status, order.total, placed.isoformat(), paid, order.session)
        self.books.execute("INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?, ?)", row)

    def _changes(self, order: _Order) -> Iterator[Callable[[_Order, datetime], None]]:
        """What happens to an order, one after the other. Some are never paid."""
        chance = self._random
        if order.method == "cod":
            yield self._processing
        if chance.random() < 0.15:
            yield from chance.choice([(), (self._cancel,)])
            return
        yield self._pay
        if order.method == "stripe_sepa" and chance.random() < 0.3:
            yield self._bounce
            return
        later = [
            (self._refund,),
            (self._refund, self._delete_refund, self._refund),
            (self._trash, self._restore),
            (self._edit,),
            (self._anonymise,),
        ]
        for _ in range(chance.choice([0, 0, 1, 1, 2])):
            yield from chance.choice(later)
        if chance.random() < 0.15:
            yield chance.choice([self._cancel, self._trash])

    @staticmethod
    def _processing(order: _Order, _at: datetime) -> None:
        order.status = "processing"

    @staticmethod
    def _pay(order: _Order, at: datetime) -> None:
        order.status, order.paid = ("completed" if order.method == "cod" else "processing"), at - timedelta(seconds=30)

    @staticmethod
    def _cancel(order: _Order, _at: datetime) -> None:
        order.status, order.reason = "cancelled", ""

    @staticmethod
    def _bounce(order: _Order, _at: datetime) -> None:
        order.status, order.reason = "failed", "bounced"

    @staticmethod
    def _trash(order: _Order, _at: datetime) -> None:
        order.status, order.reason = "trashed", "trashed"

    @staticmethod
    def _restore(order: _Order, _at: datetime) -> None:
        order.status, order.reason = "completed", ""

    @staticmethod
    def _anonymise(order: _Order, _at: datetime) -> None:
        order.anonymised = True

    def _edit(self, order: _Order, _at: datetime) -> None:
        order.total = max(order.total + self._random.randrange(-3000, 3000), sum(order.refunds.values()) + 1)

    def _refund(self, order: _Order, at: datetime) -> None:
        left = order.total - sum(order.refunds.values())
        if left < 1:
            return
        refund, amount = str(next(self._numbers)), left if self._random.random() < 0.2 else self._random.randrange(1, left + 1)
        order.refunds[refund] = amount
        if amount == left:
            order.status = "refunded"
        self.books.execute("INSERT INTO refunds VALUES (?, ?, ?, ?, NULL)", (refund, order.id, amount, at.isoformat()))
        self._report_refund(order, refund, at, amount=self._number(order, amount))

    def _delete_refund(self, order: _Order, at: datetime) -> None:
        if not order.refunds:
            return
        refund, _ = order.refunds.popitem()
        order.status = "completed"
        self.books.execute("UPDATE refunds SET deleted = ? WHERE id = ?", (at.isoformat(), refund))
        self._report_refund(order, refund, at, deleted=True)

    def _start_session(self, customer: str, session: str, began: datetime) -> None:
        source = self._random.choice(SOURCES)
        self.books.execute("INSERT INTO sessions VALUES (?, ?, ?, ?)", (session, customer, began.isoformat(), source))
        touchpoint = {"id": f"v-{session}", "timestamp": began.isoformat(), "session_id": session, "user_id": customer, "source": source}
        self.touchpoints.append({**touchpoint, "action": "page_view", "touchpoint": "landing"})

    def _report(self, order: _Order, at: datetime) -> None:
        who = {} if order.anonymised else {"user_id": order.customer, "session_id": order.session}
        paid = {"paid_at": order.paid.isoformat()} if order.paid else {}
        body = {
            "order_id": order.id,
            "timestamp": order.placed.isoformat(),
            "amount": self._number(order, order.total),
            "currency": order.currency,
            "payment_method": order.method,
            "payment_status": "cancelled" if order.status == "trashed" else order.status,
            "reason": order.reason,
            "refunded_total": self._number(order, sum(order.refunds.values())),
            "reported_at": (at + timedelta(milliseconds=500)).isoformat(),
            "source": "plugin",
        }
        self.reports.append(("purchase", {**body, **who, **paid}))

    def _report_refund(self, order: _Order, refund: str, at: datetime, **fields: Any) -> None:
        total = self._number(order, sum(order.refunds.values()))
        body = {"reference": refund, "timestamp": at.isoformat(), "refunded_total": total, "source": "plugin"}
        self.reports.append((order.id, {**body, **fields, "reported_at": (at + timedelta(milliseconds=200)).isoformat()}))

    @staticmethod
    def _number(order: _Order, minor: int) -> float:
        return minor / 10 ** DIGITS[order.currency]


def cents(amount: Fraction) -> int:
    """Whole cents; halves go up."""
    return int(amount + Fraction(1, 2))


def utc(text: str) -> datetime:
    """A time of the books."""
    return datetime.fromisoformat(text).astimezone(UTC)
