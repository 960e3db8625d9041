"""What is sent to Meta about an occasion. Pure.

Reference: https://developers.facebook.com/docs/marketing-api/conversions-api/parameters
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged, PurchasedLine

from services.destinations.kind import Message, Outgoing
from services.destinations.meta.options import EventName, MetaOptions
from services.destinations.meta.user_data import Customer, hashed, of_billing
from services.destinations.occasions import Happened, Occasion
from services.destinations.visitors import Visitor, visitor_of

NAMES: Final[Mapping[Occasion, EventName]] = {
    Occasion.PAGE_VIEW: "PageView",
    Occasion.LEAD: "Lead",
    Occasion.SIGN_UP: "CompleteRegistration",
    Occasion.CHECKOUT: "InitiateCheckout",
    Occasion.SALE: "Purchase",
}
"""What Meta calls an occasion. It has no word for a refund."""

_TAG: Final = re.compile(r"fb\.[0-2]\.\d{10,16}\..{1,500}")
_PAGE: Final = re.compile(r"https?://\S+")
_MATCHING: Final = frozenset({"em", "ph", "fbp", "fbc"})
"""By any of these Meta may find the person; the others only support them."""
_UNIT_PRICE: Final = Decimal("0.000001")


def event_id(message: Message) -> str:
    """Returns the id under which the site's pixel reports the same event, if it does: Meta counts the two once."""
    match message:
        case PurchaseChanged():
            return f"order-{message.order_id}"
        case EventStored():
            return message.event.id
        case JourneyChanged():
            return message.conversion.id
        case _:
            return ""


def event(outgoing: Outgoing, occasion: Happened, options: MetaOptions, now: datetime) -> dict[str, Any] | None:
    """Returns an element of `data`; None if there is nothing by which Meta could find the person, or the browser refuses to be shared.

    Args:
        outgoing: the delivery.
        occasion: what it is about.
        options: of the destination.
        now: what is reported with a later time is sent with this one.
    """
    visitor = visitor_of(outgoing)
    user_data = hashed(_customer(outgoing)) | _browser(visitor)
    if visitor.refuses_sharing or not _MATCHING & user_data.keys():
        return None
    return {
        "event_name": NAMES[occasion.occasion],
        "event_time": int(min(occasion.at, now).timestamp()),
        "event_id": event_id(outgoing.message),
        **_source(visitor),
        "user_data": user_data,
        **({"custom_data": custom} if (custom := _custom_data(outgoing.message)) else {}),
        **_processing(options),
    }


def _customer(outgoing: Outgoing) -> Customer:
    """The person: what came with the order or event, else what is known of it."""
    sealed, message, profile = outgoing.sealed, outgoing.message, outgoing.profile
    if isinstance(message, PurchaseChanged):
        return of_billing(orjson.loads(sealed.get("billing") or b"{}"), sealed.get("email", ""), message.country)
    email = sealed.get("email", "")
    if profile is None:
        return Customer(email=email)
    return Customer(email=email or profile.email, first_name=profile.first_name, last_name=profile.last_name)


def _browser(visitor: Visitor) -> dict[str, Any]:
    tags = {name: tag for name in ("fbp", "fbc") if _TAG.fullmatch(tag := getattr(visitor, name))}
    return tags | ({"client_user_agent": visitor.user_agent} if visitor.user_agent else {})


def _source(visitor: Visitor) -> Mapping[str, str]:
    """Where it happened: on the site, for which Meta asks for page and browser; else elsewhere, as a renewal or an order by telephone."""
    if visitor.user_agent and _PAGE.fullmatch(visitor.page_url):
        return {"action_source": "website", "event_source_url": visitor.page_url}
    return {"action_source": "other"}


def _custom_data(message: Message) -> Mapping[str, Any]:
    match message:
        case PurchaseChanged() as order:
            lines = [line for line in order.lines if not line.amount.startswith("-")]
            return {
                "value": float(order.amount),
                "currency": order.currency,
                "order_id": order.order_id,
                "content_type": "product",
                "content_ids": [line.product_id for line in lines],
                "contents": [_content(line) for line in lines],
                "num_items": sum(line.quantity or 1 for line in lines),
            }
        case EventStored(event=happened, enrichment=enrichment):
            fields = happened.metadata.fields
            value = fields["value"].number_value if "value" in fields else 0.0
            return {"value": value, "currency": enrichment.currency} if value > 0 and enrichment.currency else {}
        case _:
            return {}


def _content(line: PurchasedLine) -> Mapping[str, Any]:
    quantity = line.quantity or 1
    return {
        "id": line.product_id,
        "quantity": quantity,
        "item_price": float((Decimal(line.amount) / quantity).quantize(_UNIT_PRICE)),
    }


def _processing(options: MetaOptions) -> Mapping[str, Any]:
    words = options.data_processing_options
    if not words:
        return {} if words is None else {"data_processing_options": []}
    return {
        "data_processing_options": list(words),
        "data_processing_options_country": options.data_processing_options_country,
        "data_processing_options_state": options.data_processing_options_state,
    }
