"""The figures of a period and their definitions: the only place that defines them. `docs/metrics.md` shows the same."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Final, TypeAlias

from services.analytics.counts import Revenue, Traffic
from services.analytics.orders import UNIT

MONEY: Final = "money"
"""Unit of an amount in the shop's base currency."""
RATIO: Final = "ratio"
SECONDS: Final = "seconds"
Number: TypeAlias = int | Fraction | None


@dataclass(frozen=True, slots=True)
class Summary:
    """What the figures of a period are computed from."""

    traffic: Traffic = field(default_factory=Traffic)
    revenue: Revenue = field(default_factory=Revenue)
    visitors: int = 0
    customers: int = 0
    new_customers: int = 0
    steps: Mapping[str, int] = field(default_factory=dict[str, int])
    """Members of the steps of the funnel, by audience."""

    @property
    def net(self) -> int:
        """Net revenue in ten-thousandths of the base currency."""
        return self.revenue.base_gross - self.revenue.base_refunds + self.revenue.base_corrections


@dataclass(frozen=True, slots=True)
class Definition:
    """A figure."""

    key: str
    unit: str
    """What it counts; MONEY stands for the base currency."""
    text: str
    """What it means."""
    value: Callable[[Summary], Number]
    """Computes it; None where it has no base."""
    facts: Callable[[Summary], int]
    """The number of facts from which it is derived."""


def ratio(part: int, whole: int) -> Fraction | None:
    """Returns a part of a whole; None of nothing."""
    return Fraction(part, whole) if whole else None


def money(amount: int) -> Fraction:
    """Converts ten-thousandths to an amount."""
    return Fraction(amount, UNIT)


def _amount(name: str) -> Callable[[Summary], Number]:
    return lambda of: money(getattr(of.revenue, name))


def _sessions(of: Summary) -> int:
    return of.traffic.visits


def _orders(of: Summary) -> int:
    return of.revenue.orders


def _entries(of: Summary) -> int:
    return of.revenue.entries


def _per_visitor(of: Summary) -> Number:
    return Fraction(of.net, UNIT * of.visitors) if of.visitors else None


def _per_order(of: Summary) -> Number:
    return Fraction(of.revenue.base_gross, UNIT * of.revenue.orders) if of.revenue.orders else None


FIGURES: Final = (
    Definition(
        "visitors",
        "visitors",
        "Persons with at least one session event in the period; each counts once. A visitor nobody has identified is a session id, or"
        " for one day a keyed hash of network and browser. Visitors who denied analytics are not counted: nothing recognises them.",
        lambda of: of.visitors,
        _sessions,
    ),
    Definition(
        "sessions",
        "sessions",
        "Sessions that began in the period. 30 minutes without an event, another campaign or partner, or a"
        " thousand events begin a new one; midnight does not.",
        _sessions,
        _sessions,
    ),
    Definition(
        "page_views",
        "page views",
        "Events that show a page, those without a person included.",
        lambda of: of.traffic.page_views,
        lambda of: of.traffic.page_views,
    ),
    Definition(
        "bounce_rate",
        RATIO,
        "Sessions with one page view at most, of all sessions.",
        lambda of: ratio(of.traffic.bounces, of.traffic.visits),
        _sessions,
    ),
    Definition(
        "session_seconds",
        SECONDS,
        "Average time from the first event of a session to its last, in whole seconds each.",
        lambda of: ratio(of.traffic.seconds, of.traffic.visits),
        _sessions,
    ),
    Definition(
        "leads",
        "leads",
        "Events by which a visitor leaves an address, such as `lead_capture`.",
        lambda of: of.traffic.leads,
        lambda of: of.traffic.leads,
    ),
    Definition(
        "registrations",
        "users",
        "Users who registered in the period.",
        lambda of: of.traffic.registrations,
        lambda of: of.traffic.registrations,
    ),
    Definition(
        "enrolments",
        "enrolments",
        "Events by which a user enrols in a course, such as `course_enrolled`.",
        lambda of: of.traffic.enrolments,
        lambda of: of.traffic.enrolments,
    ),
    Definition(
        "completions",
        "completions",
        "Events by which a user completes a course, such as `course_completed`.",
        lambda of: of.traffic.completions,
        lambda of: of.traffic.completions,
    ),
    Definition(
        "orders", "orders", "Orders sold in the period: paid for the first time, even if refunded or reversed since.", _orders, _orders
    ),
    Definition(
        "gross_revenue",
        MONEY,
        "Payments for orders sold in the period, including taxes and shipping, before refunds.",
        _amount("base_gross"),
        _entries,
    ),
    Definition(
        "discounts",
        MONEY,
        "Discounts on orders sold in the period, without taxes, as last reported: gross revenue is what remained to be paid.",
        _amount("base_discounts"),
        _orders,
    ),
    Definition(
        "taxes",
        MONEY,
        "Taxes in the totals of orders sold in the period, as last reported. Refunds and corrections do not reduce them.",
        _amount("base_taxes"),
        _orders,
    ),
    Definition(
        "shipping",
        MONEY,
        "Shipping in the totals of orders sold in the period, without taxes, as last reported.",
        _amount("base_shipping"),
        _orders,
    ),
    Definition("refunds", MONEY, "Refunds and chargebacks in the period, by their own dates.", _amount("base_refunds"), _entries),
    Definition(
        "corrections",
        MONEY,
        "Corrections in the period, signed, by their own dates: orders that were cancelled, edited or restored, payments that bounced,"
        " refunds that were deleted.",
        _amount("base_corrections"),
        _entries,
    ),
    Definition("net_revenue", MONEY, "Gross revenue less refunds, with corrections.", lambda of: money(of.net), _entries),
    Definition("average_order_value", MONEY, "Gross revenue per order sold.", _per_order, _orders),
    Definition(
        "conversion_rate",
        RATIO,
        "Orders sold per session.",
        lambda of: ratio(of.revenue.orders, of.traffic.visits),
        lambda of: of.traffic.visits + of.revenue.orders,
    ),
    Definition("revenue_per_visitor", MONEY, "Net revenue per visitor.", _per_visitor, _entries),
    Definition("customers", "customers", "Persons with an order sold in the period; each counts once.", lambda of: of.customers, _orders),
    Definition(
        "new_customers", "customers", "Customers whose first order of all was sold in the period.", lambda of: of.new_customers, _orders
    ),
    Definition(
        "returning_customers",
        "customers",
        "Customers who had an order sold before the period as well.",
        lambda of: of.customers - of.new_customers,
        _orders,
    ),
)
"""All figures of a period, in the order in which they are shown."""
DEFINITIONS: Final = {each.key: each for each in FIGURES}
