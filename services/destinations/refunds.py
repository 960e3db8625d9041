"""The money of an order that went back, as it is sent: in all as much as went back, whoever reports it first. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from datetime import datetime
from decimal import Decimal
from itertools import groupby
from typing import Final, NamedTuple, TypeAlias

from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import LedgerEntry, PurchaseChanged

from kit.times import moment

_RETURNS: Final = frozenset({change_pb2.ENTRY_KIND_REFUND, change_pb2.ENTRY_KIND_PARTIAL_REFUND, change_pb2.ENTRY_KIND_CHARGEBACK})
_CANCELLATIONS: Final = frozenset(
    {
        change_pb2.ENTRY_REASON_CANCELLED,
        change_pb2.ENTRY_REASON_FAILED,
        change_pb2.ENTRY_REASON_BOUNCED,
        change_pb2.ENTRY_REASON_TRASHED,
        change_pb2.ENTRY_REASON_DELETED,
    }
)
"""Why a correction ends a sale."""
_REVERSALS: Final = _CANCELLATIONS | {change_pb2.ENTRY_REASON_EDITED}
"""Why a correction takes money from a sale, rather than restating how it was booked."""
_TAKEN_BACK: Final = frozenset(
    {
        change_pb2.ENTRY_REASON_RESTORED,
        change_pb2.ENTRY_REASON_REFUND_DELETED,
        change_pb2.ENTRY_REASON_REINSTATED,
        change_pb2.ENTRY_REASON_REFUND_FAILED,
    }
)
"""Why a correction undoes that money went back."""
_NOTHING: Final = Decimal(0)
_Numbered: TypeAlias = tuple[int, LedgerEntry]
"""An entry with its index among those of the order."""


class Refund(NamedTuple):
    """Money of an order that went back, or a part of it."""

    number: int
    """The index of the ledger entry that booked it at first: identifies it among the refunds of its order, in every message."""
    is_historical: bool
    """Whether that entry is history."""
    is_cancellation: bool
    """Whether that entry ends the sale: the order was cancelled, trashed or deleted, or its payment failed or bounced."""
    entry: LedgerEntry
    """The entry that says most about it. Its amount is what has not been sent yet, which may be a part of what it books."""


def refunds(order: PurchaseChanged) -> Sequence[Refund]:
    """Returns what went back of an order: refunds and chargebacks, and payments that were reversed.

    A run of the ledger books the difference to what is booked already. Where a payment provider reports a refund before the shop, which
    knows its reference, its time and what was returned, a later run takes that back, as restated, and books it once more, perhaps in
    parts. So a run returns only as much as it raises the total above the most that it ever was: nothing that is sent can be taken back.
    """
    found: list[Refund] = []
    dates: set[datetime] = set()
    total = most = _NOTHING
    for run in _runs(order.entries):
        moved = [(number, entry) for number, entry in run if _is_return(entry) or _is_about_returns(entry, dates)]
        dates |= {moment(entry.timestamp) for _, entry in moved}
        total = max(_NOTHING, total - sum(Decimal(entry.amount) for _, entry in moved))
        rest, most = total - most, max(most, total)
        for number, entry in _not_repeated(moved, found):
            if rest > _NOTHING and (part := min(rest, -Decimal(entry.amount))) > _NOTHING:
                found.append(Refund(number, entry.historical, entry.reason in _CANCELLATIONS, _part(entry, part)))
                rest -= part
    return found


def _runs(entries: Iterable[LedgerEntry]) -> Iterator[Sequence[_Numbered]]:
    """The entries of each run of the ledger, which books all of its entries at one time. A message that states none is old."""
    for _, run in groupby(enumerate(entries), lambda each: each[1].booked_at.ToMicroseconds() or -each[0]):
        yield list(run)


def _not_repeated(moved: Sequence[_Numbered], found: list[Refund]) -> Sequence[_Numbered]:
    """Finds the entries of a run that repeat a refund which the run takes back, so that they say more about it; returns the others."""
    others = list(moved)
    for _, restated in filter(lambda each: _restates(each[1]), moved):
        amount, at = f"-{restated.amount}", restated.timestamp
        before = next((place for place, each in enumerate(found) if (each.entry.amount, each.entry.timestamp) == (amount, at)), None)
        again = next((each for each in others if each[1].amount == amount and each[1].timestamp != at), None)
        if before is not None and again is not None:
            found[before] = found[before]._replace(entry=again[1])
            others.remove(again)
    return others


def _part(entry: LedgerEntry, amount: Decimal) -> LedgerEntry:
    """The entry, if so much is all of it; else a part of it, of which nobody knows what was returned."""
    if amount == -Decimal(entry.amount):
        return entry
    part = LedgerEntry()
    part.CopyFrom(entry)
    part.amount = f"-{amount:f}"
    part.ClearField("base_amount")
    part.ClearField("lines")
    return part


def _is_about_returns(entry: LedgerEntry, dates: Container[datetime]) -> bool:
    """Whether a correction is about money that went back: by its reason, or by its date."""
    if entry.kind != change_pb2.ENTRY_KIND_CORRECTION:
        return False
    return entry.reason in _TAKEN_BACK or (_restates(entry) and moment(entry.timestamp) in dates)


def _restates(entry: LedgerEntry) -> bool:
    return entry.kind == change_pb2.ENTRY_KIND_CORRECTION and entry.reason == change_pb2.ENTRY_REASON_RESTATED


def _is_return(entry: LedgerEntry) -> bool:
    returns = entry.kind in _RETURNS or (entry.kind == change_pb2.ENTRY_KIND_CORRECTION and entry.reason in _REVERSALS)
    return returns and entry.amount.startswith("-")
