"""Times as rows and messages have them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final, overload

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_DAY_SECONDS: Final = 86_400

LIVE_FOR: Final = timedelta(days=3)
"""How long after something happened a live report of it makes it live, although a historical one came first."""


@overload
def timestamp(at: datetime) -> Timestamp: ...
@overload
def timestamp(at: None) -> None: ...
@overload
def timestamp(at: datetime | None) -> Timestamp | None: ...


def timestamp(at: datetime | None) -> Timestamp | None:
    """Converts a time with a zone to a message, in less time than `FromDatetime`; None for None."""
    if at is None:
        return None
    since = at - _EPOCH
    return Timestamp(seconds=since.days * _DAY_SECONDS + since.seconds, nanos=since.microseconds * 1000)


def moment(at: Timestamp) -> datetime:
    """Converts a time of a message to one in UTC."""
    return at.ToDatetime(UTC)
