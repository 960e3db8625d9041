"""Between messages and rows: events, orders and what clients tell; what the topic tells."""

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
from kit.people.persons import subject_of
from kit.people.suppression import Suppressed
from kit.referrers import campaign_name, source_name
from services.journeys import rules

TOPIC: Final = "journeys"
"""What is published: touchpoints and conversions that clients told."""

EVENT: Final = "event"
ORDER: Final = "purchase"
CLIENT: Final = "client"
_NOBODY: Final = "event:"
_LONGEST_NAME: Final = 255
_CARRIED_BY_TOUCHPOINTS: Final = ("user_id", "source", "medium", "campaign")
_CARRIED_BY_CONVERSIONS: Final = ("user_id", "email", "source", "utm_parameters")
ADDED_TO_TOUCHPOINTS: Final = ("user_id", "source", "medium", "campaign")
ADDED_TO_CONVERSIONS: Final = ("user_id", "email_hash", "source", "utm_parameters")
"""Columns that a repetition fills in."""
_CHANNELS: Final = {value: name.removeprefix("CHANNEL_").lower() for name, value in event_pb2.Channel.items() if value}
_OUTSIDE: Final = frozenset({"direct", "campaign", "search", "email", "social", "referral"})

Row = dict[str, Any]


def event_row(stored: event_pb2.EventStored, now: datetime) -> Row:
    """The touchpoint that an event is. An e-mail address names its person only where there is nothing of the visit to go by."""
    event, found = stored.event, stored.enrichment
    key = stored.key or event.id
    trusted = not event.session_id and stored.scope != "track" and not is_browsers(key)
    subject = subject_of(
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


def _bounded(name: str) -> str | None:
    """A name of traffic as its column holds it: what an address says can be as long as the address. None for none."""
    return name[:_LONGEST_NAME] or None


def client_row(told: pb.Touchpoint, key: str, currency: str, content_hash: bytes, now: datetime) -> Row:
    """The touchpoint that a client told. Its value is in the shop's base currency."""
    return {
        "id": key,
        "user_id": told.user_id or None,
        "session_id": told.session_id or None,
        "stage": told.stage or rules.stage_of(told.action, told.page_url),
        "touchpoint": told.touchpoint,
        "timestamp": told.timestamp.ToDatetime(UTC),
        "source": _bounded(source_name(told.source)),
        "medium": _bounded(campaign_name(told.medium).lower()),
        "campaign": _bounded(campaign_name(told.campaign)),
        "page_url": told.page_url or None,
        "action_taken": told.action,
        "value_generated": rules.amount(told.value, currency) if told.HasField("value") else Decimal(0),
        "time_spent": told.time_spent,
        "metadata": MessageToDict(told.metadata) if told.HasField("metadata") else None,
        "created_at": now,
        "subject": subject_of(user_id=told.user_id, session_id=told.session_id),
        "channel": _CHANNELS[event_pb2.CHANNEL_CAMPAIGN] if told.source or told.medium or told.campaign else "",
        "origin": CLIENT,
        "content_hash": content_hash,
    }


def touchpoint_content(told: pb.Touchpoint) -> bytes:
    """What makes it this touchpoint, whoever carries it: not who is logged in by then, nor what the cookies say of the landing."""
    return _content(told, _CARRIED_BY_TOUCHPOINTS)


def conversion_content(told: pb.Conversion) -> bytes:
    """What makes it this conversion, whoever carries it."""
    return _content(told, _CARRIED_BY_CONVERSIONS)


def _content(told: Message, carried: Iterable[str]) -> bytes:
    origin = type(told)()
    origin.CopyFrom(told)
    for name in carried:
        origin.ClearField(name)
    return origin.SerializeToString(deterministic=True)


def filled_in(known: Mapping[str, Any], told: Row, columns: Iterable[str]) -> Row:
    """What a repetition adds to a row: those columns that it has and the row has not, and whose it is when it says who that is.

    Nothing is added to a row that has become nobody's.
    """
    if known["session_id"] != told["session_id"]:
        return {}
    added = {name: told[name] for name in columns if not known[name] and told[name]}
    return {**added, "subject": told["subject"]} if "user_id" in added else added


def names_of(row: Row) -> tuple[str, ...]:
    """The name whose row it is, and that of the visit."""
    return row["subject"], subject_of(session_id=row["session_id"] or "")


def without_suppressed(row: Row, suppressed: Suppressed) -> Row:
    """A row that is not suppressed itself, without its visit if that is: an erased person's, in a browser that two use."""
    at = row["timestamp"] if "timestamp" in row else row["ordered_at"]
    return {**row, "session_id": None} if suppressed.holds(names_of(row)[1], at) else row


def session_facts(row: Row) -> rules.SessionFacts | None:
    """What a touchpoint says of its visit; None when it is part of none: a user's without a session, such as a server's own event."""
    if not row["session_id"] and (row["user_id"] or not row["subject"].startswith("visitor:")):
        return None
    session = subject_of(session_id=row["session_id"]) if row["session_id"] else row["subject"]
    seen = rules.SessionFacts(session, row["subject"], row["timestamp"])
    if row["channel"] not in _OUTSIDE:
        return seen
    seen = seen._replace(external_at=row["timestamp"], external_id=row["id"])
    if row["channel"] == "direct":
        return seen
    return seen._replace(source=row["source"] or "", medium=row["medium"] or "", campaign=row["campaign"] or "")


def order_row(order: purchases_pb.PurchaseChanged, position: int, ordinal: int) -> Row:
    """What is kept of an order."""
    return {
        "purchase_id": order.purchase_id,
        "subject": order.subject or f"purchase:{order.purchase_id}",
        "session_id": order.session_id or None,
        "ordered_at": order.timestamp.ToDatetime(UTC),
        "paid_at": order.paid_at.ToDatetime(UTC) if order.HasField("paid_at") else None,
        "status": purchases_pb.PaymentStatus.Name(order.payment_status).removeprefix("PAYMENT_STATUS_").lower(),
        "net": Decimal(order.base_net_amount) if order.base_net_amount else None,
        "excluded": order.excluded,
        "position": position,
        "ordinal": ordinal,
    }


def order_touchpoint_id(purchase_id: str) -> str:
    """Id of an order's touchpoint: not one that a client can give."""
    return f"purchase/{purchase_id}"


def purchase_row(order: purchases_pb.PurchaseChanged, row: Row, now: datetime) -> Row:
    """The touchpoint that a paid order is. Its stage is that of a first order; which it is, shows when the journey is read."""
    utm = order.utm_attribution
    return {
        "id": order_touchpoint_id(order.purchase_id),
        "user_id": order.user_id or None,
        "session_id": order.session_id or None,
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


def conversion_row(told: pb.Conversion, conversion_id: str, currency: str, hashes: Mapping[str, bytes], now: datetime) -> Row:
    """The row of a conversion.

    Args:
        told: what the client told.
        conversion_id: the client's id, or the server's.
        currency: that of its value.
        hashes: `email`, empty without one, and `content`.
        now: when it is stored.
    """
    utm = told.utm_parameters
    return {
        "id": conversion_id,
        "timestamp": told.timestamp.ToDatetime(UTC),
        "subject": subject_of(user_id=told.user_id, email_hash=hashes["email"], session_id=told.session_id),
        "user_id": told.user_id or None,
        "session_id": told.session_id or None,
        "conversion_type": told.conversion_type,
        "value": rules.amount(told.value, currency) if told.HasField("value") else None,
        "currency": currency,
        "email_hash": hashes["email"] or None,
        "source": _bounded(source_name(told.source)),
        "page_url": told.page_url or None,
        "utm_parameters": {field.name: value for field, value in utm.ListFields()} if told.HasField("utm_parameters") else None,
        "metadata": MessageToDict(told.metadata) if told.HasField("metadata") else None,
        "content_hash": hashes["content"],
        "created_at": now,
    }


def touchpoint_recorded(row: Mapping[str, Any]) -> tuple[str, change_pb2.JourneyChanged]:
    """A client's touchpoint as the topic tells it, under its key."""
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
    """A conversion as the topic tells it, under its key."""
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
