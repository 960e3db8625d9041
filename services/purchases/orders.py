"""An order within one transaction: what a notice makes of its columns, its lines and its ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from kit.persons import subject_of
from services.purchases.ledger import Balance, bookings
from services.purchases.messages import Told, joined, purchase_id_of, subject_without, wordpress_order_id
from services.purchases.models import EntryRow, LineRow, NoticeRow, PurchaseRow
from services.purchases.money import NOTHING, Rate, entries_in_base, in_base
from services.purchases.rules import PAID, Claim, State, Status, facts_of, state

_FILLED: Final = ("user_id", "session_id", "payment_method", "utm_attribution", "billing_data")
_PRICE: Final = frozenset({"rate", "base_net_amount"})
_LINE: Final = ("product_id", "product_name", "product_type", "quantity", "amount")


def new_row(site: str, order_id: str, base_currency: str) -> PurchaseRow:
    """An order of which nothing is known yet."""
    return PurchaseRow(
        id=purchase_id_of(site, order_id),
        site=site,
        order_id=order_id,
        wordpress_order_id=wordpress_order_id(order_id),
        base_currency=base_currency,
        paid_amount=NOTHING,
        refunded_amount=NOTHING,
        is_test=False,
        is_staff=False,
        lines_fixed=False,
    )


class Order:
    """An order, and what changes about it.

    Args:
        row: its columns; changed in place.
        claims: what its notices told, in the order of their arrival; only needed to tell one more.
        lines: its lines.
        entries: its ledger.
    """

    def __init__(
        self, row: PurchaseRow, claims: Iterable[Claim] = (), lines: Sequence[LineRow] = (), entries: Sequence[EntryRow] = ()
    ) -> None:
        self.row = row
        self.lines = lines
        self.entries = entries
        self.changed: set[str] = set()
        """What a notice changed, by column; `lines` and `entries` are the other tables'."""
        self._facts = self._known = facts_of(claims)
        self._balance = _balance(row)

    @property
    def is_news(self) -> bool:
        """The notice added to the facts."""
        return self._facts != self._known

    @property
    def is_duplicate(self) -> bool:
        """The notice told nothing that anybody would want to know: no change, and no money that went back that was not known."""
        return not self.changed - _PRICE and self._facts.paid_back == self._known.paid_back

    @property
    def awaits_rate(self) -> bool:
        """Its sale is about to be booked, or was when there was no rate: now is when it gets pinned."""
        return self.row.paid_at is not None and self.row.rate is None

    def tell(self, claim: Claim, told: Told | None = None) -> None:
        """Takes in a notice, but for the ledger."""
        self._facts = self._facts.told(claim)
        if told is not None:
            self._set(self._filled(told))
            if told.lines and self._takes_lines(claim):
                self._take_lines(told.lines)
        self._set(_money(state(self._facts), self.row.timestamp))
        self._set({"lines_fixed": self._facts.fixed and bool(self.lines)})

    def book(self, claim: Claim, rate: Rate | None, now: datetime) -> Sequence[EntryRow]:
        """Books what the notice changes, at the rate of the order; answers the new entries."""
        row = self.row
        made = bookings(self._balance, _balance(row), claim, [(entry.kind, entry.reference) for entry in self.entries])
        new = [
            EntryRow(
                purchase_id=row.id,
                site=row.site,
                order_id=row.order_id,
                kind=booking.kind.value,
                reference=booking.reference,
                amount=booking.amount,
                timestamp=(row.paid_at if booking.is_sale else claim.at) or now,
                booked_at=now,
            )
            for booking in made
        ]
        self.entries = [*self.entries, *new]
        if new:
            self.changed.add("entries")
        self.price(rate)
        return new

    def price(self, rate: Rate | None) -> None:
        """Pins the rate, and says in the base currency what is not yet said in it."""
        row = self.row
        self._set({"rate": rate, "base_net_amount": _base_net(row, rate)})
        if rate is None:
            return
        for entry, base in zip(self.entries, entries_in_base([e.amount for e in self.entries], rate, row.base_currency), strict=True):
            if entry.base_amount is None:
                entry.base_amount = base

    def notice(self, claim: Claim, source: str, reason: str, now: datetime) -> NoticeRow:
        """The notice, and what it changed."""
        return NoticeRow(
            purchase_id=self.row.id,
            kind=claim.kind.value,
            reference=claim.reference,
            status=claim.status and claim.status.value,
            amount=claim.amount,
            currency=claim.currency,
            refunded_total=claim.refunded_total,
            timestamp=claim.at or now,
            source=source,
            reason=reason,
            is_news=self.is_news,
            changed=",".join(sorted(self.changed)),
            received_at=now,
        )

    def _filled(self, told: Told) -> dict[str, Any]:
        """What an order is known by, beside its money. What is known stays; what one notice leaves out, another adds."""
        row, more = self.row, told.columns
        values: dict[str, Any] = {name: getattr(row, name) or more.get(name) for name in _FILLED}
        # Sealed and hash of one address belong together; another sealing of the same is no change.
        values |= {name: getattr(row, name) if row.email_hash else more.get(name) for name in ("email", "email_hash")}
        details = more.get("details")
        values["details"] = joined(row.details, details) if row.details and details else row.details or details
        values["is_test"], values["is_staff"] = row.is_test or told.is_test, row.is_staff or told.is_staff
        named = subject_of(user_id=values["user_id"] or "", email_hash=values["email_hash"] or b"", session_id=values["session_id"] or "")
        values["subject"] = named or row.subject or subject_without(row.id, erased=told.erased)
        # The day of the order says which rate is pinned with the sale: from then on it stays.
        if not self._balance.is_paid:
            values["timestamp"] = min(row.timestamp or told.timestamp, told.timestamp)
        return values

    def _takes_lines(self, claim: Claim) -> bool:
        """A notice's lines become the order's: the newest until it is paid, those of the first paid notice for good."""
        if not self.lines:
            return True
        return not self.row.lines_fixed and (not self._balance.is_paid or claim.status in PAID)

    def _take_lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if [{name: getattr(line, name) for name in _LINE} for line in self.lines] == list(lines):
            return
        self.lines = [LineRow(purchase_id=self.row.id, number=number, **line) for number, line in enumerate(lines, start=1)]
        self.changed.add("lines")
        self._set({name: lines[0][name] for name in ("product_id", "product_name", "product_type")})

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if getattr(self.row, name) != value:
                setattr(self.row, name, value)
                self.changed.add(name)


def _balance(row: PurchaseRow) -> Balance:
    return Balance(row.paid_at is not None, row.paid_amount, row.refunded_amount, row.payment_status == Status.CHARGED_BACK)


def _money(now: State, ordered_at: datetime) -> dict[str, Any]:
    return {
        "payment_status": now.status.value,
        "amount": now.amount,
        "currency": now.currency,
        "paid_at": (now.paid_at or ordered_at) if now.is_paid else None,
        "paid_amount": now.paid_amount,
        "refunded_amount": now.refunded_amount,
        "disputed": now.disputed,
    }


def _base_net(row: PurchaseRow, rate: Rate | None) -> Decimal | None:
    """Paid less refunded in the base currency; None while a paid order has no rate."""
    if row.paid_at is None:
        return NOTHING
    return None if rate is None else in_base(row.paid_amount - row.refunded_amount, rate, row.base_currency)
