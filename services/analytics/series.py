"""The course of figures over a period, at a fitting grain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from pmp.analytics.v1 import analytics_pb2 as pb
from pmp.analytics.v1 import courses_pb2

from services.analytics.counts import COURSE, HOUR, VISITORS, Revenue, Traffic, added, audience
from services.analytics.days import Calendar, Period, iso
from services.analytics.figures import Summary, money
from services.analytics.repository import Reading

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
    traffic, revenue = await reading.traffic_by_key(keys), await reading.revenue_by_key(keys)
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
    traffic, revenue = await reading.traffic_by_key(keys, COURSE, course), await reading.revenue_by_key(keys, COURSE, course)
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
    traffic, revenue = await reading.traffic_by_key([*hours], HOUR), await reading.revenue_by_key([*hours], HOUR)
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
        return {part.first: (await reading.members(part, [name])).get(name, 0) for part in period.months()}
    return await reading.members_by_day(period, name)


def _summary(part: Period, traffic: Mapping[int, Traffic], revenue: Mapping[int, Revenue]) -> Summary:
    of_site, of_orders = Traffic(), Revenue()
    for key in part.keys_of_totals():
        of_site = added(of_site, traffic[key]) if key in traffic else of_site
        of_orders = added(of_orders, revenue[key]) if key in revenue else of_orders
    return Summary(of_site, of_orders)
