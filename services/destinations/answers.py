"""What headers of an answer mean, for all kinds: pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Returns how long an answer asks to wait, by its header `retry-after` in seconds or as a date; None if it does not."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        return timedelta(seconds=min(int(value), 10**7))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(timedelta(0), at.replace(tzinfo=at.tzinfo or UTC) - now)
