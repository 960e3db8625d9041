"""What happened, as systems for analytics and advertising count it: the occasions that they have names for. Pure."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import Enum
from hashlib import sha256
from itertools import groupby
from typing import Final, NamedTuple

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import LedgerEntry, PurchaseChanged

from kit.rules import event_name
from kit.times import moment
from services.destinations.kind import Message


class Occasion(Enum):
    """An occasion."""

    PAGE_VIEW = "page_view"
    LEAD = "lead"
    """A visitor left an address."""
    SIGN_UP = "sign_up"
    """A visitor registered."""
    CHECKOUT = "checkout"
    """A visitor began to check out."""
    SALE = "sale"
    """An order was paid for the first time."""
    REFUND = "refund"
    """Money of a paid order went back, or its payment was reversed."""


class Happened(NamedTuple):
    """An occasion that a message reports."""

    occasion: Occasion
    key: str
    """Identifies it among all occasions; the same in every message that reports it."""
    at: datetime
    order_by: str = ""
    """The order that it belongs to; empty for none."""
    entry: LedgerEntry | None = None
    """The ledger entry of a refund; its amount is what the destination has not heard of yet, which may be a part."""


_TYPES: Final = {
    Occasion.PAGE_VIEW: "page_view pageview",
    Occasion.LEAD: """
        lead lead_capture lead_magnet_download generate_lead newsletter newsletter_signup newsletter_subscribe email_signup email_subscribe
    """,
    Occasion.CHECKOUT: "begin_checkout checkout checkout_start checkout_started initiate_checkout",
}
_OCCASION_OF: Final[Mapping[str, Occasion]] = {name: occasion for occasion, names in _TYPES.items() for name in names.split()}
_LONGEST_KEY: Final = 255
_SIGN_UPS: Final = frozenset({"signup", "sign_up", "registration", "register"})
_RETURNS: Final = frozenset({change_pb2.ENTRY_KIND_REFUND, change_pb2.ENTRY_KIND_PARTIAL_REFUND, change_pb2.ENTRY_KIND_CHARGEBACK})
_REVERSALS: Final = frozenset(
    {
        change_pb2.ENTRY_REASON_CANCELLED,
        change_pb2.ENTRY_REASON_FAILED,
        change_pb2.ENTRY_REASON_BOUNCED,
        change_pb2.ENTRY_REASON_TRASHED,
        change_pb2.ENTRY_REASON_DELETED,
        change_pb2.ENTRY_REASON_EDITED,
    }
)
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


def happened(message: Message) -> Iterator[Happened]:
    """Yields the occasions that a message reports, without those of crawlers, staff and tests, and without history."""
    match message:
        case EventStored():
            yield from _of_event(message)
        case PurchaseChanged():
            yield from _of_order(message)
        case JourneyChanged():
            yield from _of_conversion(message)
        case _:
            return


def _of_event(stored: EventStored) -> Iterator[Happened]:
    event = stored.event
    occasion = _OCCASION_OF.get(event_name(event.event_type))
    if occasion is not None and not (stored.enrichment.is_bot or event.historical):
        yield Happened(occasion, _key("event", stored.key or event.id), moment(event.timestamp))


def _of_conversion(changed: JourneyChanged) -> Iterator[Happened]:
    conversion = changed.conversion
    if conversion.conversion_type in _SIGN_UPS:
        yield Happened(Occasion.SIGN_UP, _key("conversion", conversion.id), moment(conversion.timestamp))


def _of_order(order: PurchaseChanged) -> Iterator[Happened]:
    if order.excluded or not order.HasField("sold_at"):
        return
    if not order.historical:
        yield Happened(Occasion.SALE, _key("sale", order.purchase_id), moment(order.sold_at), order.purchase_id)
    for first, entry in _returns(order.entries):
        if not first.historical:
            key = _key(change_pb2.EntryKind.Name(first.kind), order.purchase_id, first.reference)
            yield Happened(Occasion.REFUND, key, moment(entry.timestamp), order.purchase_id, entry)


def _returns(entries: Sequence[LedgerEntry]) -> Sequence[tuple[LedgerEntry, LedgerEntry]]:
    """The money that went back, each by the entry that booked it at first, and by the one that says most about it.

    A run of the ledger books the difference to what is booked already. Where a payment provider reports a refund before the shop, which
    knows its reference, its time and what was returned, a later run takes that back, as restated, and books it once more, perhaps in
    parts. So a run returns only as much as it raises the total above the most that it ever was: nothing that is sent can be taken back.
    """
    found: list[tuple[LedgerEntry, LedgerEntry]] = []
    dates: set[datetime] = set()
    total = most = _NOTHING
    for run in _runs(entries):
        moved = [entry for entry in run if _is_return(entry) or _is_about_returns(entry, dates)]
        dates |= {moment(entry.timestamp) for entry in moved}
        total = max(_NOTHING, total - sum(Decimal(entry.amount) for entry in moved))
        rest, most = total - most, max(most, total)
        for entry in _not_repeated(moved, found):
            if rest > _NOTHING and (part := min(rest, -Decimal(entry.amount))) > _NOTHING:
                found.append((entry, _part(entry, part)))
                rest -= part
    return found


def _runs(entries: Iterable[LedgerEntry]) -> Iterator[Sequence[LedgerEntry]]:
    """The entries of each run of the ledger, which books all of its entries at one time. A message that states none is old."""
    for _, run in groupby(enumerate(entries), lambda each: each[1].booked_at.ToMicroseconds() or -each[0]):
        yield [entry for _, entry in run]


def _not_repeated(moved: Iterable[LedgerEntry], found: list[tuple[LedgerEntry, LedgerEntry]]) -> Sequence[LedgerEntry]:
    """Finds the entries of a run that repeat a return which the run takes back, so that they say more about it; returns the others."""
    others = list(moved)
    for restated in filter(_restates, list(others)):
        amount, at = f"-{restated.amount}", restated.timestamp
        before = next((number for number, (_, entry) in enumerate(found) if (entry.amount, entry.timestamp) == (amount, at)), None)
        again = next((entry for entry in others if entry.amount == amount and entry.timestamp != at), None)
        if before is not None and again is not None:
            found[before] = found[before][0], again
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


def _key(*parts: str) -> str:
    """A key of what identifies an occasion; its digest where that is longer than a key may be."""
    key = ":".join(parts)
    return key if len(key) <= _LONGEST_KEY else f"{parts[0]}:{sha256(key.encode()).hexdigest()}"
