"""What happened, as systems for analytics and advertising count it: the occasions that they have names for. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from enum import Enum
from hashlib import sha256
from typing import Final, NamedTuple

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import LedgerEntry, PurchaseChanged

from kit.rules import event_name
from kit.times import moment
from services.destinations.kind import Message
from services.destinations.refunds import refunds


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
    """That of `refunds.Refund`; None for other occasions."""


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
    for refund in refunds(order):
        if not refund.is_historical:
            key = _key("refund", order.purchase_id, str(refund.number))
            yield Happened(Occasion.REFUND, key, moment(refund.entry.timestamp), order.purchase_id, refund.entry)


def _key(*parts: str) -> str:
    """A key of what identifies an occasion; its digest where that is longer than a key may be."""
    key = ":".join(parts)
    return key if len(key) <= _LONGEST_KEY else f"{parts[0]}:{sha256(key.encode()).hexdigest()}"
