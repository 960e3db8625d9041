"""Rules of requests that a proto can't express: times, currencies, the size of free-form data, page tokens."""

from __future__ import annotations

import csv
import re
from base64 import b64decode, urlsafe_b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from functools import cache
from math import isfinite
from pathlib import Path
from time import time
from typing import Any, Final, Generic, NamedTuple, TypeVar

from google.protobuf.struct_pb2 import Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from kit.errors import InvalidRequest, Violation
from kit.settings import Settings

ANY_AGE: Final = timedelta(days=36_500)
"""Shops import customers and choices of many years: these may be as old as a person, within what databases can store."""
STRUCT_BYTES: Final = 16_384
STRUCT_DEPTH: Final = 8
_SEPARATORS: Final = re.compile(r"[\s.:-]+")


def _currencies() -> Mapping[str, str]:
    """Reads `currencies.csv`. Lines are only ever added, since stored amounts were rounded by them.

    They are the current codes of ISO 4217 (`iso`), withdrawn ones (`withdrawn`: from Unicode CLDR's list; most have two decimals, which
    lose nothing where prices had fewer), and other codes that WooCommerce supports (`woocommerce`).
    """
    with (Path(__file__).parent / "currencies.csv").open(newline="") as file:
        return {row["code"]: row["decimals"] for row in csv.DictReader(file)}


_CURRENCIES: Final = _currencies()
CURRENCIES: Final = frozenset(_CURRENCIES)
"""All codes, including those of gold, funds and tests, which are no means of payment."""
DECIMALS: Final = {code: int(decimals) for code, decimals in _CURRENCIES.items() if decimals}
"""Digits of the minor unit by code, of present and former means of payment: 2 for USD, 0 for JPY."""

_Id = TypeVar("_Id")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_AHEAD_SECONDS: Final = 86_400
_STRUCT_TAG: Final = b"*"
"""Field 5 of google.protobuf.Value, length-delimited."""
_LIST_TAG: Final = b"2"
"""Field 6 of google.protobuf.Value, length-delimited."""


class PageKey(NamedTuple, Generic[_Id]):
    """The last row of a page: the next page starts after it."""

    at: datetime
    id: _Id


class Period(NamedTuple):
    """The allowed times of a record, in seconds since 1970."""

    earliest: float
    latest: float
    age: timedelta
    """The maximum age."""
    setting: str
    """The setting that defines it; empty for the mesh's own limit."""

    @classmethod
    def of(cls, age: timedelta, setting: str = "") -> Period:
        """Returns the period from so long ago to 24 hours ahead."""
        now = time()
        return cls(now - age.total_seconds(), now + _AHEAD_SECONDS, age, setting)

    @classmethod
    def kept(cls, settings: Settings, table: str, *, as_events: bool = False) -> Period:
        """Returns the retention of a table as a period; any age if the settings don't limit it.

        Args:
            settings: `site_retention_tables` takes precedence.
            table: with its service, `service.table`.
            as_events: whether the table otherwise has the retention of events.
        """
        if (kept := settings.site_retention_tables.get(table)) is not None:
            return cls.of(kept, f"PMP_SITE_RETENTION_TABLES, {table}")
        return cls.of(settings.site_retention, "PMP_SITE_RETENTION") if as_events else cls.of(ANY_AGE)


@cache
def minor_unit(currency: str) -> Decimal:
    """Returns the smallest amount of a currency: 0.01 for USD, 1 for JPY.

    Raises:
        KeyError: it is unknown, or no means of payment.
    """
    return Decimal(1).scaleb(-DECIMALS[currency])


def check(*violations: Violation | None) -> None:
    """Raises an error if there are violations.

    Raises:
        InvalidRequest: there is at least one.
    """
    found = [violation for violation in violations if violation is not None]
    if found:
        raise InvalidRequest(found)


def wrong_time(field: str, timestamp: Timestamp, allowed: Period) -> Violation | None:
    """Returns the violation of a time that is more than 24 hours ahead or older than the retention."""
    seconds = timestamp.seconds
    if seconds > allowed.latest:
        return Violation(field, f"{field} is more than 24 hours ahead")
    if seconds < allowed.earliest:
        days = allowed.age.days
        if not allowed.setting:
            return Violation(field, f"{field} is more than {days // 365} years ago")
        return Violation(field, f"{field} is older than the site's retention ({allowed.setting}: {days} days)")
    return None


def wrong_struct(field: str, struct: Struct) -> Violation | None:
    """Returns the violation of free-form data that is larger than 16 KiB or deeper than 8 levels."""
    serialised = struct.SerializeToString()
    if len(serialised) > STRUCT_BYTES:
        return Violation(field, f"{field} is larger than {STRUCT_BYTES} bytes")
    if may_nest(serialised, STRUCT_DEPTH) and deeper(struct, STRUCT_DEPTH):
        return Violation(field, f"{field} is deeper than {STRUCT_DEPTH} levels")
    return None


def plain(struct: Struct) -> dict[str, Any]:
    """Converts free-form data to JSON values; protobuf's own MessageToDict takes three times as long.

    Raises:
        ValueError: a number in it is infinite or NaN, which JSON does not have.
    """
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    match value.WhichOneof("kind"):
        case "string_value":
            return value.string_value
        case "number_value" if isfinite(value.number_value):
            return value.number_value
        case "number_value":
            message = "JSON has no such number"
            raise ValueError(message)
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return plain(value.struct_value)
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case _:
            return None


def page_token(at: datetime, id_: object) -> str:
    """Returns the token of the page after the row of this time (to the microsecond) and id: opaque to callers, safe in a URL."""
    return urlsafe_b64encode(f"{(at - _EPOCH) // _MICROSECOND} {id_}".encode()).decode().rstrip("=")


def page_key(token: str, kind: Callable[[str], _Id]) -> PageKey[_Id] | None:
    """Returns the row after which a page starts; None for the first page, which has no token.

    Args:
        token: as `page_token` made it.
        kind: parses the id; raises ValueError if it is invalid.

    Raises:
        InvalidRequest: the token is invalid.
    """
    if not token:
        return None
    try:
        microseconds, _, id_ = b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode().partition(" ")
        return PageKey(_EPOCH + int(microseconds) * _MICROSECOND, kind(id_))
    except (ValueError, OverflowError):
        raise InvalidRequest([Violation("page_token", "page_token is not the next_page_token of a page")]) from None


def event_name(text: str) -> str:
    """Returns an event type or an action in the spelling in which it is looked up: `Lead Capture` as `lead_capture`."""
    return _SEPARATORS.sub("_", text.strip().lower())


def without_query(url: str) -> str:
    """Returns a URL without query and fragment."""
    return url.partition("#")[0].partition("?")[0]


def may_nest(serialised: bytes, levels: int) -> bool:
    """False if a serialised Struct can't be deeper than so many levels: cheaper to check than its depth.

    Each level below the first is a `struct_value` or a `list_value`, and has the tag of that field in the bytes.
    """
    return serialised.count(_STRUCT_TAG) + serialised.count(_LIST_TAG) >= levels


def deeper(struct: Struct, levels: int) -> bool:
    """True if a Struct has more than so many levels of Structs and lists, itself being the first."""
    if levels < 1:
        return True
    return any(_value_deeper(value, levels) for value in struct.fields.values())


def _value_deeper(value: Value, levels: int) -> bool:
    kind = value.WhichOneof("kind")
    if kind == "struct_value":
        return deeper(value.struct_value, levels - 1)
    if kind == "list_value":
        return levels < 2 or any(_value_deeper(item, levels - 1) for item in value.list_value.values)  # noqa: PLR2004 (a list is a level itself)
    return False
