"""Rules that a proto can't say and that every service's requests keep: times that the clock allows, the bounds of free-form data."""

from __future__ import annotations

from datetime import timedelta
from time import time
from typing import Final

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from kit.errors import InvalidRequest, Violation

STRUCT_BYTES: Final = 16_384
STRUCT_DEPTH: Final = 8

_AHEAD: Final = timedelta(hours=24)


def check(*violations: Violation | None) -> None:
    """Passes when there is no violation.

    Raises:
        InvalidRequest: there is one, or more.
    """
    found = [violation for violation in violations if violation is not None]
    if found:
        raise InvalidRequest(found)


def wrong_time(field: str, timestamp: Timestamp, retention: timedelta, now: float | None = None) -> Violation | None:
    """What is wrong with the time at which something happened: more than 24 hours ahead, or older than the retention.

    `now` is in seconds since 1970; the clock's when not given.
    """
    now = time() if now is None else now
    if timestamp.seconds > now + _AHEAD.total_seconds():
        return Violation(field, f"{field} is more than 24 hours ahead")
    if timestamp.seconds < now - retention.total_seconds():
        return Violation(field, f"{field} is older than the site's retention")
    return None


def wrong_struct(field: str, struct: Struct) -> Violation | None:
    """What is wrong with free-form data: larger than 16 KiB, or deeper than 8 levels."""
    if struct.ByteSize() > STRUCT_BYTES:
        return Violation(field, f"{field} is larger than {STRUCT_BYTES} bytes")
    if _deeper(struct, STRUCT_DEPTH):
        return Violation(field, f"{field} is deeper than {STRUCT_DEPTH} levels")
    return None


def _deeper(struct: Struct, levels: int) -> bool:
    if levels < 1:
        return True
    return any(_value_deeper(value, levels) for value in struct.fields.values())


def _value_deeper(value: Value, levels: int) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return _deeper(value.struct_value, levels - 1)
    if kind == "list_value":
        return levels < 2 or any(_value_deeper(item, levels - 1) for item in value.list_value.values)  # noqa: PLR2004 (a list is a level itself)
    return False
