"""Between messages and rows: an event as the log carries it, as the table keeps it, as the topic tells it."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1 import event_pb2 as pb

from kit.idempotency import is_browsers, key_of
from kit.rules import plain
from services.ingestion.models import EventRow

RAW_TOPIC: Final = "intake"
"""The raw log: accepted events on their way to the table."""

TOPIC: Final = "events"
"""What is published: events as stored."""

EMAIL_CONTEXT: Final = "email"
"""Context under which an e-mail address is sealed."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATA_FIELDS: Final = ("page_title", "user_agent", "ip_address", "global_privacy_control")
_UTM_FIELDS: Final = tuple(pb.UtmParameters.DESCRIPTOR.fields_by_name)
_ENRICHMENT_FIELDS: Final = tuple(pb.Enrichment.DESCRIPTOR.fields_by_name)


def moment(timestamp: Timestamp) -> datetime:
    """A time as Python has it, in UTC. Made once for events that were received together: protobuf's own takes four times as long."""
    return _moment(timestamp.seconds, timestamp.nanos // 1000)


@lru_cache(4096)
def _moment(seconds: int, microseconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds, microseconds=microseconds)


def key(received: pb.ReceivedEvent) -> str:
    """The event's idempotency key. Only a browser has a `track` token, also in messages that do not say whom they are from."""
    return key_of(received.event.id, from_browser=received.from_browser or received.scope == "track")


def row(received: pb.ReceivedEvent, enrichment: pb.Enrichment, now: datetime) -> dict[str, Any]:
    """The row of an event, but for its place in the topic."""
    event = received.event
    data = _filled(event, _DATA_FIELDS)
    if event.HasField("metadata"):
        data["metadata"] = plain(event.metadata)
    data["enrichment"] = _filled(enrichment, _ENRICHMENT_FIELDS) | {"channel": pb.Channel.Name(enrichment.channel)}
    return {
        "id": key(received),
        "timestamp": moment(event.timestamp),
        "user_id": event.user_id or None,
        "session_id": event.session_id or None,
        "event_type": event.event_type,
        "event_category": event.event_category or None,
        "platform": event.platform,
        "source": event.source or None,
        "page_url": event.page_url or None,
        "referrer": event.referrer or None,
        "utm_parameters": _filled(event.utm_parameters, _UTM_FIELDS) if event.HasField("utm_parameters") else None,
        "event_data": data,
        "email_hash": received.email_hash or None,
        "content_hash": received.content_hash,
        "processed": True,
        "received_at": moment(received.received_at),
        "created_at": now,
        "client": received.client,
        "scope": received.scope,
    }


def _filled(message: Message, names: Iterable[str]) -> dict[str, Any]:
    """Those of some fields that are not empty."""
    return {name: value for name in names if (value := getattr(message, name))}


def published_message(received: pb.ReceivedEvent, enrichment: pb.Enrichment, *, is_update: bool = False) -> pb.EventStored:
    """The event as the topic tells it when it was stored, or filled in."""
    message = pb.EventStored(
        key=key(received),
        is_update=is_update,
        sealed_email=received.sealed_email,
        email_hash=received.email_hash,
        client=received.client,
        scope=received.scope,
    )
    # The constructor would serialise each and parse it again.
    message.event.CopyFrom(received.event)
    message.received_at.CopyFrom(received.received_at)
    message.enrichment.CopyFrom(enrichment)
    return message


def stored_message(stored: EventRow) -> pb.EventStored:
    """The event as its row has it: what the topic told, but for the sealed e-mail."""
    data = stored.event_data
    event = pb.Event(
        id=stored.id,
        event_type=stored.event_type,
        event_category=stored.event_category or "",
        user_id=stored.user_id or "",
        session_id=stored.session_id or "",
        page_url=stored.page_url or "",
        referrer=stored.referrer or "",
        platform=stored.platform,
        source=stored.source or "",
        **{name: data[name] for name in _DATA_FIELDS if name in data},
    )
    event.timestamp.FromDatetime(stored.timestamp)
    if stored.utm_parameters is not None:
        event.utm_parameters.CopyFrom(pb.UtmParameters(**stored.utm_parameters))
    if "metadata" in data:
        ParseDict(data["metadata"], event.metadata)
    message = pb.EventStored(
        key=stored.key,
        event=event,
        enrichment=ParseDict(data["enrichment"], pb.Enrichment()),
        email_hash=stored.email_hash or b"",
        client=stored.client,
        scope=stored.scope,
    )
    message.received_at.FromDatetime(stored.received_at)
    return message


def received_message(stored: EventRow) -> pb.ReceivedEvent:
    """A stored event as it would come in, but for what was sealed."""
    message = stored_message(stored)
    received = pb.ReceivedEvent(
        event=message.event,
        received_at=message.received_at,
        email_hash=message.email_hash,
        client=message.client,
        scope=message.scope,
        from_browser=is_browsers(stored.key),
    )
    received.content_hash = stored.content_hash
    return received
