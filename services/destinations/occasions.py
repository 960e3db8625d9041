"""What happened, as systems for analytics and advertising count it: the occasions that they have names for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from enum import Enum
from hashlib import sha256
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
    """The ledger entry of a refund."""


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
        key = _key(change_pb2.EntryKind.Name(first.kind), order.purchase_id, first.reference)
        yield Happened(Occasion.REFUND, key, moment(entry.timestamp), order.purchase_id, entry)


def _returns(entries: Sequence[LedgerEntry]) -> Sequence[tuple[LedgerEntry, LedgerEntry]]:
    """The entries by which money went back, each with the one by which it was booked at first, which comes first in the pair.

    A payment provider may report a refund before the shop, which knows its reference, its time and what was returned: the ledger then
    takes the first entry back, as restated, and books the same amount once more. It is one refund.
    """
    found = [(entry, entry) for entry in entries if _is_return(entry)]
    for restated in filter(_restates, entries):
        amount, at = f"-{restated.amount}", restated.timestamp
        same = [number for number, (_, entry) in enumerate(found) if entry.amount == amount]
        before = next((number for number in same if found[number][1].timestamp == at), len(found))
        again = (number for number in same if number > before and found[number][0] is found[number][1])
        after = next((number for number in again if found[number][1].timestamp != at), None)
        if after is not None:
            found[after] = found[before][0], found[after][1]
            del found[before]
    return found


def _restates(entry: LedgerEntry) -> bool:
    return entry.kind == change_pb2.ENTRY_KIND_CORRECTION and entry.reason == change_pb2.ENTRY_REASON_RESTATED


def _is_return(entry: LedgerEntry) -> bool:
    returns = entry.kind in _RETURNS or (entry.kind == change_pb2.ENTRY_KIND_CORRECTION and entry.reason in _REVERSALS)
    return returns and entry.amount.startswith("-") and not entry.historical


def _key(*parts: str) -> str:
    """A key of what identifies an occasion; its digest where that is longer than a key may be."""
    key = ":".join(parts)
    return key if len(key) <= _LONGEST_KEY else f"{parts[0]}:{sha256(key.encode()).hexdigest()}"
