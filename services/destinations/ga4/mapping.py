"""What is sent to Google Analytics about an occasion, by the rules of the Measurement Protocol. Pure.

Reference: https://developers.google.com/analytics/devguides/collection/protocol/ga4/reference
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from hashlib import sha256
from itertools import accumulate
from typing import Any, Final

import orjson
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import LedgerEntry, PurchaseChanged, PurchasedLine, RefundedLine

from services.destinations.ga4.options import EventName, Ga4Options
from services.destinations.kind import Outgoing
from services.destinations.occasions import Happened, Occasion
from services.destinations.visitors import Visitor, visitor_of

NAMES: Final[Mapping[Occasion, EventName]] = {
    Occasion.PAGE_VIEW: "page_view",
    Occasion.LEAD: "generate_lead",
    Occasion.SIGN_UP: "sign_up",
    Occasion.CHECKOUT: "begin_checkout",
    Occasion.SALE: "purchase",
    Occasion.REFUND: "refund",
}
"""What Google Analytics calls an occasion."""

ENGAGEMENT_MS: Final = 1
"""Time of engagement of each event: without one, no event shows in Realtime."""

_CLIENT_ID: Final = re.compile(r"[1-9]\d{0,19}\.[1-9]\d{0,19}")
_SESSION_ID: Final = re.compile(r"[1-9]\d{0,15}")
_VALUE: Final = 100
_LONGER: Final = {"page_location": 1000, "page_referrer": 420, "page_title": 300}
_MOST_ITEMS: Final = 200
_MOST_ITEM_BYTES: Final = 120_000
"""Of the 130 kB that a request may have."""
_UNIT_PRICE: Final = Decimal("0.000001")


def body(outgoing: Outgoing, occasion: Happened, options: Ga4Options, now: datetime) -> dict[str, Any] | None:
    """Returns the body of the request; None if no browser is known that it could be attributed to.

    Args:
        outgoing: the delivery.
        occasion: what it is about.
        options: of the destination.
        now: what is reported with a later time is sent with this one.
    """
    visitor = visitor_of(outgoing)
    ids = _client(visitor, pseudonyms=options.pseudonyms)
    if ids is None:
        return None
    client_id, session_id = ids
    params = {**_params(outgoing, occasion, visitor), "session_id": session_id, "engagement_time_msec": ENGAGEMENT_MS}
    return {
        "client_id": client_id,
        **({"user_id": user} if options.user_ids and (user := _user(outgoing)) else {}),
        "timestamp_micros": int(min(occasion.at, now).timestamp() * 1_000_000),
        "consent": _consent(outgoing, visitor),
        "events": [{"name": NAMES[occasion.occasion], "params": {name: value for name, value in params.items() if value not in ("", [])}}],
    }


def _client(visitor: Visitor, *, pseudonyms: bool) -> tuple[str, str] | None:
    """The ids of client and session: those of Google's tag, or pseudonyms of the mesh's session."""
    if _CLIENT_ID.fullmatch(visitor.ga_client_id):
        session = visitor.ga_session_id
        return visitor.ga_client_id, session if _SESSION_ID.fullmatch(session) else ""
    if not pseudonyms or not visitor.session_id:
        return None
    digest = sha256(visitor.session_id.encode()).digest()
    first, second, session = (int.from_bytes(digest[start : start + 4], "big") + 1 for start in (0, 4, 8))
    return f"{first}.{second}", str(session)


def _user(outgoing: Outgoing) -> str:
    match outgoing.message:
        case EventStored(event=event):
            return event.user_id
        case PurchaseChanged() as order:
            return order.user_id
        case _:
            return ""


def _consent(outgoing: Outgoing, visitor: Visitor) -> Mapping[str, str]:
    """What Google may use it for beside statistics: nothing, unless the person agreed to share data with third parties."""
    choice = outgoing.consent.third_party_sharing
    word = "GRANTED" if choice is not None and choice.granted and not visitor.refuses_sharing else "DENIED"
    return {"ad_user_data": word, "ad_personalization": word}


def _params(outgoing: Outgoing, occasion: Happened, visitor: Visitor) -> dict[str, Any]:
    page: dict[str, Any] = {"page_location": clipped("page_location", visitor.page_url)}
    match outgoing.message:
        case PurchaseChanged() as order if occasion.entry is not None:
            return _refund(order, occasion.entry)
        case PurchaseChanged() as order:
            return page | _purchase(order)
        case EventStored() as stored:
            event = stored.event
            page |= {name: clipped(name, text) for name, text in (("page_title", event.page_title), ("page_referrer", event.referrer))}
            return page | (_value(stored) if occasion.occasion is Occasion.CHECKOUT else {})
        case _:
            return page


def _value(stored: EventStored) -> dict[str, Any]:
    """The value of a cart, if the event has one with a currency."""
    fields, currency = stored.event.metadata.fields, stored.enrichment.currency
    value = fields["value"].number_value if "value" in fields else 0.0
    return {"currency": currency, "value": value} if currency and value > 0 else {}


def _purchase(order: PurchaseChanged) -> dict[str, Any]:
    totals = {"tax": order.tax_total, "shipping": order.shipping_total}
    return {
        "transaction_id": clipped("transaction_id", order.order_id),
        "currency": order.currency,
        "value": float(order.amount),
        **{name: float(total) for name, total in totals.items() if total},
        "coupon": clipped("coupon", ",".join(order.coupon_codes)),
        "items": _items(order),
    }


def _refund(order: PurchaseChanged, entry: LedgerEntry) -> dict[str, Any]:
    """A refund: of everything with the order's items, of a part with those that were returned, as far as the shop has reported them."""
    value = -Decimal(entry.amount)
    is_whole = value == Decimal(order.amount) and entry.kind != change_pb2.ENTRY_KIND_PARTIAL_REFUND
    return {
        "transaction_id": clipped("transaction_id", order.order_id),
        "currency": order.currency,
        "value": float(value),
        "items": _items(order) if is_whole else _returned_items(order, entry.lines),
    }


def _items(order: PurchaseChanged) -> list[dict[str, Any]]:
    """The lines that are goods: a line of its own for a discount or a gift card has a negative amount."""
    return _fitting(_item(line) for line in order.lines if not line.amount.startswith("-"))


def _returned_items(order: PurchaseChanged, returned: Iterable[RefundedLine]) -> list[dict[str, Any]]:
    """What was returned, with its name as ordered. A part of a line's price alone is no item: Google would count it as one."""
    ordered = {line.product_id: line for line in order.lines}
    lines: list[PurchasedLine] = []
    for line in filter(lambda each: each.quantity, returned):
        item = PurchasedLine(product_id=line.product_id)
        if line.product_id in ordered:
            item.CopyFrom(ordered[line.product_id])
        item.quantity, item.amount = line.quantity, line.amount
        lines.append(item)
    return _fitting(map(_item, lines))


def _fitting(each: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """As many items as fit."""
    items = list(each)[:_MOST_ITEMS]
    sizes = accumulate(len(orjson.dumps(item)) for item in items)
    return [item for item, size in zip(items, sizes, strict=True) if size <= _MOST_ITEM_BYTES]


def _item(line: PurchasedLine) -> dict[str, Any]:
    quantity = line.quantity or 1
    texts = {"item_id": line.product_id, "item_name": line.product_name, "item_category": line.product_type}
    return {
        **{name: clipped(name, text) for name, text in texts.items() if text},
        "price": float((Decimal(line.amount) / quantity).quantize(_UNIT_PRICE)),
        "quantity": quantity,
    }


def clipped(name: str, text: str) -> str:
    """Returns the text of a parameter, cut to the length that it may have."""
    return text[: _LONGER.get(name, _VALUE)]
