"""The reports: their groups, their columns, and what of them a request asks for."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Final, Protocol, TypeAlias

from kit.errors import InvalidRequest, Violation
from services.analytics.columns import TEXT, Column, Report, figure
from services.analytics.counts import CAMPAIGN, COUNTRY, COURSE, DEVICE, LANDING, MEDIUM, PAGE, PRODUCT, SOURCE, Revenue
from services.analytics.course_reports import COURSE_REPORTS
from services.analytics.figures import DEFINITIONS, MONEY, Number, Summary
from services.analytics.order_reports import ORDER_REPORTS
from services.analytics.orders import Order

_DEFAULT_ROWS: Final = 100
Value: TypeAlias = str | Number
Row: TypeAlias = dict[str, Value]


class Query(Protocol):
    """What requests of reports have in common."""

    report: str
    model: str
    group_by: str
    filter: str
    sort: str
    page_size: int
    offset: int
    include: str


_QUANTITY: Final = Column("quantity", "pieces", "Pieces in orders sold in the period.")
_AMOUNTS: Final = [
    figure(key)
    for key in (
        *("orders", "gross_revenue", "discounts", "taxes", "shipping"),
        *("refunds", "corrections", "net_revenue"),
    )
]
_GROUPS: Final = {
    SOURCE: "Where sessions and orders came from: `(direct)` for sessions without a source, the campaign reported with"
    " an order, else the source of the session in which it was bought, else `(unknown)`. Events without a session are in no row.",
    MEDIUM: "Kind of the traffic: cpc, email, organic; `(none)` for none.",
    CAMPAIGN: "Campaign of sessions and orders; those without one are in no row.",
    DEVICE: "desktop, mobile or tablet; empty when unknown.",
    LANDING: "Path of the first page of a session.",
}
_SALES: Final = {"orders", "net_revenue", "conversion_rate"}
FIRST_SOURCE: Final = (
    "Where the customer's first session came from: `(direct)` for a session without a source. The source of the first order if that is"
    " older, as imported ones may be, or if no session is known; `(unknown)` without either. Sessions count as long as they are kept."
)
REPORTS: Final = {
    each.name: each
    for each in (
        Report(
            "revenue",
            {
                "day": "Day, in the site's time zone.",
                "month": "Month, YYYY-MM.",
                "currency": "ISO 4217 code of the orders' currency.",
                COUNTRY: "ISO 3166-1 alpha-2 code of the country of the orders' billing addresses; `(unknown)` for none. Countries of"
                " visitors are not known: no address is looked up.",
            },
            [*_AMOUNTS, _QUANTITY],
            "",
        ),
        Report(
            "acquisition",
            _GROUPS,
            [
                figure(key)
                for key in (
                    *("visitors", "sessions", "page_views", "bounce_rate", "session_seconds", "leads"),
                    *("enrolments", "orders", "net_revenue", "conversion_rate"),
                )
            ],
            "-sessions",
            {
                MEDIUM: {"visitors"},
                DEVICE: {"visitors", *_SALES},
                LANDING: {"visitors", "page_views", "leads", "enrolments", *_SALES},
            },
        ),
        Report(
            "content",
            {PAGE: "Path of the page.", COURSE: "The course that an event is about."},
            [figure(key) for key in ("page_views", "visitors", "leads", "enrolments")],
            "-page_views",
            {PAGE: {"visitors", "leads", "enrolments"}},
        ),
        Report(
            "products",
            {PRODUCT: "The shop's id of the product."},
            [
                Column("title", TEXT, "Its title in the last order with it."),
                figure("orders"),
                _QUANTITY,
                Column("revenue", MONEY, "Amount of its lines in orders sold in the period, at the rates of these orders."),
            ],
            "-revenue",
        ),
        Report(
            "customers",
            {"customer": "The person with an order sold in the period; `email:` and a keyed hash for a guest."},
            [
                Column("orders", "orders", "All orders sold to the customer."),
                Column("lifetime_value", MONEY, "Net revenue of all orders sold to the customer."),
                Column("first_order", "day", "Day of the first of them."),
                Column("last_order", "day", "Day of the last of them."),
                Column("first_source", TEXT, FIRST_SOURCE),
            ],
            "-lifetime_value",
        ),
        *ORDER_REPORTS,
        *COURSE_REPORTS,
        Report(
            "attribution",
            {each: f"{_GROUPS[each]} `(none)` for orders without a known session." for each in (SOURCE, MEDIUM, CAMPAIGN)},
            [
                Column("orders", "orders", "Its share of the orders paid in the period: 0.4 for 40 % of one order."),
                Column(
                    "revenue",
                    MONEY,
                    "Its share of what was paid for these orders less what was refunded of them to date, by the model of the request:"
                    " `model`, by default `last_non_direct`. A path has the sessions of a person since the order before, of 90 days at"
                    " most. Orders without an exchange rate are left out.",
                ),
            ],
            "-revenue",
        ),
    )
}


def report_of(query: Query) -> tuple[Report, str]:
    """Returns the report of a request and its group.

    Raises:
        InvalidRequest: there is no such report, or it has no such group or column; the message names those that exist.
    """
    report = REPORTS.get(query.report)
    if report is None:
        raise InvalidRequest([Violation("report", f"there is no such report; there are {_listed(REPORTS)}")])
    group = query.group_by or next(iter(report.groups))
    if group not in report.groups:
        raise InvalidRequest([Violation("group_by", f"{report.name} can be grouped by {_listed(report.groups)}")])
    keys = [column.key for column in report.of(group)]
    if query.sort and query.sort.removeprefix("-") not in keys:
        raise InvalidRequest(
            [Violation("sort", f"{report.name} by {group} can be sorted by {_listed(keys)}, with a - from the largest down")]
        )
    return report, group


def page_of(query: Query, report: Report, group: str, rows: Iterable[Row]) -> tuple[Sequence[Row], int]:
    """Returns the rows that a request asks for, filtered, sorted and cut, and the number of rows on all pages."""
    wanted = query.filter.casefold()
    found = sorted((row for row in rows if wanted in str(row[group]).casefold()), key=lambda row: str(row[group]))
    order = query.sort or report.order
    if key := order.removeprefix("-"):
        found.sort(key=lambda row: _rank(row[key]), reverse=order.startswith("-"))
    return found[query.offset :][: query.page_size or _DEFAULT_ROWS], len(found)


def figures_of(columns: Iterable[Column], summary: Summary) -> Row:
    """Returns the values of those columns that are figures."""
    return {column.key: DEFINITIONS[column.key].value(summary) for column in columns if column.key in DEFINITIONS}


def own_amounts(figures: Revenue) -> Revenue:
    """Returns figures of orders with the amounts of their own currency in the place of the base currency's."""
    return Revenue(
        orders=figures.orders,
        quantity=figures.quantity,
        base_gross=figures.gross,
        base_refunds=figures.refunds,
        base_corrections=figures.corrections,
        base_discounts=figures.discounts,
        base_taxes=figures.taxes,
        base_shipping=figures.shipping,
    )


def new_by_coupon(bought: Iterable[tuple[str, str, int, str]], first_day: str, last_day: str) -> Mapping[str, int]:
    """Returns how many new customers used each coupon.

    Args:
        bought: customer, day, net revenue and payload of each order of the customers of a period, oldest first.
        first_day: of the period, YYYY-MM-DD.
        last_day: of the period.
    """
    first: dict[str, str] = {}
    users: dict[str, set[str]] = defaultdict(set)
    for customer, day, _, payload in bought:
        if first_day <= first.setdefault(customer, day) and day <= last_day:
            for coupon in Order.loads(payload).breakdown.coupons:
                users[coupon].add(customer)
    return {coupon: len(customers) for coupon, customers in users.items()}


def as_csv(columns: Sequence[Column], rows: Iterable[Mapping[str, Any]]) -> bytes:
    """Renders a report as CSV, with a header. A text that a spreadsheet would take for a formula is preceded by an apostrophe."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([column.key for column in columns])
    writer.writerows([[_cell(row[column.key]) for column in columns] for row in rows])
    return text.getvalue().encode()


def _cell(value: str | float | None) -> str | float:
    if value is None:
        return ""
    if isinstance(value, str) and value[:1] in _FORMULAS:
        return f"'{value}"
    return value


_FORMULAS: Final = ("=", "+", "-", "@", "\t", "\r")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names)


def _rank(value: Value) -> tuple[bool, Any]:
    """Orders values; None comes before all others."""
    return value is not None, float(value or 0) if isinstance(value, Fraction | None) else value
