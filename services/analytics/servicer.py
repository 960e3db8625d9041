"""The rpcs of analytics: read totals by day."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import reduce
from typing import Final, TypeAlias

from google.api.httpbody_pb2 import HttpBody
from pmp.analytics.v1 import analytics_pb2 as pb
from pmp.analytics.v1.analytics_pb2_grpc import AnalyticsServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.transactions import Sessions
from kit.errors import InvalidRequest, Violation
from kit.people.identifiers import identifier_of
from kit.people.persons import Persons
from kit.settings import Settings
from services.analytics import answers, reports, series
from services.analytics.cohorts import rows_of
from services.analytics.content_store import ContentReading
from services.analytics.counts import (
    CAMPAIGN,
    COUNTRY,
    COUPON,
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
from services.analytics.customers import page_of_customers
from services.analytics.days import Calendar, Period, iso
from services.analytics.figures import FIGURES, Summary, money
from services.analytics.first_sources import FirstSource, first_source
from services.analytics.funnel import STEPS, steps_of
from services.analytics.inclusion import reading_with
from services.analytics.journeys_client import JourneysClient
from services.analytics.performance import course_rows
from services.analytics.reading import SALES, VISITS, Members, Reading

_TOP: Final = 10
_RANKED: Final = (SOURCE, CAMPAIGN, DEVICE, COURSE, PRODUCT, COUNTRY)
_OF_AUDIENCES: Final = frozenset({SOURCE, CAMPAIGN, COURSE})
_Traffic: TypeAlias = Mapping[str, Mapping[str, Traffic]]
_Rows: TypeAlias = Sequence[tuple[str, Summary]]


class AnalyticsServicer(AnalyticsServiceServicer):
    """Answers from totals.

    Args:
        settings: the time zone of days, and the base currency.
        sessions: the database.
        journeys: is asked for attribution.
    """

    def __init__(self, settings: Settings, sessions: Sessions, journeys: JourneysClient) -> None:
        self._calendar, self._journeys = Calendar(settings.site_timezone), journeys
        self._zone = settings.site_timezone
        self._currency = settings.site_currency
        self._sessions = sessions

    @override
    async def GetDashboard(self, request: pb.GetDashboardRequest, context: Context) -> pb.GetDashboardResponse:
        period = answers.period_asked(request, self._calendar)
        compared, included = answers.compared_with(request.compare, period), answers.included(request.include)
        async with self._sessions.reading() as session:
            reading = await reading_with(session, self._calendar, included)
            visits, sales = await reading.traffic(period, *_RANKED, names=VISITS), await reading.revenue(period, *_RANKED, names=SALES)
            visits = {PAGE: await reading.pages(period, top := request.top or _TOP), **visits}
            shown = {dimension: _largest(each, sales.get(dimension, {}), top) for dimension, each in visits.items()}
            traffic, by_currency = await reading.traffic(period, SITE), await reading.revenue_by_currency(period)
            members = await reading.members(period, [CUSTOMERS, *STEPS, *_audiences(shown)])
            before = await _summary_of(reading, compared) if compared else None
            points = await series.of_site(reading, self._calendar, period)
            titles = await _titles(session, shown)
        now = _summary(traffic, by_currency, members)
        return pb.GetDashboardResponse(
            period=answers.shown(period),
            compared=answers.shown(compared) if compared else None,
            timezone=self._zone.key,
            currency=self._currency,
            figures=answers.figures(FIGURES, now, before, self._currency, explain=request.explain),
            currencies=[_currency_revenue(code, by_currency[code]) for code in sorted(by_currency)],
            series=points,
            grain=series.grain_of(period),
            funnel=_funnel(now, before),
            rankings=_rankings(shown, members, titles),
            entries_without_rate=now.revenue.unrated,
        )

    @override
    async def GetReport(self, request: pb.GetReportRequest, context: Context) -> pb.GetReportResponse:
        period, report, group = answers.period_asked(request, self._calendar), *reports.report_of(request)
        rows, total = await self._report(request, report, group, period)
        answer = pb.GetReportResponse(
            report=report.name,
            period=answers.shown(period),
            timezone=self._zone.key,
            columns=[
                pb.Column(key=each.key, unit=answers.unit_of(each.unit, self._currency), definition=each.definition)
                for each in report.of(group)
            ],
            total_rows=total,
        )
        for row in rows:
            answer.rows.add().update(row)
        bind_log_fields(report=report.name, rows=len(rows))
        return answer

    @override
    async def GetFirstSource(self, request: pb.GetFirstSourceRequest, context: Context) -> pb.GetFirstSourceResponse:
        async with self._sessions.reading() as session:
            person_id = await Persons(session).person(identifier_of(user_id=request.user_id))
            return pb.GetFirstSourceResponse(**(await first_source(session, person_id) if person_id else FirstSource())._asdict())

    @override
    async def ExportReport(self, request: pb.ExportReportRequest, context: Context) -> HttpBody:
        period, report, group = answers.period_asked(request, self._calendar), *reports.report_of(request)
        rows, _ = await self._report(request, report, group, period)
        name = f"{report.name}-{iso(period.first)}-{iso(period.last)}.csv"
        await context.send_initial_metadata((("content-disposition", f'attachment; filename="{name}"'),))
        bind_log_fields(report=report.name, rows=len(rows))
        return HttpBody(content_type="text/csv; charset=utf-8", data=reports.as_csv(report.of(group), rows))

    async def _report(
        self, query: reports.Query, report: reports.Report, group: str, period: Period
    ) -> tuple[Sequence[Mapping[str, str | float | None]], int]:
        included = answers.included(query.include)
        if report.name == "attribution":
            if included:
                raise InvalidRequest([Violation("include", "attribution can not include staff or tests")])
            page, total = reports.page_of(query, report, group, await self._attributed(query.model, group, period))
        else:
            async with self._sessions.reading() as session:
                reading = await reading_with(session, self._calendar, included)
                if report.name == "customers":
                    page, total = await page_of_customers(session, await self._bought(reading, period), query, report, group)
                else:
                    page, total = reports.page_of(query, report, group, await self._rows(reading, report, group, period))
        return [{each.key: _plain(row[each.key]) for each in report.of(group)} for row in page], total

    async def _attributed(self, model: str, group: str, period: Period) -> Sequence[reports.Row]:
        answer = await self._journeys.attribution(model, group, *self._calendar.times(period))
        return [{group: each.name, "orders": Fraction(each.orders), "revenue": Fraction(each.amount)} for each in answer.shares]

    async def _rows(self, reading: Reading, report: reports.Report, group: str, period: Period) -> Sequence[reports.Row]:
        if report.name == "courses":
            return await course_rows(reading, period)
        if report.name == "funnel":
            members = await reading.members(period, STEPS)
            return [{"step": each.name, **each._asdict()} for each in steps_of({step: of.all for step, of in members.items()})]
        if report.name == "cohorts":
            return rows_of(group, await reading.cohorts(group, period), period)
        if report.name == "revenue":
            return await _revenue_rows(reading, report, group, period)
        traffic = (await reading.traffic(period, group))[group]
        revenue: Mapping[str, Revenue] = {} if report.name == "content" else (await reading.revenue(period, group))[group]
        titles = await reading.titles([*revenue] if group == PRODUCT else [])
        of = {each: audience(group, each) for each in traffic} if group in _OF_AUDIENCES else {}
        members = await reading.members(period, of.values())
        bought = await self._bought(reading, period) if group == COUPON and revenue else ()
        new = reports.new_by_coupon(bought, iso(period.first), iso(period.last))
        return [
            {
                group: value,
                **reports.figures_of(
                    report.of(group),
                    Summary(
                        traffic.get(value, Traffic()),
                        sold := revenue.get(value, Revenue()),
                        members.get(of.get(value, ""), Members()).all,
                        new_customers=new.get(value, 0),
                    ),
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
        found = await reading.buyers(*self._calendar.times(period))
        return [(customer, at.astimezone(self._zone).date().isoformat(), net, payload) for customer, at, net, payload in found]


async def _summary_of(reading: Reading, period: Period) -> Summary:
    traffic, revenue = await reading.traffic(period, SITE), await reading.revenue_by_currency(period)
    return _summary(traffic, revenue, await reading.members(period, [CUSTOMERS, *STEPS]))


def _summary(traffic: _Traffic, by_currency: Mapping[str, Revenue], members: Mapping[str, Members]) -> Summary:
    customers = members.get(CUSTOMERS, Members())
    return Summary(
        traffic[SITE].get("", Traffic()),
        reduce(added, by_currency.values(), Revenue()),
        members.get(VISITORS, Members()).all,
        customers.all,
        customers.new,
        {name: members.get(name, Members()).all for name in STEPS},
    )


def _funnel(now: Summary, before: Summary | None) -> Sequence[pb.FunnelStep]:
    return [
        pb.FunnelStep(
            step=each.name,
            people=each.people,
            drop_off=each.drop_off,
            share=answers.number(each.share),
            compared=before.steps[each.name] if before else None,
        )
        for each in steps_of(now.steps)
    ]


def _audiences(shown: Mapping[str, _Rows]) -> Sequence[str]:
    return [audience(dimension, value) for dimension in _OF_AUDIENCES for value, _ in shown[dimension]]


async def _titles(session: AsyncSession, shown: Mapping[str, _Rows]) -> Mapping[str, Mapping[str, str]]:
    """Returns the titles of values by dimension, of those that have titles."""
    products, courses = ([value for value, _ in shown[dimension]] for dimension in (PRODUCT, COURSE))
    return {PRODUCT: await Reading(session).titles(products), COURSE: await ContentReading(session).titles(courses)}


def _rankings(shown: Mapping[str, _Rows], members: Mapping[str, Members], titles: Mapping[str, Mapping[str, str]]) -> Sequence[pb.Ranking]:
    return [
        pb.Ranking(
            dimension=dimension,
            rows=[
                pb.Ranked(
                    value=value,
                    title=titles.get(dimension, {}).get(value, ""),
                    visitors=members.get(audience(dimension, value), Members()).all,
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
        for day, figures in (await reading.revenue_by_key([*period.days()])).items():
            name = iso(day)[: len("YYYY-MM")] if group == "month" else iso(day)
            sums[name] = added(sums.get(name, Revenue()), figures)
    return [
        {group: name, **reports.figures_of(report.of(group), Summary(revenue=figures)), "quantity": figures.quantity}
        for name, figures in sums.items()
    ]


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


def _plain(value: reports.Value) -> str | float | None:
    return value if isinstance(value, str) else answers.number(value)
