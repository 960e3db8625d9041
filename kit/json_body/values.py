"""Reads single JSON values. The message of a ValueError describes the fault and never repeats the value."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo
from functools import lru_cache
from ipaddress import ip_address
from math import isfinite
from typing import Any, Final, TypeAlias

import orjson
from google.protobuf.descriptor import EnumDescriptor

from kit.errors import InvalidRequest, Violation

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_FIRST_SECOND: Final = -62_135_596_800
_LAST_SECOND: Final = 253_402_300_799
_MILLISECONDS: Final = 100_000_000_000
"""From here on a number is in milliseconds since 1970: in seconds it would be in the year 5138, in milliseconds it is in 1973."""
_MICROSECONDS: Final = 1000 * _MILLISECONDS
_MILLION: Final = 1_000_000
_DEEPEST: Final = 32
"""The depth to which free-form data is read, deeper than any rule allows."""
_NUMBER: Final = re.compile(r"\s*[+-]?(\d+(\.\d*)?|\.\d+)(e[+-]?\d{1,3})?\s*", re.IGNORECASE | re.ASCII)
_WITH_PORT: Final = re.compile(r"\[(?P<v6>[^\]]+)\](:\d+)?|(?P<v4>\d+\.\d+\.\d+\.\d+):\d+")
_CHOICES: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off", ""), False),
}


class RepairedText(str):
    """A text in which invalid Unicode was replaced."""

    __slots__ = ()


class RepairedObject(dict[str, Any]):
    """An object that may hold repaired texts."""

    __slots__ = ()


UNREADABLE: Final = object()
"""Stands for a number that JSON does not have, such as NaN."""


Moment: TypeAlias = tuple[int, int, bool]
"""A time: seconds since 1970, microseconds, and whether it had no zone."""


def parse(body: bytes) -> Any:
    """Parses a JSON body. Lone surrogates, other invalid text, and numbers such as NaN only affect their own value.

    Raises:
        InvalidRequest: it is not JSON.
    """
    try:
        return orjson.loads(body)
    except orjson.JSONDecodeError:
        pass  # the slower parser accepts what this one is too strict for
    try:
        return _repaired(json.loads(body.decode("utf-8-sig", "replace"), parse_constant=lambda _: UNREADABLE))
    except (ValueError, RecursionError):
        raise InvalidRequest([Violation("", "the body is not JSON")]) from None


def _repaired(value: Any) -> Any:
    if isinstance(value, str):
        repaired = value.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
        return RepairedText(repaired) if "\ufffd" in repaired else value
    if isinstance(value, list):
        return [_repaired(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, dict):
        return RepairedObject((str(_repaired(name)), _repaired(item)) for name, item in value.items())  # pyright: ignore[reportUnknownVariableType]
    return value


def digits(number: float) -> str:
    """Formats a number: a whole one without fraction and exponent."""
    return str(int(number)) if isfinite(number) and number == int(number) else str(number)


def text(value: Any) -> str:
    """Reads a text."""
    if not isinstance(value, str):
        message = "is not a text"
        raise ValueError(message)  # noqa: TRY004  (one kind of error, whatever is wrong)
    return str(value)


def name(value: Any) -> str:
    """Reads a text that the sender may have written as a number."""
    return digits(value) if isinstance(value, int | float) and not isinstance(value, bool) else text(value)


def network_address(value: Any) -> str:
    """Reads an IP address as proxies write it, possibly with a port or in brackets."""
    return _network_address(text(value))


@lru_cache(4096)
def _network_address(written: str) -> str:
    found = _WITH_PORT.fullmatch(written.strip())
    bare = (found["v6"] or found["v4"]) if found else written.strip()
    try:
        return bare and str(ip_address(bare))
    except ValueError:
        message = "is not an IP address"
        raise ValueError(message) from None


def email_address(value: Any) -> str:
    """Reads an e-mail address; an internationalised host is converted to ASCII."""
    written = text(value)
    if written.isascii():
        return written
    mailbox, at, host = written.rpartition("@")
    try:
        return mailbox + at + host.encode("idna").decode()
    except UnicodeError:
        message = "is not an e-mail address"
        raise ValueError(message) from None


def integer(value: Any, lowest: int, highest: int) -> int:
    """Reads a whole number between bounds."""
    number = _numeric(value)
    if isinstance(number, float) and number.is_integer():
        number = int(number)
    if not isinstance(number, int) or not lowest <= number <= highest:
        message = f"is not a whole number from {lowest} to {highest}"
        raise ValueError(message)
    return number


def number(value: Any) -> float:
    """Reads a number."""
    found = _numeric(value)
    if found is None:
        message = "is not a number"
        raise ValueError(message)
    return float(found)


def choice(value: Any) -> bool:
    """Reads a boolean, also in the words of HTML forms and PHP."""
    written = digits(value) if isinstance(value, int | float) else value
    found = _CHOICES.get(written.strip().lower()) if isinstance(written, str) else None
    if isinstance(value, bool):
        return value
    if found is None:
        message = "is neither true nor false"
        raise ValueError(message)
    return found


def member(value: Any, of: EnumDescriptor) -> int:
    """Reads a member of an enum, by name or number."""
    known = of.values_by_name.get(value) if isinstance(value, str) else of.values_by_number.get(value) if isinstance(value, int) else None
    if known is None:
        message = "is none of the words that are known"
        raise ValueError(message)
    return known.number


def moment(value: Any, timezone: tzinfo) -> Moment:
    """Reads a time: RFC 3339, or seconds, milliseconds or microseconds since 1970. Without a zone it is local."""
    try:
        if isinstance(value, str) and (value[4:5] == "-" or not _NUMBER.fullmatch(value)):
            return _written(value, timezone)
        found = _numeric(value)
        if found is not None:
            units = 1 if abs(found) < _MILLISECONDS else 1000 if abs(found) < _MICROSECONDS else _MILLION
            seconds, microseconds = divmod(int(found * (_MILLION // units)), _MILLION)
            if _FIRST_SECOND <= seconds <= _LAST_SECOND:
                return seconds, microseconds, False
    except (ValueError, OverflowError):
        pass
    message = "is in no timestamp format: RFC 3339 with zone, or seconds or milliseconds since 1970"
    raise ValueError(message)


def _written(value: str, timezone: tzinfo) -> Moment:
    at = datetime.fromisoformat(value if value[:1].isdecimal() and value[-1:] not in "z \n" else value.strip().upper())
    is_local = at.tzinfo is None
    since = (at.replace(tzinfo=timezone) if is_local else at) - _EPOCH
    return since.days * 86_400 + since.seconds, since.microseconds, is_local


def put(into: Any, value: Any, depth: int = 1) -> bool:
    """Reads a free-form value into a `google.protobuf.Value`; False if some of it was left out or replaced.

    Three times as fast as protobuf's own conversion of a dict.
    """
    if isinstance(value, str):
        into.string_value = value
        return value.__class__ is str
    if isinstance(value, bool):
        into.bool_value = value
    elif isinstance(value, int | float):
        into.number_value = value
    elif value is None or value is UNREADABLE:
        into.null_value = 0
        return value is None
    elif isinstance(value, dict):
        into.struct_value.SetInParent()
        return depth > _DEEPEST or put_all(into.struct_value, value, depth + 1)  # pyright: ignore[reportUnknownArgumentType]
    else:
        into.list_value.SetInParent()
        values = into.list_value.values
        return depth > _DEEPEST or all([put(values.add(), item, depth + 1) for item in value])  # noqa: C419  (each has to be read)
    return True


def put_all(struct: Any, values: Mapping[str, Any], depth: int = 1) -> bool:
    """Reads an object into a `google.protobuf.Struct`, as `put` does."""
    fields = struct.fields
    is_exact = True
    for name, value in values.items():
        into = fields[name]
        if value.__class__ is str:
            into.string_value = value
        else:
            is_exact = put(into, value, depth) and is_exact
    return is_exact


def _numeric(value: Any) -> float | int | None:
    """Returns a finite number, also from a text; None for anything else."""
    if isinstance(value, str) and _NUMBER.fullmatch(value):
        value = float(value) if set(value.lower()) & {".", "e"} else int(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return None
    return value
