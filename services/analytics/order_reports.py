"""The reports of what orders consist of, and of who brought the buyers."""

from __future__ import annotations

from typing import Final

from services.analytics.cohorts import FIRST_ORDER, REGISTRATION
from services.analytics.columns import Column, Report, figure
from services.analytics.counts import AFFILIATE, COUPON
from services.analytics.figures import MONEY, RATIO

_AMOUNTS: Final = ("refunds", "corrections", "net_revenue")

ORDER_REPORTS: Final = (
    Report(
        "coupons",
        {COUPON: "Code of the coupon, in lower case. An order with several counts for each of them; one without is in no row."},
        [
            figure("orders"),
            Column(
                "discounts",
                MONEY,
                "Discounts on orders sold in the period with the coupon, without taxes: all of them, also those by other coupons.",
            ),
            Column(
                "new_customers",
                "customers",
                "Customers with an order sold in the period with the coupon, whose first order of all was sold in it as well.",
            ),
            figure("gross_revenue"),
            *map(figure, _AMOUNTS),
        ],
        "-net_revenue",
    ),
    Report(
        "affiliates",
        {
            AFFILIATE: "Code of the affiliate, in lower case. An order is credited to one at most: to whom the settings assign one of its"
            " coupons (of several, the first in the alphabet); else to the code of the query parameter `ref` that the order was reported"
            " with; else to whom the settings assign its source; else to the source itself if its medium is one of affiliates.",
        },
        [
            figure("orders"),
            figure("gross_revenue"),
            *map(figure, _AMOUNTS),
            Column(
                "commission",
                MONEY,
                "The affiliate's rate, on the day of the sale, of net revenue without the part that taxes and shipping have in the order's"
                " total. Refunds and corrections take back their part of it, by their own dates.",
            ),
        ],
        "-net_revenue",
    ),
    Report(
        "cohorts",
        {
            FIRST_ORDER: "Month of the first order of all of these customers, YYYY-MM. The months of the period are taken as a whole.",
            REGISTRATION: "Month in which these persons registered, YYYY-MM. The months of the period are taken as a whole.",
        },
        [
            Column("months_later", "months", "Months since the cohort's: there is a row for 0 and for each up to the last of the period."),
            Column("persons", "persons", "All persons of the cohort."),
            Column("buyers", "persons", "Those of them with an order sold in the month."),
            Column("retention", RATIO, "Buyers of all persons of the cohort."),
            Column("net_revenue", MONEY, "Net revenue of the cohort in the month: refunds and corrections count by their own dates."),
        ],
        "",
    ),
)
