"""What is booked when an order's state changes: the difference, and never anything else. Pure.

Where an order has reports, the difference is that of what the ledger says of each date.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from services.purchases.money import NOTHING, Rate, entries_in_base
from services.purchases.rules import Claim, Reason


class EntryKind(StrEnum):
    """What was booked, as the contract names it."""

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
    """What went out last was taken by the buyer's bank."""


class Step(NamedTuple):
    """One entry that a ledger has to have."""

    at: datetime
    kind: EntryKind
    amount: Decimal
    """Signed: what goes out is negative."""
    reference: str = ""
    reason: Reason | None = None
    base: Decimal | None = None
    """The same in the base currency; None without a rate."""


def bookings(before: Balance, after: Balance, claim: Claim, sold_at: datetime, now: datetime) -> list[Step]:
    """The entries that bring the ledger from one balance to the next.

    Args:
        before: what the ledger says already.
        after: what it has to say.
        claim: the notice that is the reason.
        sold_at: date of a sale.
        now: date of what has none.
    """
    return [
        Step(sold_at, kind, amount)
        if kind is EntryKind.SALE
        else Step(claim.at or now, kind, amount, claim.reference, Reason.REFUND_DELETED if claim.deleted and amount > NOTHING else None)
        for kind, amount in _differences(before, after)
    ]


def numbered(steps: Iterable[Step], booked: Collection[tuple[str, str]]) -> Iterator[Step]:
    """Entries with references that are free.

    Args:
        steps: the entries to be.
        booked: kind and reference of the entries so far. An entry has its notice's reference if that is free for its
            kind; else its own number in the order, such as `#3`, which no client's reference can be.
    """
    taken = set(booked)
    for step in steps:
        reference = f"#{len(taken) + 1}" if (step.kind.value, step.reference) in taken else step.reference
        taken.add((step.kind.value, reference))
        yield step._replace(reference=reference)


def restated(steps: Sequence[Step], booked: Sequence[Step], rate: Rate | None, base: str) -> list[Step]:
    """The entries that make a ledger say, of each date, what it has to say.

    An older report that comes late says in more detail what was booked: then a correction of the same date puts that right.

    Args:
        steps: all that the ledger has to say, by date.
        booked: what it says, each entry in the base currency as soon as there is a rate.
        rate: of the order; None while there is none.
        base: the base currency.
    """
    bases = entries_in_base([step.amount for step in steps], rate, base) if rate else [None] * len(steps)
    due = [step._replace(base=amount) for step, amount in zip(steps, bases, strict=True)]
    missing, wrong = list(due), list(booked)
    for entry in booked:
        same = next((step for step in missing if _same(step, entry)), None)
        if same is not None:
            missing.remove(same)
            wrong.remove(entry)
    made: list[Step] = []
    for at in sorted({entry.at for entry in (*due, *booked)}):
        new, off = _of(at, missing), _of(at, wrong)
        if off:
            reason = next((step.reason for step in new if step.reason), Reason.RESTATED)
            new = [Step(at, EntryKind.CORRECTION, _amount(new) - _amount(off), reason=reason)]
        if rate:
            rounded = _base(_of(at, due)) - _base(_of(at, booked)) - _base(new[:-1])
            last = new[-1:] or [Step(at, EntryKind.CORRECTION, NOTHING, reason=Reason.RESTATED)]
            new = [*new[:-1], last[0]._replace(base=rounded)]
        made += [step for step in new if step.amount or step.base or step.kind is EntryKind.SALE]
    return made


def _same(step: Step, entry: Step) -> bool:
    """An entry says what a step asks for; one without a reference of its own has a number."""
    kinds = {step.kind, entry.kind}
    alike = len(kinds) == 1 or not kinds & {EntryKind.SALE, EntryKind.CORRECTION}
    named = entry.reference == step.reference or entry.reference.startswith("#")
    return alike and named and (step.at, step.amount) == (entry.at, entry.amount)


def _of(at: datetime, steps: Iterable[Step]) -> list[Step]:
    return [step for step in steps if step.at == at]


def _amount(steps: Iterable[Step]) -> Decimal:
    return sum((step.amount for step in steps), NOTHING)


def _base(steps: Iterable[Step]) -> Decimal:
    return sum((step.base or NOTHING for step in steps), NOTHING)


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
