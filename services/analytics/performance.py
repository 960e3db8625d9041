"""The rpcs on courses and on what leads to them: read totals by course."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from pmp.analytics.v1 import analytics_pb2, courses_pb2
from pmp.analytics.v1 import courses_pb2 as pb
from pmp.analytics.v1.courses_pb2_grpc import CoursesServiceServicer
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.transactions import Sessions
from kit.errors import InvalidRequest, NotFound, Violation
from kit.settings import Settings
from services.analytics import answers, series
from services.analytics.content_changes import LISTED, Change, ContentChanges
from services.analytics.content_store import ContentOf, ContentReading
from services.analytics.counts import COURSE, SOURCE, Content, Revenue, Traffic, audience
from services.analytics.course_figures import CONTENT_COLUMNS, COURSE_FIGURES
from services.analytics.days import Calendar, Period, iso
from services.analytics.figures import Summary, money
from services.analytics.reading import Members, Reading
from services.analytics.reports import Row

_TOP: Final = 10
_ROWS: Final = 100
_KINDS: Final = (*LISTED, SOURCE)


class CoursesServicer(CoursesServiceServicer):
    """Answers from totals by course.

    Args:
        settings: the time zone of days, and the base currency.
        sessions: the database.
    """

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._calendar = Calendar(settings.site_timezone)
        self._currency = settings.site_currency
        self._sessions = sessions

    @override
    async def GetCoursePerformance(self, request: pb.GetCoursePerformanceRequest, context: Context) -> pb.GetCoursePerformanceResponse:
        period, course = answers.period_asked(request, self._calendar), request.id
        compared = answers.compared_with(request.compare, period)
        async with self._sessions.reading() as session:
            content, reading = ContentReading(session), Reading(session)
            if not await content.is_known(course):
                raise NotFound("nothing is known of this course")
            now = (await _summaries(reading, period, course)).get(course, Summary())
            before = (await _summaries(reading, compared, course)).get(course, Summary()) if compared else None
            trend = await series.of_course(reading, period, course)
            found = await content.content(period, _KINDS, course)
            titles = await content.titles([course])
        top = request.top or _TOP
        rows = [row for kind in _KINDS for row in _largest({of: each for of, each in found.items() if of.dimension == kind})[:top]]
        return pb.GetCoursePerformanceResponse(
            id=course,
            title=titles.get(course, ""),
            period=answers.shown(period),
            compared=answers.shown(compared) if compared else None,
            timezone=self._calendar.zone.key,
            currency=self._currency,
            figures=answers.figures(COURSE_FIGURES, now, before, self._currency, explain=request.explain),
            grain=series.grain_of(period, by_hour=False),
            trend=trend,
            sources=[_shown(of, each, titles) for of, each in rows],
        )

    @override
    async def GetContentPerformance(self, request: pb.GetContentPerformanceRequest, context: Context) -> pb.GetContentPerformanceResponse:
        period = answers.period_asked(request, self._calendar)
        if request.kind and request.kind not in _KINDS:
            raise InvalidRequest([Violation("kind", f"kind is one of {', '.join(_KINDS)}")])
        async with self._sessions.reading() as session:
            content = ContentReading(session)
            rows = _largest(await content.content(period, [request.kind] if request.kind else LISTED, request.course))
            page = rows[request.offset :][: request.page_size or _ROWS]
            titles = await content.titles({of.course for of, _ in page})
        bind_log_fields(rows=len(page))
        return pb.GetContentPerformanceResponse(
            period=answers.shown(period),
            timezone=self._calendar.zone.key,
            columns=[
                analytics_pb2.Column(key=key, unit=answers.unit_of(unit, self._currency), definition=text)
                for key, unit, text in CONTENT_COLUMNS
            ],
            rows=[_shown(of, each, titles) for of, each in page],
            total_rows=len(rows),
        )

    @override
    async def ListContentChanges(self, request: pb.ListContentChangesRequest, context: Context) -> pb.ListContentChangesResponse:
        epoch, _, version = request.since.partition("-")
        most = request.page_size or _ROWS
        async with self._sessions.reading() as session:
            feed = ContentChanges(session)
            current, last = await feed.head()
            restarted = bool(epoch and current) and epoch != current
            changes = await feed.since(int(version or 0) if epoch == current else 0, most)
            titles = await ContentReading(session).titles({each.key[2] for each in changes if each.key})
        bind_log_fields(rows=len(changes))
        return pb.ListContentChangesResponse(
            changes=[_change(each, titles) for each in changes],
            cursor=f"{current}-{changes[-1].version if changes else last}" if current else request.since,
            has_more=bool(changes) and changes[-1].version < last,
            restarted=restarted,
            timezone=self._calendar.zone.key,
            currency=self._currency,
        )


async def course_rows(reading: Reading, period: Period) -> Sequence[Row]:
    """Returns the rows of the report courses."""
    summaries = await _summaries(reading, period)
    titles = await ContentReading(reading.session).titles(summaries)
    return [
        {COURSE: course, "title": titles.get(course, ""), **{each.key: each.value(of) for each in COURSE_FIGURES}}
        for course, of in summaries.items()
    ]


async def _summaries(reading: Reading, period: Period, course: str = "") -> Mapping[str, Summary]:
    """Returns what the figures of courses are computed from; of one course only, unless that is empty."""
    traffic, revenue = (await reading.traffic(period, COURSE))[COURSE], (await reading.revenue(period, COURSE))[COURSE]
    courses: Collection[str] = [course] if course else traffic.keys() | revenue.keys()
    members = await reading.members(period, [audience(COURSE, each) for each in courses])
    return {
        each: Summary(traffic.get(each, Traffic()), revenue.get(each, Revenue()), members.get(audience(COURSE, each), Members()).all)
        for each in courses
    }


def _largest(found: Mapping[ContentOf, Content]) -> Sequence[tuple[ContentOf, Content]]:
    """Returns content with the largest net revenue first, then with the most orders and sessions."""
    return sorted(found.items(), key=lambda row: (-_net(row[1]), -row[1].orders, -row[1].visits, row[0]))


def _shown(of: ContentOf, figures: Content, titles: Mapping[str, str]) -> courses_pb2.ContentPerformance:
    return pb.ContentPerformance(
        kind=of.dimension,
        content=of.value,
        course=of.course,
        title=titles.get(of.course, ""),
        sessions=figures.visits,
        orders=figures.orders,
        gross_revenue=float(money(figures.base_gross)),
        refunds=float(money(figures.base_refunds)),
        net_revenue=float(money(_net(figures))),
    )


def _change(change: Change, titles: Mapping[str, str]) -> courses_pb2.ContentChange:
    if change.key is None:
        return pb.ContentChange(id=change.id, removed=True)
    dimension, day, course, value = change.key
    return pb.ContentChange(id=change.id, day=iso(day), performance=_shown(ContentOf(dimension, course, value), change.figures, titles))


def _net(figures: Content) -> int:
    return figures.base_gross - figures.base_refunds + figures.base_corrections
