"""Days of the site's time zone, as numbers (`date.toordinal`), and periods of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

from kit.errors import InvalidRequest, Violation

MICROSECONDS: Final = 1_000_000
_QUARTER_MINUTES: Final = 15
_QUARTER: Final = _QUARTER_MINUTES * 60 * MICROSECONDS
"""All offsets of time zones in use since 1972 are multiples of a quarter of an hour, so that no day begins within one."""
_MOST_QUARTERS: Final = 100_000
_LONGEST_SHIFT: Final = 7200.0
"""Seconds by which clocks may be set at midnight."""
_DEFAULT_DAYS: Final = 30
_MOST_DAYS_KNOWN: Final = 10_000
_MONTHS: Final = 12
_FIRST_YEAR: Final = 1990
_LAST_YEAR: Final = 2200
MOST_DAYS: Final = 3660
"""Days of the longest period: ten years."""
MOST_RANGES: Final = 3
"""Ranges of the keys of a period's totals: months, and days on both sides."""


class Calendar:
    """Assigns times to days.

    Args:
        zone: the time zone of the site.
    """

    def __init__(self, zone: ZoneInfo) -> None:
        self.zone = zone
        self._days: dict[int, int] = {}
        self._hours: dict[int, int] = {}

    def hour(self, at: int) -> int:
        """Returns the hour of a time in microseconds since 1970, as the number of quarters of an hour from 1970 to its start."""
        quarter = at // _QUARTER
        hour = self._hours.get(quarter)
        if hour is None:
            if len(self._hours) >= _MOST_QUARTERS:
                self._hours.clear()
            began = datetime.fromtimestamp(quarter * _QUARTER // MICROSECONDS, UTC).astimezone(self.zone)
            hour = self._hours[quarter] = quarter - began.minute // _QUARTER_MINUTES
        return hour

    def hours(self, period: Period) -> Mapping[int, datetime]:
        """Returns the hours of a period in order, each with its start where the site is; a day may have 23 or 25 of them."""
        since, until = self.times(period)
        quarters = range(
            int((since.timestamp() - _LONGEST_SHIFT) * MICROSECONDS) // _QUARTER,
            int((until.timestamp() + _LONGEST_SHIFT) * MICROSECONDS) // _QUARTER,
        )
        hours = {self.hour(quarter * _QUARTER) for quarter in quarters if self.day(quarter * _QUARTER) in period.days()}
        return {hour: datetime.fromtimestamp(hour * _QUARTER // MICROSECONDS, UTC).astimezone(self.zone) for hour in sorted(hours)}

    def times(self, period: Period) -> tuple[datetime, datetime]:
        """Returns when a period begins, and when it is over."""
        first, end = (datetime.fromordinal(day).replace(tzinfo=self.zone) for day in (period.first, period.last + 1))
        return first, end

    def day(self, at: int) -> int:
        """Returns the day of a time in microseconds since 1970."""
        quarter = at // _QUARTER
        day = self._days.get(quarter)
        if day is None:
            if len(self._days) >= _MOST_QUARTERS:
                self._days.clear()
            began = datetime.fromtimestamp(quarter * _QUARTER // MICROSECONDS, UTC)
            day = self._days[quarter] = began.astimezone(self.zone).date().toordinal()
        return day


class Period(NamedTuple):
    """Whole days, both ends included."""

    first: int
    last: int

    def days(self) -> range:
        """Returns its days."""
        return range(self.first, self.last + 1)

    def keys_of_totals(self) -> list[int]:
        """Returns the keys of its totals: those of its whole months, and of the days beside them.

        If it ends within a month and most of that, the month counts as a whole, and the days after the last one are to be subtracted:
        they are keys as well, of which the month that is not over yet has none.
        """
        first, end = date.fromordinal(self.first), date.fromordinal(self.last + 1)
        since, until = _month(first) + (first.day > 1), _month(end) - 1
        begun, over = _began(until + 1), _began(until + 2) - 1
        beside = range(begun, self.last + 1)
        if self.first <= begun and over - self.last <= len(beside):
            until, beside = until + 1, range(self.last + 1, over + 1)
        if since > until:
            return [*self.days()]
        return [*range(-until, -since + 1), *range(self.first, _began(since)), *beside]

    def months(self) -> list[Period]:
        """Returns its parts by calendar month."""
        months = range(_month(date.fromordinal(self.first)), _month(date.fromordinal(self.last)) + 1)
        return [Period(max(self.first, _began(month)), min(self.last, _began(month + 1) - 1)) for month in months]

    def previous(self) -> Period:
        """Returns as many days directly before it."""
        length = self.last - self.first + 1
        return Period(self.first - length, self.first - 1)

    def year_before(self) -> Period:
        """Returns the same days of the year before; 28 February stands for 29 February."""
        return Period(_year_before(self.first), _year_before(self.last))


@lru_cache(_MOST_DAYS_KNOWN)
def month_of(day: int) -> int:
    """Returns the key of the totals of a day's month: negative, so that it is no day."""
    return -month_number(day)


def month_number(day: int) -> int:
    """Returns the number of a day's month: consecutive months have consecutive numbers."""
    return _month(date.fromordinal(day))


def iso_month(month: int) -> str:
    """Returns the month of a number as YYYY-MM."""
    return f"{month // _MONTHS:04}-{month % _MONTHS + 1:02}"


def _month(day: date) -> int:
    return day.year * _MONTHS + day.month - 1


def _began(month: int) -> int:
    return date(month // _MONTHS, month % _MONTHS + 1, 1).toordinal()


def ranges_of(keys: Sequence[int]) -> list[tuple[int, int]]:
    """Returns the ranges, first and last, of keys of totals that follow each other."""
    ranges: list[tuple[int, int]] = []
    for key in keys:
        if ranges and key == ranges[-1][1] + 1:
            ranges[-1] = ranges[-1][0], key
        else:
            ranges.append((key, key))
    return ranges


def iso(day: int) -> str:
    """Returns a day as YYYY-MM-DD."""
    return date.fromordinal(day).isoformat()


def period_of(since: str, until: str, today: int) -> Period:
    """Parses the period of a request: empty means until today, and 30 days in all.

    Raises:
        InvalidRequest: a day is none, the period ends before it begins, or it is longer than ten years.
    """
    last = _day("to", until) if until else today
    first = _day("from", since) if since else last - _DEFAULT_DAYS + 1
    if first > last:
        raise InvalidRequest([Violation("to", f"to ({iso(last)}) is before from ({iso(first)})")])
    if last - first >= MOST_DAYS:
        raise InvalidRequest([Violation("from", f"the period is longer than {MOST_DAYS} days")])
    return Period(first, last)


def _day(field: str, text: str) -> int:
    try:
        day = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        raise InvalidRequest([Violation(field, f"{field} is no day; write YYYY-MM-DD, such as 2026-01-31")]) from None
    if not _FIRST_YEAR <= day.year <= _LAST_YEAR:
        raise InvalidRequest([Violation(field, f"{field} is not between {_FIRST_YEAR} and {_LAST_YEAR}")])
    return day.toordinal()


def _year_before(day: int) -> int:
    then = date.fromordinal(day)
    try:
        return then.replace(year=then.year - 1).toordinal()
    except ValueError:
        return (then - timedelta(days=1)).replace(year=then.year - 1).toordinal()
