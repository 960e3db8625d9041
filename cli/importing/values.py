"""Amounts and times as files have them. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, tzinfo
from typing import Final

from cli.importing.items import UnusableError

_NO_DIGITS: Final = re.compile(r"[^\d.,\-]")
_AMBIGUOUS: Final = re.compile(r"\d{1,3}[.,]\d{3}")
_MILLISECONDS: Final = 10_000_000_000
"""Seconds since 1970 of a time that is rather stated in milliseconds."""
_FORMATS: Final[Sequence[str]] = ("%Y-%m-%d %H:%M", "%Y/%m/%d %H:%M:%S", "%Y/%m/%d %H:%M", "%Y/%m/%d", "%B %d, %Y", "%b %d, %Y")
"""Beside ISO 8601: only those in which day and month can't be confused."""


def amount(text: str, decimal: str = "") -> float:
    """An amount: `1234.5`, `1,234.50`, `1.234,50 €`.

    Args:
        text: as written.
        decimal: the decimal separator; empty if each amount has to show it.

    Raises:
        UnusableError: it is no amount, or may be two.
    """
    digits = _NO_DIGITS.sub("", text.replace("\N{MINUS SIGN}", "-"))
    if not decimal:
        if _AMBIGUOUS.fullmatch(digits.lstrip("-")):
            raise UnusableError("an amount may have a decimal or a thousands separator: set `decimal` in the mapping")
        decimal = "," if digits.rfind(",") > digits.rfind(".") else "."
    digits = digits.replace("." if decimal == "," else ",", "").replace(decimal, ".")
    try:
        return float(digits)
    except ValueError:
        raise UnusableError("an amount is no number") from None


def moment(text: str, zone: tzinfo, form: str = "") -> datetime:
    """A time: ISO 8601, seconds or milliseconds since 1970, or another format.

    Args:
        text: as written.
        zone: of a time without one.
        form: the format, as of `strptime`; empty for one that can't be misread.

    Raises:
        UnusableError: it is no such time.
    """
    try:
        at = datetime.strptime(text, form) if form else _read(text)  # noqa: DTZ007 (the zone follows)
    except (ValueError, OverflowError, OSError):
        hint = "is not of the format in the mapping" if form else "can't be read: set `date_format` in the mapping"
        raise UnusableError(f"a time {hint}") from None
    return at if at.tzinfo else at.replace(tzinfo=zone)


def _read(text: str) -> datetime:
    if re.fullmatch(r"\d{9,13}(\.\d+)?", text):
        seconds = float(text)
        return datetime.fromtimestamp(seconds / 1000 if seconds > _MILLISECONDS else seconds, UTC)
    try:
        return datetime.fromisoformat(text.removesuffix(" UTC") + ("+00:00" if text.endswith(" UTC") else ""))
    except ValueError:
        for form in _FORMATS:
            try:
                return datetime.strptime(text, form)  # noqa: DTZ007 (the zone follows)
            except ValueError:
                continue
        raise
