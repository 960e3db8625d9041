"""Which days of a shop are closed, so that their figures are complete."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from typing import Final
from zoneinfo import ZoneInfo

CLOSING: Final = timedelta(hours=3)
"""How long after its end, where the site is, a day is closed: until then browsers still report what they could not send before."""


def last_closed(now: datetime, zone: ZoneInfo) -> date:
    """The last day that is closed."""
    return (now.astimezone(zone) - CLOSING).date() - timedelta(days=1)


def next_closing(now: datetime, zone: ZoneInfo) -> datetime:
    """The first moment after `now` at which a day is closed, in UTC."""
    midnight = datetime.combine(last_closed(now, zone) + timedelta(days=2), time(), zone)
    return (midnight + CLOSING).astimezone(UTC)


def days_between(first: date, last: date) -> list[date]:
    """The days of a period, both ends included."""
    return [first + timedelta(days=number) for number in range((last - first).days + 1)]
