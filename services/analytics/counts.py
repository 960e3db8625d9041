"""What facts add to the totals by day: every total is the sum of what its facts count as."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Final, TypeAlias, TypeVar

from services.analytics.days import Calendar, month_number, month_of

SITE: Final = "site"
SOURCE: Final = "source"
MEDIUM: Final = "medium"
CAMPAIGN: Final = "campaign"
LANDING: Final = "landing_page"
PAGE: Final = "page"
COURSE: Final = "course"
DEVICE: Final = "device"
PRODUCT: Final = "product"
COUNTRY: Final = "country"
COUPON: Final = "coupon"
AFFILIATE: Final = "affiliate"
VIDEO: Final = "video"
HOUR: Final = "hour"
"""The whole site by the hour instead of the day: `Calendar.hour` is in the place of the day."""

VISITORS: Final = "visitors"
"""The audience of all visitors."""
CUSTOMERS: Final = "customers"
"""The audience of all buyers, on the days of their sales."""
VIEWED: Final = "viewed"
"""The audience of visitors who viewed a course or a product, or went further."""
IN_CHECKOUT: Final = "checkout"
"""The audience of visitors who filled a cart or began a checkout, or bought."""
PURCHASED: Final = "purchased"
"""The audience of visitors who bought in one of their sessions, on a day of that session."""
NEVER: Final = 0
"""The previous day of a member of an audience who was not in it before."""
EACH_DAY: Final = 0
"""Under it an audience has a cell for each day with all its members of that day, which stands in the place of the previous day."""

TrafficKey: TypeAlias = tuple[str, int, str]
"""Dimension, day, value."""
RevenueKey: TypeAlias = tuple[str, int, str, str]
"""Dimension, day, value, currency."""
ContentKey: TypeAlias = tuple[str, int, str, str]
"""Dimension, day, course, value."""
Presence: TypeAlias = tuple[str, str, int]
"""An audience, an identifier that was in it, and the day."""


@dataclass(slots=True)
class Traffic:
    """Figures of the site."""

    visits: int = 0
    """Sessions that began."""
    bounces: int = 0
    seconds: int = 0
    page_views: int = 0
    events: int = 0
    leads: int = 0
    registrations: int = 0
    enrolments: int = 0
    completions: int = 0


@dataclass(slots=True)
class Revenue:
    """Figures of orders. Amounts are in ten-thousandths of the currency, so that sums of them are exact."""

    orders: int = 0
    quantity: int = 0
    gross: int = 0
    refunds: int = 0
    corrections: int = 0
    base_gross: int = 0
    base_refunds: int = 0
    base_corrections: int = 0
    entries: int = 0
    unrated: int = 0
    discounts: int = 0
    taxes: int = 0
    shipping: int = 0
    base_discounts: int = 0
    base_taxes: int = 0
    base_shipping: int = 0
    base_commissions: int = 0
    """Of affiliates alone."""


@dataclass(slots=True)
class Spending:
    """What a customer bought in a month, or that she registered in it."""

    orders: int = 0
    """Orders sold."""
    net: int = 0
    """Net revenue in ten-thousandths of the base currency, each entry by its own date."""
    registrations: int = 0


@dataclass(slots=True)
class Content:
    """What led to a course. Amounts are in ten-thousandths of the base currency."""

    visits: int = 0
    """Sessions in which the course was seen, by what led to them."""
    orders: int = 0
    """Orders with the course, by what led to the session in which they were bought."""
    base_gross: int = 0
    base_refunds: int = 0
    base_corrections: int = 0


Figures = TypeVar("Figures", Traffic, Revenue, Content)


def named(figures: Traffic | Revenue | Content) -> dict[str, int]:
    """Returns figures by name."""
    return {name: getattr(figures, name) for name in NAMES[type(figures)]}


def added(figures: Figures, others: Figures) -> Figures:
    """Returns the sum of figures."""
    ours, theirs = named(figures), named(others)
    return type(figures)(**{name: count + theirs[name] for name, count in ours.items()})


def times(figures: Figures, number: int) -> Figures:
    """Returns figures so many times."""
    return type(figures)(**{name: count * number for name, count in named(figures).items()})


NAMES: Final = {kind: tuple(each.name for each in fields(kind)) for kind in (Traffic, Revenue, Content)}
"""The figures of each kind."""
TRAFFIC: Final = NAMES[Traffic]
REVENUE: Final = NAMES[Revenue]


class Counts:
    """Additions to totals and audiences.

    Args:
        calendar: assigns times to days.
    """

    def __init__(self, calendar: Calendar) -> None:
        self.calendar = calendar
        self.traffic: dict[TrafficKey, Traffic] = {}
        self.revenue: dict[RevenueKey, Revenue] = {}
        self.content: dict[ContentKey, Content] = {}
        self.presences: dict[Presence, int] = {}
        """How many facts show an identifier in an audience on a day."""
        self.spending: dict[tuple[str, int], Spending] = {}
        """What identifiers bought, by month."""

    def add_traffic(self, dimension: str, value: str, day: int, figures: Traffic, times: int) -> None:
        """Adds figures so many times."""
        key = (dimension, day, value)
        total = self.traffic.get(key)
        if total is None:
            total = self.traffic[key] = Traffic()
        total.visits += figures.visits * times
        total.bounces += figures.bounces * times
        total.seconds += figures.seconds * times
        total.page_views += figures.page_views * times
        total.events += figures.events * times
        total.leads += figures.leads * times
        total.registrations += figures.registrations * times
        total.enrolments += figures.enrolments * times
        total.completions += figures.completions * times

    def revenue_of(self, dimension: str, value: str, day: int, currency: str) -> Revenue:
        """Returns the figures to add to."""
        return self.revenue.setdefault((dimension, day, value, currency), Revenue())

    def spending_of(self, subject: str, day: int) -> Spending:
        """Returns what is added to the month of a day of an identifier."""
        return self.spending.setdefault((subject, month_number(day)), Spending())

    def content_of(self, dimension: str, value: str, day: int, course: str) -> Content:
        """Returns the figures to add to."""
        return self.content.setdefault((dimension, day, course, value), Content())

    def add_presence(self, presence: Presence, times: int) -> None:
        """Adds a fact that shows an identifier in an audience."""
        self.presences[presence] = self.presences.get(presence, 0) + times


def audience(dimension: str, value: str) -> str:
    """Returns the name of the audience of one source, campaign or course."""
    return f"{dimension} {value}"


def cells(days: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yields the days on which a member was in an audience, each with the day before on which it was, or NEVER.

    The members of [a, b] are those with a cell whose day is in [a, b] and whose previous day is before a: each counts once, at its
    first day in the period. So counts of cells give exact numbers for any period.
    """
    yield from ((day, previous) for previous, day in pairwise([NEVER, *sorted(days)]))


def keys_of_cells(days: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Yields the day or month and the previous day of all cells that count a member.

    Each cell counts by its day. The cells of a month count together as well, so that a year is read from a few hundred of them; without
    those whose previous day is in the same month, since a period that has the whole month has that day, too. And each day counts all its
    members.
    """
    for day, previous in cells(days):
        yield day, previous
        yield EACH_DAY, day
        month = month_of(day)
        if previous == NEVER or month_of(previous) != month:
            yield month, previous
