"""The figures of a course, and of what led to it, with their definitions: the only place that defines them."""

from __future__ import annotations

from typing import Final

from services.analytics.figures import MONEY, RATIO, Definition, Summary, money, ratio


def _entries(of: Summary) -> int:
    return of.revenue.entries


PART: Final = (
    "A line of an order counts for each of its courses in equal parts, and a course's part of a payment, refund or correction is that of"
    " its lines in what was paid for the order"
)
"""How amounts of orders are split over courses."""
COURSE_FIGURES: Final = (
    Definition(
        "page_views",
        "page views",
        "Page views about the course: of its pages, its lessons, or a product of it alone.",
        lambda of: of.traffic.page_views,
        lambda of: of.traffic.page_views,
    ),
    Definition(
        "visitors",
        "visitors",
        "Persons with a page view, a lead, an enrolment or another step towards the course in the period; each counts once.",
        lambda of: of.visitors,
        lambda of: of.traffic.events,
    ),
    Definition(
        "enrolments",
        "enrolments",
        "Events by which a user enrols in the course, such as `course_enrolled`.",
        lambda of: of.traffic.enrolments,
        lambda of: of.traffic.enrolments,
    ),
    Definition(
        "completions",
        "completions",
        "Events by which a user completes the course, such as `course_completed`; 0 where the shop reports none.",
        lambda of: of.traffic.completions,
        lambda of: of.traffic.completions,
    ),
    Definition(
        "orders",
        "orders",
        "Orders sold in the period with a product that gives access to the course.",
        lambda of: of.revenue.orders,
        lambda of: of.revenue.orders,
    ),
    Definition(
        "gross_revenue",
        MONEY,
        f"The course's part of the payments for orders sold in the period. {PART}.",
        lambda of: money(of.revenue.base_gross),
        _entries,
    ),
    Definition(
        "refunds",
        MONEY,
        "The course's part of refunds and chargebacks in the period, by their own dates.",
        lambda of: money(of.revenue.base_refunds),
        _entries,
    ),
    Definition(
        "net_revenue",
        MONEY,
        "Gross revenue less refunds, with the course's part of corrections.",
        lambda of: money(of.net),
        _entries,
    ),
    Definition(
        "conversion",
        RATIO,
        "Orders sold with the course per visitor of the course.",
        lambda of: ratio(of.revenue.orders, of.visitors),
        lambda of: of.traffic.events + of.revenue.orders,
    ),
)
"""The figures of a course, in the order in which they are shown."""
_KIND: Final = (
    "`landing_page`: the first page of the session. `video`: the first video that the session states, `video_id` of an event or"
    " `utm_content` of a link. `campaign` and `source`: those of the session, or of an order that was reported with its own."
)
_ORDERS: Final = (
    "Orders with the course sold in the period whose session came by the content: of those with the id that the order was reported with,"
    " the last one that began before the sale. Contents of earlier sessions do not count; orders without a session count for a campaign and"
    " source of their own alone."
)
CONTENT_COLUMNS: Final = (
    ("kind", "text", _KIND),
    ("content", "text", "The path of the page, the id of the video, the campaign or the source."),
    ("course", "text", "The course's id."),
    ("title", "text", "The course's title, as the last enrolment in it or the last order of it alone states it."),
    ("sessions", "sessions", "Sessions that began in the period, came by the content and had an event about the course."),
    ("orders", "orders", _ORDERS),
    ("gross_revenue", MONEY, f"The course's part of the payments for these orders. {PART}."),
    ("refunds", MONEY, "The course's part of their refunds and chargebacks in the period, by their own dates."),
    ("net_revenue", MONEY, "Gross revenue less refunds, with the course's part of corrections."),
)
"""The columns of content performance: key, unit and definition. Rows of one kind add up, those of different kinds do not: each order has at
most one content of each kind. It is not known whether a content caused a sale."""
