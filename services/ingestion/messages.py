"""Maps events between the log, the table and the topic."""

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
"""Its messages are stored events."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DATA_FIELDS: Final = ("page_title", "user_agent", "ip_address", "global_privacy_control", "historical")
_UTM_FIELDS: Final = tuple(pb.UtmParameters.DESCRIPTOR.fields_by_name)
_ENRICHMENT_FIELDS: Final = tuple(pb.Enrichment.DESCRIPTOR.fields_by_name)


def moment(timestamp: Timestamp) -> datetime:
    """Converts a time to a datetime in UTC. Cached, since events of one call share it: protobuf's own takes four times as long."""
    return _moment(timestamp.seconds, timestamp.nanos // 1000)


@lru_cache(4096)
def _moment(seconds: int, microseconds: int) -> datetime:
    return _EPOCH + timedelta(seconds=seconds, microseconds=microseconds)


def key(received: pb.ReceivedEvent) -> str:
    """Returns the event's idempotency key. Only browsers have a `track` token, also in messages without `from_browser`."""
    return key_of(received.event.id, from_browser=received.from_browser or received.scope == "track")


def row(received: pb.ReceivedEvent, enrichment: pb.Enrichment, now: datetime) -> dict[str, Any]:
    """Returns the row of an event, without its offset in the topic."""
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


def _filled(message: Message, fields: Iterable[str]) -> dict[str, Any]:
    """Returns those of some fields that are not empty."""
    return {field: value for field in fields if (value := getattr(message, field))}


def published_message(received: pb.ReceivedEvent, enrichment: pb.Enrichment, *, is_update: bool = False) -> pb.EventStored:
    """Returns the message to publish of an event that was stored or completed."""
    message = pb.EventStored(
        key=key(received),
        is_update=is_update,
        sealed_email=received.sealed_email,
        email_hash=received.email_hash,
        client=received.client,
        scope=received.scope,
    )
    # The constructor would serialise and parse each of them again.
    message.event.CopyFrom(received.event)
    message.received_at.CopyFrom(received.received_at)
    message.enrichment.CopyFrom(enrichment)
    return message


def stored_message(stored: EventRow) -> pb.EventStored:
    """Returns the published message of a row, without the sealed e-mail address."""
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
    """Returns a stored event as it was received, without what was sealed."""
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
