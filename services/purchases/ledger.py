"""What is booked when an order's state changes: the difference, and never anything else. Pure."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

from services.purchases.money import NOTHING
from services.purchases.rules import Claim


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


@dataclass(frozen=True, slots=True)
class Booking:
    """An entry to be."""

    kind: EntryKind
    reference: str
    amount: Decimal
    """Signed: what goes out is negative."""

    @property
    def is_sale(self) -> bool:
        """It is what the buyer paid."""
        return self.kind is EntryKind.SALE


def bookings(before: Balance, after: Balance, claim: Claim, booked: Collection[tuple[str, str]]) -> list[Booking]:
    """The entries that bring the ledger from one balance to the next.

    Args:
        before: what the ledger says already.
        after: what it has to say.
        claim: the notice that is the reason.
        booked: kind and reference of the entries so far. An entry has its notice's reference if that is free for its
            kind; else its own number in the order, such as `#3`, which no client's reference can be.
    """
    made: list[Booking] = []
    taken = set(booked)
    for kind, amount in _differences(before, after):
        own = "" if kind is EntryKind.SALE else claim.reference
        reference = f"#{len(taken) + 1}" if (kind.value, own) in taken else own
        taken.add((kind.value, reference))
        made.append(Booking(kind, reference, amount))
    return made


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
