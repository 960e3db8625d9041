"""Figures and reports of analytics: their definitions, and what of a report a request asks for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from pmp.analytics.v1 import analytics_pb2 as pb

from kit.errors import InvalidRequest
from services.analytics.breakdown import Breakdown
from services.analytics.columns import OWN_CURRENCY, Column
from services.analytics.counts import EACH_DAY, cells, keys_of_cells
from services.analytics.course_figures import CONTENT_COLUMNS
from services.analytics.days import MOST_RANGES, month_of, period_of, ranges_of
from services.analytics.figures import FIGURES, MONEY, Summary
from services.analytics.orders import Order, converted
from services.analytics.reports import REPORTS, as_csv, new_by_coupon, page_of, report_of

METRICS = (Path(__file__).resolve().parents[2] / "docs" / "metrics.md").read_text()
TODAY = period_of("", "2026-03-31", 0).last


def _tables() -> Iterator[str]:
    """What the documentation has to say of figures and reports."""
    yield "## Figures\n\n| figure | unit | meaning |\n|---|---|---|"
    yield from (f"| `{each.key}` | {_unit(each.unit)} | {each.text} |" for each in FIGURES)
    yield "\n## Content performance\n\n| column | unit | meaning |\n|---|---|---|"
    yield from (f"| `{key}` | {_unit(unit)} | {text} |" for key, unit, text in CONTENT_COLUMNS)
    for report in REPORTS.values():
        yield f"\n## Report `{report.name}`\n\nGrouped by:\n"
        yield from (f"* `{group}`: {definition}" for group, definition in report.groups.items())
        yield "\n| column | unit | meaning |\n|---|---|---|"
        yield from (f"| `{each.key}` | {_unit(each.unit)} | {each.definition} |" for each in report.columns)
        for group in report.groups:
            if missing := [each.key for each in report.columns if each.key not in {shown.key for shown in report.of(group)}]:
                yield f"\nBy `{group}` without {', '.join(f'`{key}`' for key in missing)}."


def _unit(unit: str) -> str:
    return "the shop's currency" if unit == MONEY else unit


def test_the_documentation_defines_each_figure_and_each_column_as_the_code_does() -> None:
    assert METRICS.partition("## Figures")[2].strip() == "\n".join(_tables()).removeprefix("## Figures").strip()


def test_a_figure_without_a_base_has_no_value() -> None:
    none = [each.key for each in FIGURES if each.value(Summary()) is None]
    assert none == ["bounce_rate", "session_seconds", "average_order_value", "conversion_rate", "revenue_per_visitor"]


@pytest.mark.parametrize("a", range(1, 7))
def test_cells_count_a_member_once_in_any_period_with_one_of_its_days(a: int) -> None:
    days = {2, 3, 5}
    for b in range(a, 7):
        counted = sum(a <= day <= b and previous < a for day, previous in cells(days))
        assert counted == any(a <= day <= b for day in days)


@pytest.mark.parametrize(
    ("since", "until"),
    [("2026-01-01", "2026-03-31"), ("2026-01-03", "2026-03-30"), ("2026-02-02", "2026-02-27"), ("2026-01-03", "2026-03-20")],
)
def test_cells_of_months_count_a_member_as_its_days_do(since: str, until: str) -> None:
    period = period_of(since, until, TODAY)
    for seen in (("2025-12-31", "2026-01-02", "2026-01-03", "2026-02-01"), ("2026-01-31", "2026-03-31"), ("2026-02-14", "2026-02-15")):
        days = {period_of(day, day, TODAY).first for day in seen}
        keys = [(day, previous) for day, previous in keys_of_cells(days) if day in period.keys_of_totals()]
        signs = [-1 if day > period.last else 1 for day, previous in keys if previous < period.first]
        assert sum(signs) == any(day in days for day in period.days())
        assert {day for each, day in keys_of_cells(days) if each == EACH_DAY} == days


def test_amounts_are_converted_exactly_and_halves_away_from_zero() -> None:
    assert [converted(amount, 1, 2) for amount in (3, -3, 1, 4)] == [2, -2, 1, 2]
    assert converted(10**17, 3 * 10**17, 10**17) == 3 * 10**17


def test_a_period_is_thirty_days_unless_a_request_says_otherwise() -> None:
    assert (len(period_of("", "", TODAY).days()), period_of("", "", TODAY).last) == (30, TODAY)
    assert len(period_of("2026-03-31", "2026-03-31", TODAY).days()) == 1
    leap = period_of("2028-02-29", "2028-02-29", TODAY)
    assert leap.year_before() == period_of("2027-02-28", "2027-02-28", TODAY)
    assert period_of("2026-03-08", "2026-03-14", TODAY).previous() == period_of("2026-03-01", "2026-03-07", TODAY)


@pytest.mark.parametrize(
    ("since", "until", "months", "beside", "subtracted"),
    [
        ("2026-01-01", "2026-12-31", 12, 0, 0),
        ("2026-01-02", "2026-12-30", 11, 30, 1),
        ("2025-12-31", "2026-02-01", 1, 2, 0),
        ("2026-02-01", "2026-02-28", 1, 0, 0),
        ("2026-02-01", "2026-02-13", 0, 13, 0),
        ("2026-02-01", "2026-02-14", 1, 0, 14),
        ("2026-02-02", "2026-03-30", 1, 27, 1),
        ("2026-02-02", "2026-02-27", 0, 26, 0),
    ],
)
def test_a_period_is_read_from_whole_months_and_the_days_beside_them(
    since: str, until: str, months: int, beside: int, subtracted: int
) -> None:
    period = period_of(since, until, TODAY)
    keys = period.keys_of_totals()
    assert sum(key < 0 for key in keys) == months
    assert (sum(0 < key <= period.last for key in keys), sum(key > period.last for key in keys)) == (beside, subtracted)
    near = range(period.first - 40, period.last + 40)
    counted = Counter(day for key in keys for day in near if key in (day, month_of(day)) and key <= period.last)
    counted.subtract(key for key in keys if key > period.last)
    assert +counted == Counter(period.days()), "each day counts once"
    ranges = ranges_of(keys)
    assert len(ranges) <= MOST_RANGES
    assert [key for first, last in ranges for key in range(first, last + 1)] == keys


@pytest.mark.parametrize(
    ("since", "until", "message"),
    [
        ("2026-03-02", "2026-03-01", "to (2026-03-01) is before from (2026-03-02)"),
        ("yesterday", "", "from is no day; write YYYY-MM-DD"),
        ("", "2026-02-30", "to is no day"),
        ("1066-10-14", "", "from is not between 1990 and 2200"),
        ("2000-01-01", "2026-01-01", "the period is longer than 3660 days"),
    ],
)
def test_a_period_that_can_not_be_is_refused(since: str, until: str, message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        period_of(since, until, TODAY)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"report": "everything"},
            (
                "report: there is no such report; there are revenue, acquisition, content, products, customers, coupons, affiliates,"
                " cohorts, courses, funnel, attribution"
            ),
        ),
        ({"report": "content", "group_by": "currency"}, "group_by: content can be grouped by page, course"),
        ({"report": "content", "sort": "-visitors"}, "sort: content by page can be sorted by page, page_views"),
    ],
)
def test_a_refused_request_names_what_there_is(fields: dict[str, str], message: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        report_of(ParseDict(fields, pb.GetReportRequest()))
    assert message in str(refused.value)


def test_a_report_is_filtered_sorted_and_cut() -> None:
    rows = [{"page": page, "page_views": views} for page, views in (("/a", 2), ("/Blog", 7), ("/blog/b", 2), ("/blog/c", None))]
    report, group = report_of(pb.GetReportRequest(report="content"))

    def found(**fields: object) -> tuple[list[object], int]:
        page, total = page_of(ParseDict({"report": "content", **fields}, pb.GetReportRequest()), report, group, [dict(row) for row in rows])
        return [row["page"] for row in page], total

    assert found() == (["/Blog", "/a", "/blog/b", "/blog/c"], 4)
    assert found(filter="BLOG", sort="page_views") == (["/blog/c", "/blog/b", "/Blog"], 3)
    assert found(page_size=1, offset=1) == (["/a"], 4)


def test_csv_has_the_columns_and_disarms_formulas() -> None:
    columns = [Column("page", "text", ""), Column("amount", OWN_CURRENCY, "")]
    rows = [{"page": '=1+1,"x"', "amount": -1.5}, {"page": "/a", "amount": None}]
    assert as_csv(columns, rows).decode() == 'page,amount\r\n"\'=1+1,""x""",-1.5\r\n/a,\r\n'


def test_a_new_customer_counts_for_the_coupons_of_orders_of_the_period_alone() -> None:
    def order(coupon: str) -> str:
        return Order("USD", 0, False, "", "", "", (), (), Breakdown(coupons=(coupon,))).dumps()

    known = [("ada", "2026-02-28", 1, order("winter")), ("ada", "2026-03-01", 1, order("spring"))]
    new = [("eve", "2026-03-01", 1, order("spring")), ("eve", "2026-03-31", 1, order("spring")), ("eve", "2026-04-01", 1, order("summer"))]
    assert new_by_coupon([*known, *new], "2026-03-01", "2026-03-31") == {"spring": 1}
