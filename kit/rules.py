"""What a proto can't say of requests: times, currencies, bounds of free-form data, tokens of pages."""

from __future__ import annotations

import csv
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
"""Shops bring customers and choices of many years: these may be as old as their person, and databases still hold them."""
STRUCT_BYTES: Final = 16_384
STRUCT_DEPTH: Final = 8


def _currencies() -> Mapping[str, str]:
    """The lines of `currencies.csv`. They are only ever added to: amounts that are kept were rounded by them.

    They are ISO 4217's codes of today (`iso`), those that were withdrawn (`withdrawn`: from Unicode CLDR's list; the two decimals
    of most lose nothing where prices had fewer), and those in which WooCommerce sells beside them (`woocommerce`).
    """
    with (Path(__file__).parent / "currencies.csv").open(newline="") as file:
        return {row["code"]: row["decimals"] for row in csv.DictReader(file)}


_CURRENCIES: Final = _currencies()
CURRENCIES: Final = frozenset(_CURRENCIES)
"""Codes of currencies, and of gold, funds and tests, in which nobody pays."""
DECIMALS: Final = {code: int(decimals) for code, decimals in _CURRENCIES.items() if decimals}
"""Digits of the minor unit by code, of those in which one can pay, or could once: 2 of USD, 0 of JPY."""

_Id = TypeVar("_Id")

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_AHEAD_SECONDS: Final = 86_400
_STRUCT_TAG: Final = b"*"
"""Field 5 of google.protobuf.Value, length-delimited."""
_LIST_TAG: Final = b"2"
"""Field 6 of google.protobuf.Value, length-delimited."""


class PageKey(NamedTuple, Generic[_Id]):
    """The last row of a page: the next one begins behind it."""

    at: datetime
    id: _Id


class Period(NamedTuple):
    """Times that the clock allows, in seconds since 1970."""

    earliest: float
    latest: float
    age: timedelta
    """How old something may be."""
    setting: str
    """What says so; empty where it is the mesh itself."""

    @classmethod
    def of(cls, age: timedelta, setting: str = "") -> Period:
        """From so long ago to 24 hours ahead."""
        now = time()
        return cls(now - age.total_seconds(), now + _AHEAD_SECONDS, age, setting)

    @classmethod
    def kept(cls, settings: Settings, table: str, *, as_events: bool = False) -> Period:
        """As long as rows of a table are kept: at any age, where the settings do not say how long.

        Args:
            settings: `site_retention_tables` goes first.
            table: named with its service.
            as_events: else its rows are kept as long as events.
        """
        if (kept := settings.site_retention_tables.get(table)) is not None:
            return cls.of(kept, f"PMP_SITE_RETENTION_TABLES, {table}")
        return cls.of(settings.site_retention, "PMP_SITE_RETENTION") if as_events else cls.of(ANY_AGE)


@cache
def minor_unit(currency: str) -> Decimal:
    """The smallest amount of a currency in which one can pay: 0.01 of USD, 1 of JPY.

    Raises:
        KeyError: there is no such currency.
    """
    return Decimal(1).scaleb(-DECIMALS[currency])


def check(*violations: Violation | None) -> None:
    """Passes when there is no violation.

    Raises:
        InvalidRequest: there is one, or more.
    """
    found = [violation for violation in violations if violation is not None]
    if found:
        raise InvalidRequest(found)


def wrong_time(field: str, timestamp: Timestamp, allowed: Period) -> Violation | None:
    """What is wrong with the time at which something happened: more than 24 hours ahead, or older than the retention."""
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
    """What is wrong with free-form data: larger than 16 KiB, or deeper than 8 levels."""
    serialised = struct.SerializeToString()
    if len(serialised) > STRUCT_BYTES:
        return Violation(field, f"{field} is larger than {STRUCT_BYTES} bytes")
    if may_nest(serialised, STRUCT_DEPTH) and deeper(struct, STRUCT_DEPTH):
        return Violation(field, f"{field} is deeper than {STRUCT_DEPTH} levels")
    return None


def plain(struct: Struct) -> dict[str, Any]:
    """Free-form data as JSON has it; protobuf's own MessageToDict takes three times as long.

    Raises:
        ValueError: a number in it is infinite or none, which JSON does not have.
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
    """Asks for the page behind the row of this time (to the microsecond) and id: opaque to callers, fit for a URL."""
    return urlsafe_b64encode(f"{(at - _EPOCH) // _MICROSECOND} {id_}".encode()).decode().rstrip("=")


def page_key(token: str, kind: Callable[[str], _Id]) -> PageKey[_Id] | None:
    """The row behind which a page begins; None for the first page, which has no token.

    Args:
        token: as `page_token` made it.
        kind: makes the id of its text; a ValueError says that it is none.

    Raises:
        InvalidRequest: no page ever ended with this token.
    """
    if not token:
        return None
    try:
        microseconds, _, id_ = b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True).decode().partition(" ")
        return PageKey(_EPOCH + int(microseconds) * _MICROSECOND, kind(id_))
    except (ValueError, OverflowError):
        raise InvalidRequest([Violation("page_token", "page_token is not the next_page_token of a page")]) from None


def without_query(url: str) -> str:
    """An address without query and fragment."""
    return url.partition("#")[0].partition("?")[0]


def may_nest(serialised: bytes, levels: int) -> bool:
    """False when a serialised Struct can't be deeper than so many levels, which costs less to see than its depth.

    Each level below the first is a `struct_value` or a `list_value`, and has the tag of that field in the bytes.
    """
    return serialised.count(_STRUCT_TAG) + serialised.count(_LIST_TAG) >= levels


def deeper(struct: Struct, levels: int) -> bool:
    """Whether a Struct has more than so many levels of Structs and lists, itself being the first."""
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
