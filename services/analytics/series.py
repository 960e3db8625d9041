"""The course of figures over a period, at a fitting grain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import Final

from pmp.analytics.v1 import analytics_pb2 as pb
from pmp.analytics.v1 import courses_pb2

from services.analytics.counts import COURSE, HOUR, VISITORS, Figures, Revenue, Traffic, added, audience, times
from services.analytics.days import Calendar, Period, iso
from services.analytics.figures import Summary, money
from services.analytics.reading import SALES, VISITS, Members, Reading

BY_HOUR: Final = "hour"
BY_DAY: Final = "day"
BY_MONTH: Final = "month"
_MOST_DAYS_BY_HOUR: Final = 2
_MOST_DAYS_BY_DAY: Final = 400


def grain_of(period: Period, *, by_hour: bool = True) -> str:
    """Returns what a point of a period stands for.

    Args:
        period: the period.
        by_hour: whether there are figures by the hour.
    """
    length = len(period.days())
    if by_hour and length <= _MOST_DAYS_BY_HOUR:
        return BY_HOUR
    return BY_DAY if length <= _MOST_DAYS_BY_DAY else BY_MONTH


async def of_site(reading: Reading, calendar: Calendar, period: Period) -> Sequence[pb.DayFigures]:
    """Returns the figures of the whole site, one point for each hour, day or month."""
    if grain_of(period) == BY_HOUR:
        return await _by_hour(reading, calendar, period)
    parts = _parts(period)
    visitors = await _visitors(reading, period, VISITORS)
    keys = [key for part in parts for key in part.keys_of_totals()]
    traffic, revenue = await reading.traffic_by_key(keys, names=VISITS), await reading.revenue_by_key(keys, names=SALES)
    return [
        pb.DayFigures(
            day=iso(part.first),
            visitors=visitors.get(part.first, 0),
            sessions=(of := _summary(part, traffic, revenue)).traffic.visits,
            page_views=of.traffic.page_views,
            orders=of.revenue.orders,
            net_revenue=float(money(of.net)),
        )
        for part in parts
    ]


async def of_course(reading: Reading, period: Period, course: str) -> Sequence[courses_pb2.CourseFigures]:
    """Returns the figures of a course, one point for each day or month."""
    parts = _parts(period)
    visitors = await _visitors(reading, period, audience(COURSE, course))
    keys = [key for part in parts for key in part.keys_of_totals()]
    traffic = await reading.traffic_by_key(keys, COURSE, course)
    revenue = await reading.revenue_by_key(keys, COURSE, course, names=SALES)
    return [
        courses_pb2.CourseFigures(
            day=iso(part.first),
            visitors=visitors.get(part.first, 0),
            page_views=(of := _summary(part, traffic, revenue)).traffic.page_views,
            enrolments=of.traffic.enrolments,
            completions=of.traffic.completions,
            orders=of.revenue.orders,
            net_revenue=float(money(of.net)),
        )
        for part in parts
    ]


async def _by_hour(reading: Reading, calendar: Calendar, period: Period) -> Sequence[pb.DayFigures]:
    hours = calendar.hours(period)
    traffic, revenue = await reading.traffic_by_key([*hours], HOUR, names=VISITS), await reading.revenue_by_key([*hours], HOUR, names=SALES)
    return [
        pb.DayFigures(
            day=start.date().isoformat(),
            hour=start.isoformat(),
            sessions=(of := Summary(traffic.get(hour, Traffic()), revenue.get(hour, Revenue()))).traffic.visits,
            page_views=of.traffic.page_views,
            orders=of.revenue.orders,
            net_revenue=float(money(of.net)),
        )
        for hour, start in hours.items()
    ]


def _parts(period: Period) -> Sequence[Period]:
    """Returns a period's days, or its months."""
    if grain_of(period, by_hour=False) == BY_MONTH:
        return period.months()
    return [Period(day, day) for day in period.days()]


async def _visitors(reading: Reading, period: Period, name: str) -> Mapping[int, int]:
    """Returns the members of an audience by the first day of each part of a period."""
    if grain_of(period, by_hour=False) == BY_MONTH:
        return {part.first: (await reading.members(part, [name])).get(name, Members()).all for part in period.months()}
    return await reading.members_by_day(period, name)


def _summary(part: Period, traffic: Mapping[int, Traffic], revenue: Mapping[int, Revenue]) -> Summary:
    return Summary(_total(part, traffic, Traffic()), _total(part, revenue, Revenue()))


def _total(part: Period, figures: Mapping[int, Figures], nothing: Figures) -> Figures:
    """Returns the figures of a part of a period, of those by the keys of totals."""
    if part.first == part.last:
        return figures.get(part.first, nothing)
    return reduce(added, (times(figures[key], -1 if key > part.last else 1) for key in part.keys_of_totals() if key in figures), nothing)
