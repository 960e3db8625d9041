"""A year of a shop, and every figure of it as DuckDB computes it from what was sent.

PMP_YEAR_EVENTS sets the number of events, such as 1000000; without it there are a few thousand.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import chain, count, islice
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.json_format import MessageToDict
from pmp.analytics.v1 import analytics_pb2 as pb

from kit.service.resources import Resources
from kit.settings import Settings
from services.analytics.composition import ROLE
from services.analytics.reports import REPORTS
from services.analytics.settings import AnalyticsSettings
from tests.databases import newest_database
from tests.roles import serving, settings_for
from tests.services import shop_oracle
from tests.services.order_oracle import AFFILIATES, keyed
from tests.services.shop_oracle import DAYS, Oracle, Shop, generated
from tests.services.test_analytics import PSEUDONYM, Analytics

EVENTS = int(os.environ.get("PMP_YEAR_EVENTS", "2500"))
AT_ONCE = 1 + EVENTS // 25_000
"""Shops whose messages are sent together."""
NEW_YEAR = datetime(2025, 1, 1, tzinfo=UTC)
YEAR = 365
PERIODS = {
    "a year": ("2025-01-01", "2025-12-31"),
    "a year that begins and ends within a month": ("2025-01-03", "2026-01-02"),
    "the day on which clocks are set forward in Berlin": ("2025-03-30", "2025-03-30"),
    "the day on which they are set back": ("2025-10-26", "2025-10-26"),
    "a month": ("2025-10-01", "2025-10-31"),
    "days of three months": ("2025-03-27", "2025-05-02"),
    "most of a month, and days of the one before": ("2025-03-27", "2025-04-20"),
}
RANKED = {"country": "revenue", "source": "acquisition", "campaign": "acquisition", "device": "acquisition", "page": "content"}
ELSEWHERE = {"attribution"}
"""Reports that another service computes: its own tests compare them with what was sent."""
RANKED_BY = ("sessions", "page_views", "revenue")
PAGE = 5000

pytestmark = pytest.mark.timeout(180 + EVENTS // 50)


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> AnalyticsSettings:
    """With the time zone of a test."""
    return settings_for(ROLE, settings, site_timezone=ZoneInfo(request.param), site_affiliates=AFFILIATES)


@pytest.fixture
async def analytics(settings: AnalyticsSettings, resources: Resources) -> AsyncIterator[Analytics]:
    async with newest_database(settings, "analytics"):
        runtime = ROLE.compose(settings, resources)
        async with serving(runtime) as channel:
            yield Analytics(runtime, channel)


async def sent(analytics: Analytics) -> Shop:
    """Sends a year: shops of a few weeks after each other, with one whose sessions and orders are from all over the year.

    What that one sends late is sent last, and so after everything else that happened on its days. In the end a person of it is erased.
    """
    whole = Shop()
    long = generated(0, name="long-", first=NEW_YEAR, days=YEAR)
    *timely, late, unmerged = long.batches
    for batch in timely:
        await analytics.happen(*batch)
    whole.add(long)
    numbers = count(1)
    while len(whole.events) < EVENTS:
        first = NEW_YEAR + timedelta(days=len(whole.events) / EVENTS * (YEAR - DAYS))
        shops = [generated(number, name=f"{number}-", first=first) for number in islice(numbers, AT_ONCE)]
        for batches in zip(*(shop.batches for shop in shops), strict=True):
            await analytics.happen(*chain.from_iterable(batches))
        for shop in shops:
            whole.add(shop)
        await analytics.trim(max_bytes=1_000_000)
    await analytics.happen(*late)
    await analytics.happen(*unmerged)
    erased = whole.identifiers("long-u0")
    assert len(erased) > 2, "a person whom two users and their sessions lead to"
    await analytics.erase(erased)
    whole.erase(erased, PSEUDONYM)
    return whole


@pytest.mark.parametrize("settings", ["Europe/Berlin", "Asia/Kathmandu"], indirect=True)
async def test_every_figure_of_a_year_is_that_of_what_was_sent(analytics: Analytics, settings: Settings) -> None:
    oracle = Oracle(await sent(analytics), settings.site_timezone.key)
    for name, (since, until) in PERIODS.items():
        answer = await analytics.dashboard(since, until)
        found = {each.key: each.value if each.HasField("value") else None for each in answer.figures}
        assert found == pytest.approx(oracle.figures(since, until)), name
        found = {each.key: each.compared if each.HasField("compared") else None for each in answer.figures}
        assert found == pytest.approx(oracle.figures(*_before(since, until))), name
        assert [_numbers(each, "day", "hour") for each in answer.series] == [pytest.approx(each) for each in oracle.series(since, until)], (
            name
        )
        currencies = {each.currency: _numbers(each, "currency") for each in answer.currencies}
        sold = oracle.report("revenue", "currency", since, until)
        assert currencies == {code: pytest.approx({"currency": code, **_without(row, "quantity")}) for code, row in sold.items()}, name
        assert answer.entries_without_rate == oracle.unrated(since, until), name
        await _compare_rankings(answer, oracle, (since, until))
        for report in (each for each in REPORTS.values() if each.name not in ELSEWHERE):
            for group in report.groups:
                rows = keyed(await _rows(analytics, report.name, group, since, until), group)
                expected = oracle.report(report.name, group, since, until)
                assert rows.keys() == expected.keys(), (report.name, group, name)
                assert rows == {key: _close(row) for key, row in expected.items()}, (report.name, group, name)


async def _compare_rankings(answer: pb.GetDashboardResponse, oracle: Oracle, period: tuple[str, str]) -> None:
    for ranking in answer.rankings:
        dimension = ranking.dimension
        rows = oracle.report(RANKED.get(dimension, f"{dimension}s"), dimension, *period)
        ranked = [_ranked(value, row) for value, row in rows.items()]
        expected = sorted((each for each in ranked if any(each[name] for name in (*RANKED_BY, "orders"))), key=_rank)[:10]
        found = [_numbers(each, "value", "title") for each in ranking.rows]
        assert found == sorted(found, key=lambda row: (*(-row[name] for name in RANKED_BY), row["value"])), (dimension, period)
        found.sort(key=_rank)
        assert [row["value"] for row in found] == [row["value"] for row in expected], (dimension, period)
        assert found == [_close(row) for row in expected], (dimension, period)


def _close(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row; the parts of products and courses in an order are rounded to ten-thousandths of a currency's unit."""
    return {name: pytest.approx(value, rel=1e-7, abs=1e-3) if isinstance(value, float) else value for name, value in row.items()}


def _ranked(value: str, row: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of a ranking, as the report of its dimension has it."""
    figures = {name: row.get(name, 0.0) for name in ("visitors", "sessions", "page_views", "orders")}
    return {"value": value, "title": row.get("title", ""), **figures, "revenue": row.get("net_revenue", row.get("revenue", 0.0))}


def _rank(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """The place of a row. Revenues that differ by what is rounded of parts of orders, see `_close`, are the same."""
    return *(-round(row[name], 2) for name in RANKED_BY), row["value"]


def _before(since: str, until: str) -> tuple[str, str]:
    """As many days directly before a period."""
    first, last = date.fromisoformat(since), date.fromisoformat(until)
    return (first - (last - first) - timedelta(days=1)).isoformat(), (first - timedelta(days=1)).isoformat()


def _numbers(message: Any, *texts: str) -> Mapping[str, Any]:
    """The fields of a message; those that are no text as floats."""
    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    return {name: value if name in texts else float(value) for name, value in fields.items()}


def _without(row: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    return {key: value for key, value in row.items() if key != name}


async def _rows(analytics: Analytics, report: str, group: str, since: str, until: str) -> Sequence[dict[str, Any]]:
    """All rows of a report, page by page."""
    rows: list[dict[str, Any]] = []
    for offset in count(0, PAGE):
        query: dict[str, Any] = {"report": report, "group_by": group, "from": since, "to": until, "page_size": PAGE, "offset": offset}
        answer = await analytics.call("GetReport", pb.GetReportRequest(**query))
        rows += [MessageToDict(row) for row in answer.rows]
        if len(rows) >= answer.total_rows:
            return rows
    raise AssertionError


def test_every_report_has_an_independent_computation() -> None:
    reports = [report for report in REPORTS.values() if report.name not in ELSEWHERE]
    assert shop_oracle.REPORTS.keys() == {(report.name, group) for report in reports for group in report.groups}
