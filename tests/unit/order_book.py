"""An order that is reported claim by claim, as the tables keep it between two reports."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from services.purchases.claims import Claim, ReportKind
from services.purchases.details import OrderDetails
from services.purchases.money import Rate
from services.purchases.orders import Order, new_row
from services.purchases.records import EntryRecord, PurchaseRecord

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
RATE = Rate(Decimal("161.37"), Decimal("1.0852"))
DETAILS = OrderDetails(START, {"user_id": "42"}, [], is_test=False, is_staff=False)


class Book:
    """An order whose reports arrive in this order."""

    def __init__(self, claims: Sequence[Claim], rate: Rate | None = RATE) -> None:
        self.row: PurchaseRecord = new_row("shop", "1", "EUR", START)
        self.entries: Sequence[EntryRecord] = ()
        self.duplicates: list[bool] = []
        self._rate = rate
        self._known: list[Claim] = []
        for claim in claims:
            self._record(claim)

    def _record(self, claim: Claim) -> None:
        order = Order(self.row, self._known, entries=self.entries)
        if claim.kind is not ReportKind.PURCHASE and not self.row.is_known:
            claim = replace(claim, currency="")
            order.hold(claim)
        else:
            order.apply(claim, DETAILS if claim.kind is ReportKind.PURCHASE else None)
            order.book(claim, self._rate if order.needs_rate else self.row.rate, START)
        if order.adds_facts:
            self._known.append(claim)
        self.entries = order.entries
        self.duplicates.append(order.is_duplicate)

    @property
    def balance(self) -> tuple[str, Decimal, Decimal]:
        return (self.row.payment_status, self.row.paid_amount, self.row.refunded_amount)

    @property
    def booked(self) -> list[tuple[str, str, Decimal]]:
        return [(entry.kind, entry.reference, entry.amount) for entry in self.entries]

    @property
    def ledger(self) -> list[tuple[str, str, Decimal, str]]:
        """The entries with their reasons."""
        return [(entry.kind, entry.reference, entry.amount, entry.reason) for entry in self.entries]

    @property
    def by_day(self) -> dict[float, Decimal]:
        """The sum of the ledger's entries by their day."""
        return self._by_day(lambda entry: entry.amount)

    @property
    def by_day_in_base(self) -> dict[float, Decimal]:
        return self._by_day(lambda entry: entry.base_amount or Decimal(0))

    def _by_day(self, amount: Callable[[EntryRecord], Decimal]) -> dict[float, Decimal]:
        days: dict[float, Decimal] = defaultdict(Decimal)
        for entry in self.entries:
            days[(entry.timestamp - START) / timedelta(days=1)] += amount(entry)
        return {day: total for day, total in sorted(days.items()) if total}
