"""An order within one transaction: what a report changes in its columns, its lines and its ledger. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from kit.people.identifiers import identifier_of
from services.purchases.claims import Claim, ReportKind, in_order_currency
from services.purchases.details import ANONYMOUS, OrderDetails, identifier_without_buyer, merged_metadata, takes_lines
from services.purchases.entries import add_lines, entry_row, ledger_entry, stored_lines
from services.purchases.facts import State, facts_of
from services.purchases.history import confirm_entries, is_order_historical
from services.purchases.ledger import Balance, LedgerEntry, entries_between, missing_entries, with_free_references
from services.purchases.money import NOTHING, Rate, entries_in_base, in_base
from services.purchases.order_ids import purchase_id_of, wordpress_order_id
from services.purchases.provider import BY_PROVIDER
from services.purchases.reconciliation import reconcile
from services.purchases.records import EntryRecord, LineRecord, PurchaseRecord
from services.purchases.statuses import PAID, Status

_FILLED: Final = ("user_id", "session_id", "payment_method", "utm_attribution", "billing_data", "visitor", "referral_code")
"""Columns that the first report with a value fills."""
_PRICE: Final = frozenset({"rate", "base_net_amount"})
_LINE: Final = ("product_id", "product_name", "product_type", "quantity", "amount", "course_ids")


HELD: Final = "waiting"
"""Stands for the status of an unknown order for which reports are held."""

HELD_IDENTIFIER: Final = "waiting:"
"""Kind of the identifier of such an order."""


def new_row(site: str, order_id: str, base_currency: str, now: datetime) -> PurchaseRecord:
    """The row of an order before its first report, which arrives now."""
    return PurchaseRecord(
        id=purchase_id_of(site, order_id),
        site=site,
        order_id=order_id,
        wordpress_order_id=wordpress_order_id(order_id),
        base_currency=base_currency,
        timestamp=now,
        created_at=now,
        updated_at=now,
        historical=True,
    )


class Order:
    """An order, and what a report changes about it.

    Args:
        row: its columns; changed in place.
        claims: the claims of its reports, in the order of their arrival; only needed to apply another one.
        lines: its lines.
        entries: its ledger.
    """

    def __init__(
        self, row: PurchaseRecord, claims: Iterable[Claim] = (), lines: Sequence[LineRecord] = (), entries: Sequence[EntryRecord] = ()
    ) -> None:
        self.row = row
        self.lines = lines
        self.had_lines = bool(lines)
        """It had lines before the report."""
        self.entries = entries
        self.changed: set[str] = set()
        """The columns that the report changed; `lines` and `entries` are the other tables'."""
        self.adds_facts = False
        """The report added to what was reported before."""
        self._claims = list(claims)
        self._balance = _balance(row)
        self._due: Sequence[LedgerEntry] | None = None
        self._changes_refunds = False

    @property
    def is_duplicate(self) -> bool:
        """True for a report that changed nothing but the price, and reported no refund that was unknown before."""
        return not (self.adds_facts if self.held_reports else self.changed - _PRICE or self._changes_refunds)

    @property
    def needs_rate(self) -> bool:
        """True when a rate is to be pinned: the sale is about to be booked, or was booked when there was no rate."""
        return self.row.sold_at is not None and self.row.rate is None

    @property
    def held_reports(self) -> int:
        """The number of reports that are held for the order; 0 once it is known."""
        return 0 if self.row.is_known else len(self._claims)

    def hold(self, claim: Claim) -> None:
        """Holds the report of a refund or status until the order is known."""
        row, known = self.row, self._claims
        self._claims = [*known, claim]
        self.adds_facts = _adds_facts(claim, known, self._claims)
        row.subject, row.currency, row.payment_status, row.amount = f"{HELD_IDENTIFIER}{row.id}", "", HELD, NOTHING
        row.disputed, row.base_net_amount = False, NOTHING

    def apply(self, claim: Claim, details: OrderDetails | None = None) -> None:
        """Applies a report to everything but the ledger, which `book` brings up to date."""
        known = self._claims
        currency = self.row.currency or claim.currency
        returned_before = reconcile(in_order_currency(currency, known)).state.returned if known else NOTHING
        self._claims = in_order_currency(currency, [*known, claim])
        self.adds_facts = _adds_facts(claim, known, self._claims)
        state, self._due = reconcile(self._claims)
        if details is not None:
            is_newest = claim.reported_at is not None and not any(c.reported_at and c.reported_at > claim.reported_at for c in known)
            self._set(self._merged_columns(details, is_newest=is_newest))
            is_known, is_fixed = bool(self.lines), self.row.lines_fixed
            due = bool(details.lines or is_newest) and self._takes(claim, is_known=is_known, is_fixed=is_fixed, is_newest=is_newest)
            if takes_lines(details.lines, self.lines, due=due):
                self._replace_lines(details.lines)
            if claim.currency == state.currency:
                self._set(self._taken_breakdown(claim, details.breakdown, is_fixed=_is_paid(known), is_newest=is_newest))
        self._set(_money_columns(state, self.row.timestamp))
        self._set({"lines_fixed": _is_paid(self._claims) and bool(self.lines)})
        self._changes_refunds = state.returned != returned_before

    def book(self, claim: Claim, rate: Rate | None, now: datetime, *, historical: bool = False) -> Sequence[EntryRecord]:
        """Books what the report changes, at the order's rate.

        Args:
            claim: what the report claims.
            rate: the order's rate; None while there is none.
            now: the time of the report's arrival.
            historical: whether the report is history.

        Returns:
            The new entries.
        """
        row, base = self.row, self.row.base_currency
        self.price(rate)
        if self._due is None:
            entries = entries_between(self._balance, _balance(row), claim, row.sold_at or now, now)
        else:
            entries = missing_entries(self._due, [ledger_entry(entry) for entry in self.entries], rate, base)
        booked = [(entry.kind, entry.reference) for entry in self.entries]
        new = [entry_row(row, entry, now, historical=historical) for entry in with_free_references(entries, booked)]
        is_confirmed = not historical and confirm_entries(self.entries, now)
        self.entries = [*self.entries, *new]
        if add_lines(self.entries, self._claims) or new or is_confirmed:
            self.changed.add("entries")
        self._set({"historical": is_order_historical(self.entries, before=row.historical, reported=historical)})
        self.price(rate)
        return new

    def price(self, rate: Rate | None) -> None:
        """Pins the rate, and sets the base amounts that are still missing; those of an order that has none are set by date."""
        row = self.row
        self._set({"rate": rate, "base_net_amount": _base_net_amount(row, rate)})
        unpriced = [entry for entry in self.entries if entry.base_amount is None]
        if rate is None or not unpriced:
            return
        priced = sum((entry.amount for entry in self.entries if entry.base_amount is not None), NOTHING)
        ordered = sorted(unpriced, key=lambda entry: entry.timestamp) if len(unpriced) == len(self.entries) else unpriced
        _, *bases = entries_in_base([priced, *(entry.amount for entry in ordered)], rate, row.base_currency)
        for entry, base in zip(ordered, bases, strict=True):
            entry.base_amount = base

    def report_columns(self, claim: Claim, note: str, now: datetime) -> Mapping[str, Any]:
        """The columns of the report's row, with what it changed.

        Args:
            claim: its claim.
            note: the reason for a refund, in the shop's own words.
            now: the time of its arrival.
        """
        return {
            "purchase_id": self.row.id,
            "kind": claim.kind.value,
            "reference": claim.reference,
            "status": claim.status and claim.status.value,
            "amount": claim.amount,
            "currency": claim.currency,
            "refunded_total": claim.refunded_total,
            "timestamp": claim.at or now,
            "source": claim.source,
            "reason": claim.reason or note,
            "is_news": self.adds_facts,
            "changed": ",".join(sorted(self.changed)),
            "received_at": now,
            "reported_at": claim.reported_at,
            "paid_at": claim.paid_at,
            "deleted": claim.deleted,
            "payment": claim.payment,
            "returned_lines": stored_lines(claim.lines),
        }

    def _merged_columns(self, details: OrderDetails, *, is_newest: bool) -> dict[str, Any]:
        """The order's columns beside its money. Known values stay; what one report leaves out, another adds."""
        row, reported = self.row, details.columns
        values: dict[str, Any] = {name: getattr(row, name) or reported.get(name) for name in _FILLED}
        # The sealed address and its hash belong together; the same address sealed again is no change.
        values |= {name: getattr(row, name) if row.email_hash else reported.get(name) for name in ("email", "email_hash")}
        values["details"] = merged_metadata(row.details, reported.get("details"))
        for flag in ("is_test", "is_staff"):
            known, stated = getattr(row, flag), getattr(details, flag)
            values[flag] = known if stated is None else stated or (known and not is_newest)
        buyer = identifier_of(
            user_id=values["user_id"] or "", email_hash=values["email_hash"] or b"", session_id=values["session_id"] or ""
        )
        own = "" if row.subject.startswith((HELD_IDENTIFIER, ANONYMOUS)) else row.subject
        values["subject"] = buyer or own or identifier_without_buyer(row.id, erased=details.erased)
        # The day of the order decides the rate that is pinned with the sale: from then on it stays.
        if not row.is_known:
            values["timestamp"] = details.timestamp
        elif row.sold_at is None:
            values["timestamp"] = min(row.timestamp, details.timestamp)
        return values

    def _takes(self, claim: Claim, *, is_known: bool, is_fixed: bool, is_newest: bool) -> bool:
        """True when the report's lines, or a part of its breakdown, become the order's: those of the newest dated report.

        Without dated reports, those of the last report until the order is paid, then those of the first paid one for good.
        """
        if claim.reported_at is not None or not is_known:
            return is_newest or not is_known
        has_dated = any(each.reported_at for each in self._claims)
        return not has_dated and not is_fixed and (not self._balance.is_paid or claim.status in PAID)

    def _taken_breakdown(self, claim: Claim, stated: Mapping[str, Any], *, is_fixed: bool, is_newest: bool) -> Mapping[str, Any]:
        """What the order takes of a report's breakdown. What the report does not state stays."""
        return {
            name: value
            for name, value in stated.items()
            if self._takes(claim, is_known=getattr(self.row, name) is not None, is_fixed=is_fixed, is_newest=is_newest)
        }

    def _replace_lines(self, lines: Sequence[Mapping[str, Any]]) -> None:
        if [{name: getattr(line, name) for name in _LINE} for line in self.lines] == list(lines):
            return
        self.lines = [LineRecord(purchase_id=self.row.id, number=number, **line) for number, line in enumerate(lines, start=1)]
        self.changed.add("lines")
        first: Mapping[str, Any] = lines[0] if lines else {}
        self._set({name: first.get(name) for name in ("product_id", "product_name", "product_type")})

    def _set(self, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            if getattr(self.row, name) != value:
                setattr(self.row, name, value)
                self.changed.add(name)


def _is_paid(claims: Iterable[Claim]) -> bool:
    """True when the report of a purchase claims that it is paid."""
    return any(each.kind is ReportKind.PURCHASE and each.status in PAID for each in claims)


def _adds_facts(claim: Claim, known: Sequence[Claim], claims: Sequence[Claim]) -> bool:
    """True when a claim adds to what is known; one that reverses nothing, to the facts or what is known of a refund's lines."""
    if claim.can_reverse or claim.lines or claim.kind in BY_PROVIDER:
        return claim not in known
    undated = ([each for each in some if not each.can_reverse and each.kind not in BY_PROVIDER] for some in (known, claims))
    before, after = map(facts_of, undated)
    return before != after


def _balance(row: PurchaseRecord) -> Balance:
    return Balance(row.paid_at is not None, row.paid_amount, row.refunded_amount, row.payment_status == Status.CHARGED_BACK)


def _money_columns(state: State, ordered_at: datetime) -> dict[str, Any]:
    return {
        "payment_status": state.status.value,
        "amount": state.amount,
        "currency": state.currency,
        "paid_at": (state.paid_at or ordered_at) if state.is_paid else None,
        "sold_at": state.sold_at or (ordered_at if state.is_paid else None),
        "paid_amount": state.paid_amount,
        "refunded_amount": state.refunded_amount,
        "disputed": state.disputed,
    }


def _base_net_amount(row: PurchaseRecord, rate: Rate | None) -> Decimal | None:
    """Paid less refunded in the base currency; None while a sold order has no rate."""
    if row.sold_at is None:
        return NOTHING
    return None if rate is None else in_base(row.paid_amount - row.refunded_amount, rate, row.base_currency)
