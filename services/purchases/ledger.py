"""The entries by which a ledger follows its order: always the difference to what is booked already. Pure.

Where an order has dated reports, the difference is taken date by date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from services.purchases.claims import Claim, ReportKind
from services.purchases.money import NOTHING, Rate, entries_in_base
from services.purchases.statuses import Reason

_TAKEN_BACK: Final = {ReportKind.CHARGEBACK: Reason.REINSTATED, ReportKind.PROVIDER_REFUND: Reason.REFUND_FAILED}
"""Why money is no longer returned, by what returned it."""


class EntryKind(StrEnum):
    """The kind of an entry, as named in the contract."""

    SALE = "sale"
    REFUND = "refund"
    PARTIAL_REFUND = "partial_refund"
    CHARGEBACK = "chargeback"
    CORRECTION = "correction"


class Balance(NamedTuple):
    """The money of an order."""

    is_paid: bool
    paid: Decimal
    refunded: Decimal
    is_charged_back: bool
    """The last refund was a chargeback by the buyer's bank."""


class LedgerEntry(NamedTuple):
    """An entry of a ledger."""

    at: datetime
    kind: EntryKind
    amount: Decimal
    """Signed: negative for money that goes out."""
    reference: str = ""
    reason: Reason | None = None
    base_amount: Decimal | None = None
    """The amount in the base currency; None without a rate."""


def entries_between(before: Balance, after: Balance, claim: Claim, sold_at: datetime, now: datetime) -> list[LedgerEntry]:
    """The entries that bring a ledger from one balance to the next.

    Args:
        before: the balance of the ledger.
        after: the balance that it has to have.
        claim: the claim that changed it.
        sold_at: the date of a sale.
        now: the date of an entry whose claim has none.
    """
    return [
        LedgerEntry(sold_at, kind, amount)
        if kind is EntryKind.SALE
        else LedgerEntry(claim.at or now, kind, amount, claim.reference, _deletion(claim, amount))
        for kind, amount in _differences(before, after)
    ]


def with_free_references(entries: Iterable[LedgerEntry], booked: Collection[tuple[str, str]]) -> Iterator[LedgerEntry]:
    """New entries with references that no booked entry of their kind has.

    Args:
        entries: the new entries.
        booked: kind and reference of each booked entry. An entry keeps its report's reference if that is free for its
            kind; else it gets its own number in the order, such as `#3`, which can't be a client's reference.
    """
    taken = set(booked)
    for entry in entries:
        reference = f"#{len(taken) + 1}" if (entry.kind.value, entry.reference) in taken else entry.reference
        taken.add((entry.kind.value, reference))
        yield entry._replace(reference=reference)


def missing_entries(due: Sequence[LedgerEntry], booked: Sequence[LedgerEntry], rate: Rate | None, base: str) -> list[LedgerEntry]:
    """The entries that a ledger still needs, so that it adds up to the due amount on each date.

    An older report that arrives late gives more detail about what was booked: a correction of the same date restates it.

    Args:
        due: all entries that follow from the reports, by date.
        booked: the entries of the ledger, each in the base currency as soon as there is a rate.
        rate: the order's rate; None while there is none.
        base: the base currency.
    """
    bases = entries_in_base([entry.amount for entry in due], rate, base) if rate else [None] * len(due)
    due = [entry._replace(base_amount=amount) for entry, amount in zip(due, bases, strict=True)]
    missing, obsolete = list(due), list(booked)
    for entry in booked:
        match = next((candidate for candidate in missing if _matches(candidate, entry)), None)
        if match is not None:
            missing.remove(match)
            obsolete.remove(entry)
    entries: list[LedgerEntry] = []
    for at in sorted({entry.at for entry in (*due, *booked)}):
        new, replaced = _of(at, missing), _of(at, obsolete)
        if replaced:
            reason = next((entry.reason for entry in new if entry.reason), Reason.RESTATED)
            new = [LedgerEntry(at, EntryKind.CORRECTION, _amount(new) - _amount(replaced), reason=reason)]
        if rate:
            rounded = _base_amount(_of(at, due)) - _base_amount(_of(at, booked)) - _base_amount(new[:-1])
            last = new[-1:] or [LedgerEntry(at, EntryKind.CORRECTION, NOTHING, reason=Reason.RESTATED)]
            new = [*new[:-1], last[0]._replace(base_amount=rounded)]
        entries += [entry for entry in new if entry.amount or entry.base_amount or entry.kind is EntryKind.SALE]
    return entries


def _matches(due: LedgerEntry, booked: LedgerEntry) -> bool:
    """True when a booked entry is the due one; a booked reference that is a number matches any."""
    kinds = {due.kind, booked.kind}
    same_kind = len(kinds) == 1 or not kinds & {EntryKind.SALE, EntryKind.CORRECTION}
    same_reference = booked.reference == due.reference or booked.reference.startswith("#")
    return same_kind and same_reference and (due.at, due.amount) == (booked.at, booked.amount)


def _of(at: datetime, entries: Iterable[LedgerEntry]) -> list[LedgerEntry]:
    return [entry for entry in entries if entry.at == at]


def _amount(entries: Iterable[LedgerEntry]) -> Decimal:
    return sum((entry.amount for entry in entries), NOTHING)


def _base_amount(entries: Iterable[LedgerEntry]) -> Decimal:
    return sum((entry.base_amount or NOTHING for entry in entries), NOTHING)


def _deletion(claim: Claim, amount: Decimal) -> Reason | None:
    if not claim.deleted or amount <= NOTHING:
        return None
    return _TAKEN_BACK.get(claim.kind, Reason.REFUND_DELETED)


def _differences(before: Balance, after: Balance) -> Iterator[tuple[EntryKind, Decimal]]:
    paid, refunded = after.paid - before.paid, after.refunded - before.refunded
    if after.is_paid and not before.is_paid:
        yield EntryKind.SALE, paid
    elif paid:
        yield EntryKind.CORRECTION, paid
    if refunded > NOTHING:
        yield _outgoing(after, refunded), -refunded
    elif refunded:
        yield EntryKind.CORRECTION, -refunded


def _outgoing(after: Balance, refunded: Decimal) -> EntryKind:
    if after.is_charged_back:
        return EntryKind.CHARGEBACK
    return EntryKind.REFUND if refunded == after.paid else EntryKind.PARTIAL_REFUND
