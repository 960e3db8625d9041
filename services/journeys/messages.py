"""Maps messages to rows and back: events, orders, what clients track, and the changes that are published."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pmp.ingestion.v1 import event_pb2
from pmp.journeys.v1 import change_pb2
from pmp.journeys.v1 import journeys_pb2 as pb
from pmp.purchases.v1 import change_pb2 as purchases_pb

from kit.idempotency import id_of, is_browsers
from kit.people.identifiers import identifier_of
from kit.people.suppression import Suppressed, screen
from kit.referrers import campaign_name, source_name
from services.journeys import rules

TOPIC: Final = "journeys"
"""Its messages are the touchpoints and conversions that clients track."""

EVENT: Final = "event"
ORDER: Final = "purchase"
CLIENT: Final = "client"
_NOBODY: Final = "event:"
_LONGEST: Final = 255
_CARRIED_BY_TOUCHPOINTS: Final = ("user_id", "source", "medium", "campaign")
_CARRIED_BY_CONVERSIONS: Final = ("user_id", "email", "source", "utm_parameters")
ADDED_TO_TOUCHPOINTS: Final = ("user_id", "source", "medium", "campaign")
ADDED_TO_CONVERSIONS: Final = ("user_id", "email_hash", "source", "utm_parameters")
"""Columns that a repeated call fills in."""
_CHANNELS: Final = {value: name.removeprefix("CHANNEL_").lower() for name, value in event_pb2.Channel.items() if value}
_OUTSIDE: Final = frozenset({"direct", "campaign", "search", "email", "social", "referral"})

Row = dict[str, Any]


def event_row(stored: event_pb2.EventStored, now: datetime) -> Row:
    """Returns the touchpoint of an event. An e-mail address identifies its person only if the event has no session."""
    event, found = stored.event, stored.enrichment
    key = stored.key or event.id
    trusted = not event.session_id and stored.scope != "track" and not is_browsers(key)
    subject = identifier_of(
        user_id=event.user_id, email_hash=stored.email_hash if trusted else b"", session_id=event.session_id, visitor=found.visitor
    )
    return {
        "id": key,
        "user_id": event.user_id or None,
        "session_id": event.session_id or None,
        "stage": rules.stage_of(event.event_type, event.page_url),
        "touchpoint": event.event_type,
        "timestamp": event.timestamp.ToDatetime(UTC),
        "source": _bounded(found.traffic_source),
        "medium": _bounded(found.traffic_medium),
        "campaign": _bounded(found.campaign),
        "page_url": event.page_url or None,
        "action_taken": event.event_type,
        "value_generated": Decimal(0),
        "time_spent": 0,
        "metadata": None,
        "created_at": now,
        "subject": subject or _NOBODY + key,
        "channel": _CHANNELS.get(found.channel, ""),
        "origin": EVENT,
        "content_hash": None,
    }


def _bounded(text: str) -> str | None:
    """Truncates a source, medium or campaign to its column: one from an address can be as long as the address. None for none."""
    return text[:_LONGEST] or None


def client_row(touchpoint: pb.Touchpoint, key: str, currency: str, content_hash: bytes, now: datetime) -> Row:
    """Returns the row of a touchpoint that a client tracks. Its value is in the shop's base currency."""
    return {
        "id": key,
        "user_id": touchpoint.user_id or None,
        "session_id": touchpoint.session_id or None,
        "stage": touchpoint.stage or rules.stage_of(touchpoint.action, touchpoint.page_url),
        "touchpoint": touchpoint.touchpoint,
        "timestamp": touchpoint.timestamp.ToDatetime(UTC),
        "source": _bounded(source_name(touchpoint.source)),
        "medium": _bounded(campaign_name(touchpoint.medium).lower()),
        "campaign": _bounded(campaign_name(touchpoint.campaign)),
        "page_url": touchpoint.page_url or None,
        "action_taken": touchpoint.action,
        "value_generated": rules.amount(touchpoint.value, currency) if touchpoint.HasField("value") else Decimal(0),
        "time_spent": touchpoint.time_spent,
        "metadata": MessageToDict(touchpoint.metadata) if touchpoint.HasField("metadata") else None,
        "created_at": now,
        "subject": identifier_of(user_id=touchpoint.user_id, session_id=touchpoint.session_id),
        "channel": _CHANNELS[event_pb2.CHANNEL_CAMPAIGN] if touchpoint.source or touchpoint.medium or touchpoint.campaign else "",
        "origin": CLIENT,
        "content_hash": content_hash,
    }


def touchpoint_content(touchpoint: pb.Touchpoint) -> bytes:
    """Returns what identifies a touchpoint's content: neither who is logged in by then nor the campaign that cookies hold."""
    return _content(touchpoint, _CARRIED_BY_TOUCHPOINTS)


def conversion_content(conversion: pb.Conversion) -> bytes:
    """Returns what identifies a conversion's content."""
    return _content(conversion, _CARRIED_BY_CONVERSIONS)


def _content(message: Message, carried: Iterable[str]) -> bytes:
    content = type(message)()
    content.CopyFrom(message)
    for field in carried:
        content.ClearField(field)
    return content.SerializeToString(deterministic=True)


def filled_in(known: Mapping[str, Any], repeated: Row, columns: Iterable[str]) -> Row:
    """Returns what a repeated call adds to a row: columns that are empty in it, and with a user the identifier.

    Nothing is added to a row that was anonymised.
    """
    if known["session_id"] != repeated["session_id"]:
        return {}
    added = {column: repeated[column] for column in columns if not known[column] and repeated[column]}
    return {**added, "subject": repeated["subject"]} if "user_id" in added else added


def identifiers_of(row: Row) -> tuple[str, ...]:
    """Returns the identifier of a row and that of its session."""
    return row["subject"], identifier_of(session_id=row["session_id"] or "")


def unsuppressed(row: Row, suppressed: Suppressed) -> Row | None:
    """Returns a row as it may be stored: None if it is an erased person's, and without the session of one who used the same browser."""
    at = row["timestamp"] if "timestamp" in row else row["ordered_at"]
    screened = screen(identifiers_of(row), at, suppressed)
    if screened.is_dropped:
        return None
    return {**row, "session_id": None} if screened.stripped else row


def session_facts(row: Row) -> rules.SessionFacts | None:
    """Returns what a touchpoint states about its session; None if it has none, such as an event of the shop's server."""
    if not row["session_id"] and (row["user_id"] or not row["subject"].startswith("visitor:")):
        return None
    session = identifier_of(session_id=row["session_id"]) if row["session_id"] else row["subject"]
    seen = rules.SessionFacts(session, row["subject"], row["timestamp"])
    if row["channel"] not in _OUTSIDE:
        return seen
    seen = seen._replace(external_at=row["timestamp"], external_id=row["id"])
    if row["channel"] == "direct":
        return seen
    return seen._replace(source=row["source"] or "", medium=row["medium"] or "", campaign=row["campaign"] or "")


def order_row(order: purchases_pb.PurchaseChanged, offset: int, ordinal: int) -> Row:
    """Returns the row of an order."""
    return {
        "purchase_id": order.purchase_id,
        "subject": order.subject or f"purchase:{order.purchase_id}",
        "session_id": order.session_id or None,
        "ordered_at": order.timestamp.ToDatetime(UTC),
        "paid_at": order.paid_at.ToDatetime(UTC) if order.HasField("paid_at") else None,
        "status": purchases_pb.PaymentStatus.Name(order.payment_status).removeprefix("PAYMENT_STATUS_").lower(),
        "net": Decimal(order.base_net_amount) if order.base_net_amount else None,
        "excluded": order.excluded,
        "position": offset,
        "ordinal": ordinal,
    }


def order_touchpoint_id(purchase_id: str) -> str:
    """Returns the id of an order's touchpoint, which no client can use."""
    return f"purchase/{purchase_id}"


def purchase_row(order: purchases_pb.PurchaseChanged, row: Row, now: datetime) -> Row:
    """Returns the touchpoint of a paid order. Its stage is that of a first order; reading the journey decides whether it is the first."""
    utm = order.utm_attribution
    return {
        "id": order_touchpoint_id(order.purchase_id),
        "user_id": order.user_id or None,
        "session_id": row["session_id"],
        "stage": rules.PURCHASE,
        "touchpoint": "order",
        "timestamp": row["paid_at"],
        "source": _bounded(source_name(utm.source)),
        "medium": _bounded(campaign_name(utm.medium).lower()),
        "campaign": _bounded(campaign_name(utm.campaign)),
        "page_url": None,
        "action_taken": "purchase",
        "value_generated": row["net"] or Decimal(0),
        "time_spent": 0,
        "metadata": None,
        "created_at": now,
        "subject": row["subject"],
        "channel": "",
        "origin": ORDER,
        "content_hash": None,
    }


def conversion_row(conversion: pb.Conversion, conversion_id: str, currency: str, hashes: Mapping[str, bytes], now: datetime) -> Row:
    """Returns the row of a conversion.

    Args:
        conversion: as the client tracks it.
        conversion_id: the client's id, or the server's.
        currency: of its value.
        hashes: `email`, empty without one, and `content`.
        now: when it is stored.
    """
    utm = conversion.utm_parameters
    return {
        "id": conversion_id,
        "timestamp": conversion.timestamp.ToDatetime(UTC),
        "subject": identifier_of(user_id=conversion.user_id, email_hash=hashes["email"], session_id=conversion.session_id),
        "user_id": conversion.user_id or None,
        "session_id": conversion.session_id or None,
        "conversion_type": conversion.conversion_type,
        "value": rules.amount(conversion.value, currency) if conversion.HasField("value") else None,
        "currency": currency,
        "email_hash": hashes["email"] or None,
        "source": _bounded(source_name(conversion.source)),
        "page_url": conversion.page_url or None,
        "utm_parameters": {field.name: value for field, value in utm.ListFields()} if conversion.HasField("utm_parameters") else None,
        "metadata": MessageToDict(conversion.metadata) if conversion.HasField("metadata") else None,
        "content_hash": hashes["content"],
        "created_at": now,
    }


def touchpoint_recorded(row: Mapping[str, Any]) -> tuple[str, change_pb2.JourneyChanged]:
    """Returns the change to publish of a client's touchpoint, with its key."""
    recorded = change_pb2.TouchpointRecorded(
        id=id_of(row["id"]),
        key=row["id"],
        timestamp=row["timestamp"],
        subject=row["subject"],
        user_id=row["user_id"] or "",
        session_id=row["session_id"] or "",
        stage=row["stage"],
        action=row["action_taken"],
        touchpoint=row["touchpoint"],
        source=row["source"] or "",
        value=f"{row['value_generated']:f}" if row["value_generated"] else "",
    )
    return f"touchpoint {row['id']}", change_pb2.JourneyChanged(touchpoint=recorded)


def conversion_recorded(row: Mapping[str, Any]) -> tuple[str, change_pb2.JourneyChanged]:
    """Returns the change to publish of a conversion, with its key."""
    recorded = change_pb2.ConversionRecorded(
        id=row["id"],
        timestamp=row["timestamp"],
        subject=row["subject"],
        user_id=row["user_id"] or "",
        session_id=row["session_id"] or "",
        conversion_type=row["conversion_type"],
        value=f"{row['value']:f}" if row["value"] is not None else "",
        currency=row["currency"],
    )
    if row["metadata"] is not None:
        ParseDict(row["metadata"], recorded.metadata)
    return f"conversion {row['id']}", change_pb2.JourneyChanged(conversion=recorded)
