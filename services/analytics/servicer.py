"""The rpcs of analytics: read totals by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Final, TypeAlias

from google.api.httpbody_pb2 import HttpBody
from pmp.analytics.v1 import analytics_pb2 as pb
from pmp.analytics.v1.analytics_pb2_grpc import AnalyticsServiceServicer
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.transactions import Sessions
from kit.errors import InvalidRequest, Violation
from kit.settings import Settings
from services.analytics import reports
from services.analytics.cohorts import rows_of
from services.analytics.counts import (
    CAMPAIGN,
    COUNTRY,
    COURSE,
    CUSTOMERS,
    DEVICE,
    PAGE,
    PRODUCT,
    SITE,
    SOURCE,
    VISITORS,
    Revenue,
    Traffic,
    added,
    audience,
)
from services.analytics.days import Period, iso, period_of
from services.analytics.figures import FIGURES, MONEY, Number, Summary, money
from services.analytics.repository import Reading

_TOP: Final = 10
_COMPARISONS: Final = ("previous", "year", "none")
_RANKED: Final = (PAGE, SOURCE, CAMPAIGN, DEVICE, COURSE, PRODUCT, COUNTRY)
_OF_AUDIENCES: Final = frozenset({SOURCE, CAMPAIGN, COURSE})
_Traffic: TypeAlias = Mapping[str, Mapping[str, Traffic]]
_Revenue: TypeAlias = Mapping[str, Mapping[str, Revenue]]
_Rows: TypeAlias = Sequence[tuple[str, Summary]]


class AnalyticsServicer(AnalyticsServiceServicer):
    """Answers from totals.

    Args:
        settings: the time zone of days, and the base currency.
        sessions: the database.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._zone = settings.site_timezone
        self._currency = settings.site_currency
        self._sessions = sessions

    @override
    async def GetDashboard(self, request: pb.GetDashboardRequest, context: Context) -> pb.GetDashboardResponse:
        period = self._period(request)
        compared = _compared(request.compare, period)
        async with self._sessions.reading() as session:
            reading = Reading(session)
            traffic, revenue = await reading.traffic(period, SITE), await reading.revenue(period, SITE, *_RANKED)
            visits = await reading.visits(period, *_RANKED)
            shown = {dimension: _largest(visits[dimension], revenue[dimension], request.top or _TOP) for dimension in _RANKED}
            members = await reading.members(period, [VISITORS, CUSTOMERS, *_audiences(shown)])
            new = await reading.members(period, [CUSTOMERS], new=True)
            before = await _summary_of(reading, compared) if compared else None
            by_currency = await reading.revenue_by_currency(period)
            series = await _series(reading, period)
            titles = await reading.titles([value for value, _ in shown[PRODUCT]])
        now = _summary(traffic, revenue, members, new)
        return pb.GetDashboardResponse(
            period=_shown(period),
            compared=_shown(compared) if compared else None,
            timezone=self._zone.key,
            currency=self._currency,
            figures=self._figures(now, before, explain=request.explain),
            currencies=[_currency_revenue(code, by_currency[code]) for code in sorted(by_currency)],
            series=series,
            rankings=_rankings(shown, members, titles),
            entries_without_rate=now.revenue.unrated,
        )

    @override
    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.GetReportResponse:
        period, report, group = self._period(request), *reports.report_of(request)
        rows, total = await self._report(request, report, group, period)
        answer = pb.GetReportResponse(
            report=report.name,
            period=_shown(period),
            timezone=self._zone.key,
            columns=[pb.Column(key=each.key, unit=self._unit(each.unit), definition=each.definition) for each in report.of(group)],
            total_rows=total,
        )
        for row in rows:
            answer.rows.add().update(row)
        bind_log_fields(report=report.name, rows=len(rows))
        return answer

    @override
    async def ExportReport(self, request: pb.ExportReportRequest, context: Context) -> HttpBody:
        period, report, group = self._period(request), *reports.report_of(request)
        rows, _ = await self._report(request, report, group, period)
        name = f"{report.name}-{iso(period.first)}-{iso(period.last)}.csv"
        await context.send_initial_metadata((("content-disposition", f'attachment; filename="{name}"'),))
        bind_log_fields(report=report.name, rows=len(rows))
        return HttpBody(content_type="text/csv; charset=utf-8", data=reports.as_csv(report.of(group), rows))

    async def _report(
        self, query: reports.Query, report: reports.Report, group: str, period: Period
    ) -> tuple[Sequence[Mapping[str, str | float | None]], int]:
        async with self._sessions.reading() as session:
            rows = await self._rows(Reading(session), report, group, period)
        page, total = reports.page_of(query, report, group, rows)
        return [{each.key: _plain(row[each.key]) for each in report.of(group)} for row in page], total

    async def _rows(self, reading: Reading, report: reports.Report, group: str, period: Period) -> Sequence[reports.Row]:
        if report.name == "customers":
            return reports.customers(await self._bought(reading, period))
        if report.name == "cohorts":
            return rows_of(group, await reading.cohorts(group, period), period)
        if report.name == "revenue":
            return await _revenue_rows(reading, report, group, period)
        traffic, revenue = (await reading.traffic(period, group))[group], (await reading.revenue(period, group))[group]
        titles = await reading.titles([*revenue] if group == PRODUCT else [])
        of = {each: audience(group, each) for each in traffic} if group in _OF_AUDIENCES else {}
        members = await reading.members(period, of.values())
        return [
            {
                group: value,
                **reports.figures_of(
                    report.of(group),
                    Summary(traffic.get(value, Traffic()), sold := revenue.get(value, Revenue()), members.get(of.get(value, ""), 0)),
                ),
                "title": titles.get(value, ""),
                "quantity": sold.quantity,
                "revenue": money(sold.base_gross),
                "commission": money(sold.base_commissions),
            }
            for value in traffic.keys() | revenue.keys()
        ]

    async def _bought(self, reading: Reading, period: Period) -> Sequence[tuple[str, str, int, str]]:
        """Returns customer, day, net revenue and payload of the orders of the period's customers."""
        first, end = (datetime.fromordinal(day).replace(tzinfo=self._zone) for day in (period.first, period.last + 1))
        found = await reading.buyers(first, end)
        return [(customer, at.astimezone(self._zone).date().isoformat(), net, payload) for customer, at, net, payload in found]

    def _figures(self, now: Summary, before: Summary | None, *, explain: bool) -> Sequence[pb.Figure]:
        return [
            pb.Figure(
                key=each.key,
                value=_number(each.value(now)),
                compared=None if before is None else _number(each.value(before)),
                unit=self._unit(each.unit),
                definition=each.text if explain else "",
                facts=each.facts(now) if explain else 0,
            )
            for each in FIGURES
        ]

    def _unit(self, unit: str) -> str:
        return self._currency if unit == MONEY else unit

    def _period(self, request: pb.GetDashboardRequest | pb.GetReportRequest | pb.ExportReportRequest) -> Period:
        today = datetime.now(UTC).astimezone(self._zone).date().toordinal()
        return period_of(getattr(request, "from"), request.to, today)  # a keyword of Python


async def _summary_of(reading: Reading, period: Period) -> Summary:
    traffic, revenue = await reading.traffic(period, SITE), await reading.revenue(period, SITE)
    members = await reading.members(period, [VISITORS, CUSTOMERS])
    return _summary(traffic, revenue, members, await reading.members(period, [CUSTOMERS], new=True))


def _summary(traffic: _Traffic, revenue: _Revenue, members: Mapping[str, int], new: Mapping[str, int]) -> Summary:
    site, sold = traffic[SITE].get("", Traffic()), revenue[SITE].get("", Revenue())
    return Summary(site, sold, members.get(VISITORS, 0), members.get(CUSTOMERS, 0), new.get(CUSTOMERS, 0))


async def _series(reading: Reading, period: Period) -> Sequence[pb.DayFigures]:
    visitors = await reading.members_by_day(period, VISITORS)
    traffic, revenue = await reading.traffic_by_day(period), await reading.revenue_by_day(period)
    return [
        pb.DayFigures(
            day=iso(day),
            visitors=visitors.get(day, 0),
            sessions=(of := Summary(traffic.get(day, Traffic()), revenue.get(day, Revenue()))).traffic.visits,
            page_views=of.traffic.page_views,
            orders=of.revenue.orders,
            net_revenue=float(money(of.net)),
        )
        for day in period.days()
    ]


def _audiences(shown: Mapping[str, _Rows]) -> Sequence[str]:
    return [audience(dimension, value) for dimension in _OF_AUDIENCES for value, _ in shown[dimension]]


def _rankings(shown: Mapping[str, _Rows], members: Mapping[str, int], titles: Mapping[str, str]) -> Sequence[pb.Ranking]:
    return [
        pb.Ranking(
            dimension=dimension,
            rows=[
                pb.Ranked(
                    value=value,
                    title=titles.get(value, "") if dimension == PRODUCT else "",
                    visitors=members.get(audience(dimension, value), 0),
                    sessions=of.traffic.visits,
                    page_views=of.traffic.page_views,
                    orders=of.revenue.orders,
                    revenue=float(money(of.net)),
                )
                for value, of in rows
            ],
        )
        for dimension, rows in shown.items()
    ]


def _largest(traffic: Mapping[str, Traffic], revenue: Mapping[str, Revenue], top: int) -> _Rows:
    """Returns the values with the most sessions, page views and revenue, in this order."""
    rows = [(value, Summary(traffic.get(value, Traffic()), revenue.get(value, Revenue()))) for value in traffic.keys() | revenue.keys()]
    return sorted(rows, key=lambda row: (-row[1].traffic.visits, -row[1].traffic.page_views, -row[1].net, row[0]))[:top]


async def _revenue_rows(reading: Reading, report: reports.Report, group: str, period: Period) -> Sequence[reports.Row]:
    sums: dict[str, Revenue] = {}
    if group == COUNTRY:
        sums = dict((await reading.revenue(period, COUNTRY))[COUNTRY])
    elif group == "currency":
        sums = {currency: reports.own_amounts(figures) for currency, figures in (await reading.revenue_by_currency(period)).items()}
    else:
        for day, figures in (await reading.revenue_by_day(period)).items():
            name = iso(day)[: len("YYYY-MM")] if group == "month" else iso(day)
            sums[name] = added(sums.get(name, Revenue()), figures)
    return [
        {group: name, **reports.figures_of(report.of(group), Summary(revenue=figures)), "quantity": figures.quantity}
        for name, figures in sums.items()
    ]


def _compared(comparison: str, period: Period) -> Period | None:
    """Returns the period of comparison; None for none.

    Raises:
        InvalidRequest: there is no such comparison.
    """
    if comparison in ("", "previous"):
        return period.previous()
    if comparison not in _COMPARISONS:
        raise InvalidRequest([Violation("compare", f"compare is one of {', '.join(_COMPARISONS)}")])
    return period.year_before() if comparison == "year" else None


def _currency_revenue(currency: str, figures: Revenue) -> pb.CurrencyRevenue:
    of = Summary(revenue=reports.own_amounts(figures))
    return pb.CurrencyRevenue(
        currency=currency,
        orders=figures.orders,
        gross_revenue=float(money(figures.gross)),
        refunds=float(money(figures.refunds)),
        corrections=float(money(figures.corrections)),
        discounts=float(money(figures.discounts)),
        taxes=float(money(figures.taxes)),
        shipping=float(money(figures.shipping)),
        net_revenue=float(money(of.net)),
    )


def _shown(period: Period) -> pb.Period:
    return pb.Period(**{"from": iso(period.first), "to": iso(period.last)})


def _plain(value: reports.Value) -> str | float | None:
    return value if isinstance(value, str) else _number(value)


def _number(value: Number) -> float | None:
    """Converts a number to what JSON has, a whole one to an integer."""
    if value is None:
        return None
    return int(value) if value == int(value) else float(value)
