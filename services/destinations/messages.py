"""Maps rows of destinations to protobuf."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from pmp.destinations.v1 import destinations_pb2 as pb

from kit.times import timestamp
from services.destinations.models import DeliveryRow, DestinationRow
from services.destinations.repository import Books

_FIELDS: Final = {"delivered": "delivered", "pending": "pending", "withheld": "withheld", "expired": "expired", "dead": "dead_lettered"}
"""The counts of the books by the state of a delivery."""


def destination_message(row: DestinationRow, books: Books | None, now: datetime, *, is_configured: bool) -> pb.Destination:
    """Returns a destination with its books."""
    message = pb.Destination(
        name=row.name,
        kind=row.kind,
        added_at=timestamp(row.added_at),
        is_configured=is_configured,
        is_paused=row.is_paused,
        pause_reason=row.pause_reason,
        books=pb.DeliveryBooks(),
        open_until=timestamp(row.open_until) if is_open(row, now) else None,
    )
    if books is not None:
        counts = {field: books.by_state.get(state, 0) for state, field in _FIELDS.items()}
        message.books.MergeFrom(pb.DeliveryBooks(due=sum(counts.values()), **counts, oldest_pending_at=timestamp(books.oldest)))
    return message


def is_open(row: DestinationRow, now: datetime) -> bool:
    """Whether nothing is sent at this moment, since recent attempts failed."""
    return row.open_until is not None and row.open_until > now


def delivery_message(row: DeliveryRow) -> pb.Delivery:
    """Returns a delivery."""
    return pb.Delivery(
        id=row.id,
        destination=row.destination,
        name=row.name,
        state=pb.DeliveryState.Value(f"DELIVERY_STATE_{row.state.upper()}"),
        attempts=row.attempts,
        happened_at=timestamp(row.happened_at),
        at=timestamp(row.next_attempt_at),
        detail=row.detail,
    )
