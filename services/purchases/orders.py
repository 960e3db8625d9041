"""An order within one transaction: what a notice makes of its columns, its lines and its ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from kit.people.persons import subject_of
from services.purchases.ledger import Balance, EntryKind, Step, bookings, numbered, restated
from services.purchases.messages import NOBODY, Told, joined, purchase_id_of, subject_without, wordpress_order_id
from services.purchases.models import EntryRow, LineRow, NoticeRow, PurchaseRow
from services.purchases.money import NOTHING, Rate, entries_in_base, exact, in_base
from services.purchases.reports import stands
from services.purchases.rules import PAID, Claim, NoticeKind, Reason, State, Status, facts_of

_FILLED: Final = ("user_id", "session_id", "payment_method", "utm_attribution", "billing_data")
_PRICE: Final = frozenset({"rate", "base_net_amount"})
_LINE: Final = ("product_id", "product_name", "product_type", "quantity", "amount")


AWAITED: Final = "waiting"
"""Stands for the status of an order that is not known yet."""

WAITING: Final = "waiting:"
"""Kind of the names that stand for orders of which nothing but notices is known."""


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
        currency="",
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
        self._claims = list(claims)
        self._balance = _balance(row)
        self._steps: Sequence[Step] | None = None
        self._tells_of_refund = False
        self.is_news = False
        """The notice added to what was told."""

    @property
    def is_duplicate(self) -> bool:
        """The notice told nothing that anybody would want to know: no change, and no money that went back that was not known."""
        return not (self.is_news if self.waiting else self.changed - _PRICE or self._tells_of_refund)

    @property
    def awaits_rate(self) -> bool:
        """Its sale is about to be booked, or was when there was no rate: now is when it gets pinned."""
        return self.row.sold_at is not None and self.row.rate is None

    @property
    def waiting(self) -> int:
        """How many notices wait for the order; 0 once it is known."""
        return 0 if self.row.is_known else len(self._claims)

    def wait(self, claim: Claim, now: datetime) -> None:
        """Takes in a notice of an order that is not known yet."""
        row, known = self.row, self._claims
        self._claims = [*known, claim]
        self.is_news = _is_news(claim, known, self._claims)
        row.subject, row.currency, row.payment_status, row.amount = f"{WAITING}{row.id}", "", AWAITED, NOTHING
        row.timestamp, row.disputed, row.base_net_amount = row.timestamp or now, False, NOTHING

    def tell(self, claim: Claim, told: Told | None = None) -> None:
        """Takes in a notice, but for the ledger."""
        known = self._claims
        currency = self.row.currency or claim.currency
        before = stands(_in(currency, known))[0].paid_back if known else NOTHING
        self._claims = _in(currency, [*known, claim])
        self.is_news = _is_news(claim, known, self._claims)
        now, self._steps = stands(self._claims)
        if told is not None:
            is_newest = claim.reported_at is not None and not any(c.reported_at and c.reported_at > claim.reported_at for c in known)
            self._set(self._filled(told, newest=is_newest))
            if (told.lines or is_newest) and self._takes_lines(claim, newest=is_newest):
                self._take_lines(told.lines)
        self._set(_money(now, self.row.timestamp))
        paid = any(each.kind is NoticeKind.PURCHASE and each.status in PAID for each in self._claims)
        self._set({"lines_fixed": paid and bool(self.lines)})
        self._tells_of_refund = now.paid_back != before

    def book(self, claim: Claim, rate: Rate | None, now: datetime) -> Sequence[EntryRow]:
        """Books what the notice changes, at the rate of the order; answers the new entries."""
        row, base = self.row, self.row.base_currency
        self.price(rate)
        if self._steps is None:
            steps = bookings(self._balance, _balance(row), claim, row.sold_at or now, now)
        else:
            steps = restated(self._steps, [_step(entry) for entry in self.entries], rate, base)
        new = [
            EntryRow(
                purchase_id=row.id,
                site=row.site,
                order_id=row.order_id,
                kind=step.kind.value,
                reference=step.reference,
                amount=step.amount,
                base_amount=step.base,
                timestamp=step.at,
                booked_at=now,
                reason=step.reason or "",
            )
            for step in numbered(steps, [(entry.kind, entry.reference) for entry in self.entries])
        ]
        self.entries = [*self.entries, *new]
        if new:
            self.changed.add("entries")
        self.price(rate)
        return new

    def price(self, rate: Rate | None) -> None:
        """Pins the rate, and says in the base currency what is not yet said in it: by date, where nothing is."""
        row = self.row
        self._set({"rate": rate, "base_net_amount": _base_net(row, rate)})
        unpriced = [entry for entry in self.entries if entry.base_amount is None]
        if rate is None or not unpriced:
            return
        priced = sum((entry.amount for entry in self.entries if entry.base_amount is not None), NOTHING)
        ordered = sorted(unpriced, key=lambda entry: entry.timestamp) if len(unpriced) == len(self.entries) else unpriced
        _, *bases = entries_in_base([priced, *(entry.amount for entry in ordered)], rate, row.base_currency)
        for entry, base in zip(ordered, bases, strict=True):
            entry.base_amount = base

    def notice(self, claim: Claim, reason: str, now: datetime) -> NoticeRow:
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
            source=claim.source,
            reason=claim.reason or reason,
            is_news=self.is_news,
            changed=",".join(sorted(self.changed)),
            received_at=now,
            reported_at=claim.reported_at,
            paid_at=claim.paid_at,
            deleted=claim.deleted,
        )

    def _filled(self, told: Told, *, newest: bool) -> dict[str, Any]:
        """What an order is known by, beside its money. What is known stays; what one notice leaves out, another adds."""
        row, more = self.row, told.columns
        values: dict[str, Any] = {name: getattr(row, name) or more.get(name) for name in _FILLED}
        # Sealed and hash of one address belong together; another sealing of the same is no change.
        values |= {name: getattr(row, name) if row.email_hash else more.get(name) for name in ("email", "email_hash")}
        details = more.get("details")
        values["details"] = joined(row.details, details) if row.details and details else row.details or details
        for flag in ("is_test", "is_staff"):
            values[flag] = getattr(told, flag) or (getattr(row, flag) and not newest)
        named = subject_of(user_id=values["user_id"] or "", email_hash=values["email_hash"] or b"", session_id=values["session_id"] or "")
        own = "" if (row.subject or "").startswith((WAITING, NOBODY)) else row.subject
        values["subject"] = named or own or subject_without(row.id, erased=told.erased)
        # The day of the order says which rate is pinned with the sale: from then on it stays.
        if not row.is_known:
            values["timestamp"] = told.timestamp
        elif row.sold_at is None:
            values["timestamp"] = min(row.timestamp, told.timestamp)
        return values

    def _takes_lines(self, claim: Claim, *, newest: bool) -> bool:
        """A notice's lines become the order's: those of the newest report.

        Without reports, those of the newest notice until it is paid, and those of the first paid one for good.
        """
        if claim.reported_at is not None or not self.lines:
            return newest or not self.lines
        reported = any(each.reported_at for each in self._claims)
        return not reported and not self.row.lines_fixed and (not self._balance.is_paid or claim.status in PAID)

    def _take_lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if [{name: getattr(line, name) for name in _LINE} for line in self.lines] == list(lines):
            return
        self.lines = [LineRow(purchase_id=self.row.id, number=number, **line) for number, line in enumerate(lines, start=1)]
        self.changed.add("lines")
        first: Mapping[str, Any] = lines[0] if lines else {}
        self._set({name: first.get(name) for name in ("product_id", "product_name", "product_type")})

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if getattr(self.row, name) != value:
                setattr(self.row, name, value)
                self.changed.add(name)


def _in(currency: str, claims: Sequence[Claim]) -> list[Claim]:
    """What was told, in the order's currency where it was told before the order; the order itself comes first."""
    if all(claim.currency for claim in claims):
        return list(claims)
    first = next((number for number, claim in enumerate(claims) if claim.kind is NoticeKind.PURCHASE), 0)
    ordered = [claims[first], *claims[:first], *claims[first + 1 :]]
    return [claim if claim.currency else _priced_in(currency, claim) for claim in ordered]


def _priced_in(currency: str, claim: Claim) -> Claim:
    amount, total = (None if each is None else exact(each, currency) for each in (claim.amount, claim.refunded_total))
    return replace(claim, currency=currency, amount=amount, refunded_total=total)


def _is_news(claim: Claim, known: Sequence[Claim], claims: Sequence[Claim]) -> bool:
    """A notice adds to what was told: one that takes nothing back, to the facts."""
    if claim.takes_back:
        return claim not in known
    before, after = (facts_of(claim for claim in some if not claim.takes_back) for some in (known, claims))
    return before != after


def _step(entry: EntryRow) -> Step:
    reason = Reason(entry.reason) if entry.reason else None
    return Step(entry.timestamp, EntryKind(entry.kind), entry.amount, entry.reference, reason, entry.base_amount)


def _balance(row: PurchaseRow) -> Balance:
    return Balance(row.paid_at is not None, row.paid_amount, row.refunded_amount, row.payment_status == Status.CHARGED_BACK)


def _money(now: State, ordered_at: datetime) -> dict[str, Any]:
    return {
        "payment_status": now.status.value,
        "amount": now.amount,
        "currency": now.currency,
        "paid_at": (now.paid_at or ordered_at) if now.is_paid else None,
        "sold_at": now.sold_at or (ordered_at if now.is_paid else None),
        "paid_amount": now.paid_amount,
        "refunded_amount": now.refunded_amount,
        "disputed": now.disputed,
    }


def _base_net(row: PurchaseRow, rate: Rate | None) -> Decimal | None:
    """Paid less refunded in the base currency; None while an order that was paid has no rate."""
    if row.sold_at is None:
        return NOTHING
    return None if rate is None else in_base(row.paid_amount - row.refunded_amount, rate, row.base_currency)
