"""What the orders of a generated shop consist of, and their figures computed by DuckDB: independent of the service's own code."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from typing import Any

from pmp.purchases.v1 import change_pb2

AFFILIATES = {
    "affiliates": {
        "Ada": {"rate": {"2026-03-20": 0.1, "2026-03-30": 0.2}, "coupons": ["ADA10"]},
        "grace": {"rate": 0.15, "coupons": ["zero"], "sources": ["newsletter"]},
        "partner7": {"rate": 0.125},
    },
    "default_rate": 0.05,
    "media": ["affiliate", "organic"],
}
"""`PMP_SITE_AFFILIATES`; `_CREDITED` says the same in SQL."""
DETAILS = (
    "total, discounts, taxes, shipping, base_discounts, base_taxes, base_shipping, country, referral",
    ("total", "discounts", "taxes", "shipping", "base_discounts", "base_taxes", "base_shipping"),
)
"""Columns of an order, and those of them that are amounts."""


def break_down(change: change_pb2.PurchaseChanged, number: int, rounded: Callable[[Decimal, str], Decimal], rate: Decimal | None) -> None:
    """States what an order consists of: of some orders much, of some nothing.

    Args:
        change: the order with its lines; changed in place.
        number: decides what is stated.
        rounded: rounds an amount to the minor unit of a currency.
        rate: units of the order's currency for one of the base currency; None for none.
    """
    total = sum((Decimal(line.amount) for line in change.lines), Decimal(0))
    change.amount = f"{total}"
    stated = {
        "discount_total": total / 9 if number % 2 == 0 else None,
        "tax_total": total * 19 / 119 if number % 4 else None,
        "shipping_total": total / 23 if number % 5 < 2 else None,
    }
    for name, value in stated.items():
        if value is not None:
            own = rounded(value, change.currency)
            setattr(change, name, f"{own}")
            setattr(change, f"base_{name}", "" if rate is None else f"{rounded(own / rate, 'USD')}")
    coupons = {"spring10": number % 4 == 0, "ada10": number % 6 == 0, "zero": number % 12 == 0}
    change.coupon_codes.extend(code for code, is_used in coupons.items() if is_used)
    change.country = ("DE", "CH", "", "US")[number % 4]
    change.referral_code = ("PARTNER7", "", "other-blog", "", "")[number % 5]


def details_of(change: change_pb2.PurchaseChanged) -> tuple[Any, ...]:
    """Returns the values of DETAILS."""
    amounts = (change.amount, change.discount_total, change.tax_total, change.shipping_total)
    base = (change.base_discount_total, change.base_tax_total, change.base_shipping_total)
    return (*(Decimal(each or 0) for each in (*amounts, *base)), change.country or "(unknown)", change.referral_code)


def keyed(rows: Sequence[Mapping[str, Any]], group: str) -> Mapping[Any, Mapping[str, Any]]:
    """Returns the rows of a report by group, those of cohorts by group and the months since."""
    keys = [row[group] if "months_later" not in row else (row[group], row["months_later"]) for row in rows]
    assert len(set(keys)) == len(keys)
    return {
        key: {name: value for name, value in row.items() if name not in (group, "months_later")}
        for key, row in zip(keys, rows, strict=True)
    }


_CREDITED = """
CREATE TABLE credited AS
WITH found AS (
    SELECT orders.*, COALESCE(
        CASE WHEN list_contains(codes, 'ada10') THEN 'ada' WHEN list_contains(codes, 'zero') THEN 'grace' END,
        NULLIF(lower(referral), ''),
        CASE WHEN source = 'newsletter' THEN 'grace' WHEN medium IN ('affiliate', 'organic') THEN source END
    ) AS affiliate
    FROM orders LEFT JOIN (SELECT id, LIST(coupon) AS codes FROM coupons GROUP BY 1) USING (id)
)
SELECT found.*, CASE affiliate
    WHEN 'ada' THEN CASE WHEN day(ts) >= '2026-03-30' THEN 0.2 WHEN day(ts) >= '2026-03-20' THEN 0.1 ELSE 0 END
    WHEN 'grace' THEN 0.15 WHEN 'partner7' THEN 0.125 ELSE 0.05 END AS rate
FROM found WHERE affiliate IS NOT NULL;

UPDATE coupons SET coupon = '(other)' WHERE id IN (SELECT id FROM orders WHERE subject IN (FROM erased));
UPDATE credited SET affiliate = '(other)' WHERE subject IN (FROM erased) AND affiliate NOT IN ('ada', 'grace', 'partner7');

CREATE TABLE commissions AS
SELECT id, kind, ts, base, affiliate, commission - LAG(commission, 1, 0) OVER (PARTITION BY id ORDER BY number) AS commission FROM (
    SELECT id, kind, entries.ts, base, affiliate, entries.rowid AS number, round(
        COALESCE(SUM(base) OVER (PARTITION BY id ORDER BY entries.rowid), 0) * CAST(total - taxes - shipping AS DOUBLE) / total * rate, 4
    ) AS commission
    FROM entries JOIN credited USING (id)
);

CREATE TABLE spending AS
SELECT customer, month, SUM(orders) AS orders, SUM(net) AS net FROM (
    SELECT customer, CAST(date_trunc('month', day(ts)) AS DATE) AS month, 1 AS orders, 0 AS net FROM sold
    UNION ALL
    SELECT customer, CAST(date_trunc('month', day(entries.ts)) AS DATE), 0, COALESCE(base, 0) FROM entries JOIN sold USING (id)
) GROUP BY 1, 2;
"""
TABLES = _CREDITED
"""Creates what the reports read beside the tables of the shop."""
_COUPONS = """
WITH o AS (
    SELECT coupon, COUNT(*) AS orders, SUM(base_discounts) AS discounts,
        COUNT(DISTINCT customer) FILTER (first >= CAST($since AS DATE)) AS new_customers
    FROM sold JOIN (SELECT DISTINCT * FROM coupons) USING (id)
    JOIN (SELECT customer, MIN(day(ts)) AS first FROM sold GROUP BY customer) USING (customer)
    WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
), e AS (
    SELECT coupon, SUM(base) FILTER (kind = 'SALE') AS gross, -SUM(base) FILTER (kind = 'PARTIAL_REFUND') AS refunds,
        SUM(base) FILTER (kind = 'CORRECTION') AS corrections, SUM(base) AS net
    FROM entries JOIN (SELECT DISTINCT * FROM coupons) USING (id) WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
)
SELECT coupon, COALESCE(orders, 0) AS orders, COALESCE(discounts, 0) AS discounts, COALESCE(new_customers, 0) AS new_customers,
    COALESCE(gross, 0) AS gross_revenue,
    COALESCE(refunds, 0) AS refunds, COALESCE(corrections, 0) AS corrections, COALESCE(net, 0) AS net_revenue
FROM o FULL JOIN e USING (coupon)
"""
_AFFILIATES = """
WITH o AS (
    SELECT affiliate, COUNT(*) AS orders FROM credited WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
), e AS (
    SELECT affiliate, SUM(base) FILTER (kind = 'SALE') AS gross, -SUM(base) FILTER (kind = 'PARTIAL_REFUND') AS refunds,
        SUM(base) FILTER (kind = 'CORRECTION') AS corrections, SUM(base) AS net, SUM(commission) AS commission
    FROM commissions WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
)
SELECT affiliate, COALESCE(orders, 0) AS orders, COALESCE(gross, 0) AS gross_revenue, COALESCE(refunds, 0) AS refunds,
    COALESCE(corrections, 0) AS corrections, COALESCE(net, 0) AS net_revenue, COALESCE(commission, 0) AS commission
FROM o FULL JOIN e USING (affiliate)
"""
_COHORTS = """
WITH began AS ($began), sizes AS (SELECT cohort, COUNT(*) AS persons FROM began GROUP BY 1), grid AS (
    SELECT cohort, persons, CAST(UNNEST(generate_series(cohort, CAST($until AS DATE), INTERVAL 1 MONTH)) AS DATE) AS month
    FROM sizes WHERE cohort BETWEEN date_trunc('month', CAST($since AS DATE)) AND CAST($until AS DATE)
)
SELECT strftime(grid.cohort, '%Y-%m') AS $group, date_diff('month', grid.cohort, month) AS months_later, ANY_VALUE(persons) AS persons,
    COUNT(*) FILTER (orders > 0) AS buyers, COUNT(*) FILTER (orders > 0) / ANY_VALUE(persons) AS retention,
    COALESCE(SUM(net), 0) AS net_revenue
FROM grid LEFT JOIN (SELECT * FROM began JOIN spending USING (customer)) AS bought USING (cohort, month) GROUP BY grid.cohort, month
"""
REPORTS = {
    ("coupons", "coupon"): _COUPONS,
    ("affiliates", "affiliate"): _AFFILIATES,
    ("cohorts", "first_order"): _COHORTS.replace(
        "$began", "SELECT customer, MIN(month) AS cohort FROM spending WHERE orders > 0 GROUP BY 1"
    ),
    ("cohorts", "registration"): _COHORTS.replace(
        "$began",
        """
        SELECT COALESCE(person, subject) AS customer, MIN(CAST(date_trunc('month', day(ts)) AS DATE)) AS cohort
        FROM registered LEFT JOIN persons USING (subject) GROUP BY 1
        """,
    ),
}
"""The rows of reports, by report and group."""
