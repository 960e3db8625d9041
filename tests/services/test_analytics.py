"""Analytics through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Sequence
from csv import DictReader
from datetime import UTC, datetime, timedelta
from io import StringIO
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pmp.analytics.v1 import analytics_pb2 as pb
from pmp.analytics.v1 import courses_pb2
from pmp.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from pmp.analytics.v1.courses_pb2_grpc import CoursesServiceStub
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged, UserChanged
from pmp.ingestion.v1 import event_pb2
from pmp.log.v1 import log_pb2
from pmp.privacy.v1 import privacy_pb2
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceStub
from pmp.purchases.v1.change_pb2 import EXCLUSION_TEST, PAYMENT_STATUS_COMPLETED, EntryKind, PurchaseChanged
from sqlalchemy import select
from sqlalchemy.event import listen, remove

from cli.errors import CommandFailed
from cli.replay import replay
from kit.database.engine import Database, open_database
from kit.database.transactions import transact
from kit.log.streams import START, Delivery
from kit.people.hashing import KeyedHasher
from kit.people.subjects.retention import Retention, expiries
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.analytics import models
from services.analytics.affiliates import AffiliateProgram, Affiliates
from services.analytics.composition import ROLE
from services.analytics.consumers import FollowEvents
from services.analytics.course_figures import PART
from services.analytics.days import Calendar
from services.analytics.exports import EXPORTS
from services.analytics.figures import DEFINITIONS
from services.analytics.personal import personal_tables
from services.analytics.reading import FOUND
from services.analytics.settings import AnalyticsSettings
from tests.background import eventually
from tests.databases import newest_database
from tests.roles import ROLES, serving, settings_for
from tests.servers import free_port
from tests.services.order_oracle import AFFILIATES, keyed
from tests.services.shop_oracle import REPORTS, Oracle, generated
from tests.topics import Topics

PSEUDONYM = "erased:" + "0" * 32
NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
MARCH = ("2026-03-01", "2026-03-31")


def event(
    key: str,
    at: datetime,
    *,
    kind: str = "page_view",
    session: str = "",
    user: str = "",
    source: str = "",
    url: str = "",
    bot: bool = False,
) -> event_pb2.EventStored:
    """An event as ingestion publishes it; without a session and a user that of someone who denied analytics."""
    stored = event_pb2.EventStored(
        event=event_pb2.Event(id=key, event_type=kind, session_id=session, user_id=user, page_url=url),
        enrichment=event_pb2.Enrichment(
            is_bot=bot,
            channel=event_pb2.CHANNEL_CAMPAIGN if source else event_pb2.CHANNEL_DIRECT,
            traffic_source=source,
            visitor=user or session,
            session=session,
            device="mobile",
        ),
        scope="site",
        key=key,
    )
    stored.event.timestamp.FromDatetime(at)
    return stored


def shown(message: Message) -> dict[str, Any]:
    """The fields of a message, numbers as such."""
    fields = MessageToDict(message, preserving_proto_field_name=True, always_print_fields_with_no_presence=True)
    numbers = {field.name for field in message.DESCRIPTOR.fields if field.cpp_type != field.CPPTYPE_STRING}
    return {name: float(value) if name in numbers else value for name, value in fields.items()}


class Analytics(Topics):
    """The service, and the topics it follows, step by step."""

    def __init__(self, runtime: ServiceRuntime, channel: grpc.aio.Channel) -> None:
        super().__init__(runtime)
        self.sessions = runtime.sessions
        self.engine = runtime.database.engine
        self.explain = "EXPLAIN" if self.engine.dialect.name == "mysql" else "EXPLAIN QUERY PLAN"
        self._stub: Any = AnalyticsServiceStub(channel)
        self._courses: Any = CoursesServiceStub(channel)
        self._channel = channel
        self._token = runtime.settings.mesh_token.get_secret_value()

    async def call(self, method: str, request: Message, *, scope: str = "read") -> Any:
        metadata = (("x-pmp-mesh-token", self._token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope))
        return await getattr(self._stub if hasattr(self._stub, method) else self._courses, method)(request, metadata=metadata)

    async def dashboard(self, since: str = "2026-03-01", until: str = "2026-03-31", **fields: Any) -> pb.GetDashboardResponse:
        return await self.call("GetDashboard", pb.GetDashboardRequest(**{"from": since, "to": until}, **fields))

    async def report(self, report: str, since: str, until: str, **fields: Any) -> list[dict[str, Any]]:
        answer = await self.call("GetReport", pb.GetReportRequest(**{"report": report, "from": since, "to": until}, **fields))
        assert answer.total_rows == len(answer.rows)
        return [MessageToDict(row) for row in answer.rows]

    async def course(self, course: str, since: str, until: str, **fields: Any) -> courses_pb2.GetCoursePerformanceResponse:
        request = courses_pb2.GetCoursePerformanceRequest(**{"id": course, "from": since, "to": until}, **fields)
        return await self.call("GetCoursePerformance", request)

    async def first_source(self, user: str) -> pb.GetFirstSourceResponse:
        """As another service asks."""
        return await self._stub.GetFirstSource(pb.GetFirstSourceRequest(user_id=user), metadata=(("x-pmp-mesh-token", self._token),))

    async def content(self, since: str, until: str, **fields: Any) -> list[dict[str, Any]]:
        request = courses_pb2.GetContentPerformanceRequest(**{"from": since, "to": until}, **fields)
        return [shown(row) for row in (await self.call("GetContentPerformance", request)).rows]

    async def changes(self, since: str = "", page_size: int = 0) -> courses_pb2.ListContentChangesResponse:
        return await self.call("ListContentChanges", courses_pb2.ListContentChangesRequest(since=since, page_size=page_size))

    async def totals(self) -> set[tuple[Any, ...]]:
        """All totals that are not 0."""
        found: set[tuple[Any, ...]] = set()
        async with self.sessions() as session:
            for table in (models.audiences, models.cohorts, models.traffic, models.revenue, models.content):
                keys = len(table.primary_key)
                found |= {(table.name, *row) for row in (await session.execute(select(table))).all() if any(row[keys:])}
        return found

    async def everything(self) -> str:
        """All that is stored, as text."""
        async with self.sessions() as session:
            tables = models.Base.metadata.sorted_tables
            return "\n".join([repr(row) for table in tables for row in await session.execute(select(table))])

    async def erase(self, identifiers: Sequence[str]) -> privacy_pb2.EraseResponse:
        stub: Any = SubjectDataServiceStub(self._channel)
        request = privacy_pb2.EraseRequest(names=identifiers, pseudonym=PSEUDONYM, task="task")
        return await stub.Erase(request, metadata=(("x-pmp-mesh-token", self._token),))

    async def figures(self, *keys: str, **period: Any) -> Sequence[float]:
        found = {each.key: each.value for each in (await self.dashboard(**period)).figures}
        return [found[key] for key in keys]


@pytest.fixture
def settings(settings: Settings, request: pytest.FixtureRequest) -> AnalyticsSettings:
    """With what a test sets beside."""
    return settings_for(ROLE, settings, **getattr(request, "param", {}))


@pytest.fixture
async def analytics(settings: AnalyticsSettings, resources: Resources) -> AsyncIterator[Analytics]:
    async with newest_database(settings, "analytics"):
        runtime = ROLE.compose(settings, resources)
        async with serving(runtime) as channel:
            yield Analytics(runtime, channel)


async def test_a_session_ends_after_thirty_idle_minutes_whatever_the_order_of_events(analytics: Analytics) -> None:
    at = [NOON, NOON + timedelta(minutes=25), NOON + timedelta(minutes=50), NOON + timedelta(minutes=81)]
    await analytics.happen(event("c", at[2], session="s"), event("a", at[0], session="s"))
    assert await analytics.figures("sessions", "visitors", "page_views", "bounce_rate") == [2, 1, 2, 1]
    await analytics.happen(event("b", at[1], session="s"))
    assert await analytics.figures("sessions", "visitors", "page_views", "bounce_rate", "session_seconds") == [1, 1, 3, 0, 3000]
    await analytics.happen(event("d", at[3], session="s"))
    assert await analytics.figures("sessions", "page_views") == [2, 4]


async def test_the_first_source_is_that_of_the_first_session_whoever_asks(analytics: Analytics) -> None:
    """Of ada a visit before she was known, of grace an order that is older than what is known of her visits, of alan nothing."""

    async def first(user: str) -> tuple[str, str, str, str]:
        answer = await analytics.first_source(user)
        return answer.source, answer.medium, answer.campaign, answer.session

    def order(number: str, at: datetime, source: str = "") -> PurchaseChanged:
        sold = _order(f"p{number}", f"wordpress:{number}", ("sale", 100))
        sold.sold_at.FromDatetime(at)
        sold.utm_attribution.source = source
        return sold

    await analytics.happen(
        *(_linked(f"wordpress:{number}", name) for number, name in (("1", "ada"), ("2", "grace"), ("3", "alan"))),
        event("a", NOON - timedelta(days=2), session="s1", source="google"),
        event("b", NOON - timedelta(days=1), session="s2", user="1"),
        event("c", NOON, session="s3", user="2", source="facebook"),
        event("d", NOON - timedelta(days=9), user="3", source="bing"),
        order("1", NOON, "newsletter"),
        order("2", NOON - timedelta(days=8), "newsletter"),
        order("3", NOON),
    )
    assert await first("1") == ("(direct)", "(none)", "", "session:s2")
    await analytics.happen(_linked("session:s1", "ada"))
    assert await first("1") == ("google", "(none)", "", "session:s1")
    assert await first("2") == ("newsletter", "(none)", "spring", "")
    assert [await first(each) for each in ("3", "99")] == [("(unknown)", "(none)", "", "")] * 2
    rows = {row["customer"]: row["first_source"] for row in await analytics.report("customers", *MARCH)}
    assert rows == {"user:ada": "google", "user:grace": "newsletter", "user:alan": "(unknown)"}
    by_source = [row["first_source"] for row in await analytics.report("customers", *MARCH, sort="-first_source")]
    assert by_source == ["newsletter", "google", "(unknown)"]
    async with analytics.sessions() as session:
        customers = [each async for each in EXPORTS["customers"].read(session, NOON - timedelta(days=30), NOON + timedelta(days=1))]
    assert {each[0]: each[-1] for each in customers} == rows


PERIODS = [
    ("2025-01-15", "2026-04-20"),
    ("2026-03-01", "2026-04-30"),
    ("2026-03-28", "2026-03-30"),
    ("2026-03-29", "2026-03-29"),
    ("2026-03-22", "2026-04-02"),
]
ZONES = pytest.mark.parametrize(
    "settings",
    [{"site_timezone": ZoneInfo(zone), "site_affiliates": AFFILIATES} for zone in ("Europe/Berlin", "Asia/Kathmandu")],
    indirect=True,
)


@ZONES
async def test_every_figure_is_that_of_what_was_sent(analytics: Analytics, settings: Settings) -> None:
    shop = generated(seed=16)
    for batch in shop.batches:
        await analytics.happen(*batch)
    for period in PERIODS:
        await _compare(analytics, Oracle(shop, settings.site_timezone.key), period)


@pytest.mark.parametrize("settings", [{"site_timezone": ZoneInfo("Europe/Berlin"), "site_affiliates": AFFILIATES}], indirect=True)
async def test_orders_of_staff_and_tests_count_for_who_includes_them(analytics: Analytics, settings: Settings) -> None:
    for batch in generated(seed=19).batches:
        await analytics.happen(*batch)
    for include, orders in (("", 48), ("staff", 50), ("tests", 50), ("tests,staff", 54)):
        shop = generated(seed=19, included=frozenset(include.split(",")))
        assert len(shop.orders) == orders, "some are of staff and tests at once"
        await _compare(analytics, Oracle(shop, settings.site_timezone.key), PERIODS[-1 if include else 0], include)


async def test_an_order_that_turns_out_to_be_a_test_is_taken_back(analytics: Analytics) -> None:
    order = _order("p1", "user:ada", ("sale", 100))
    order.coupon_codes.append("ada10")
    await analytics.happen(order)
    assert await analytics.figures("orders", "new_customers", "net_revenue") == [1, 1, 100]
    order.excluded = True
    order.exclusions.append(EXCLUSION_TEST)
    await analytics.happen(order, _order("p2", "user:ada", ("sale", 10)))
    assert await analytics.figures("orders", "new_customers", "net_revenue") == [1, 1, 10]
    assert await analytics.figures("orders", "new_customers", "net_revenue", include="staff") == [1, 1, 10]
    assert await analytics.figures("orders", "new_customers", "net_revenue", include="staff, tests") == [2, 1, 110]
    order.exclusions.pop()
    await analytics.happen(order)
    assert await analytics.figures("orders", include="tests") == [1], "of an order without a reason it is not known which it is"
    assert await analytics.figures("orders", include="staff,tests") == [2]
    await analytics.erase(["user:ada"])
    assert re.findall("ada|spring", await analytics.everything()) == []
    assert await analytics.figures("orders", "customers", "net_revenue", include="staff,tests") == [2, 2, 110]


async def _compare(analytics: Analytics, oracle: Oracle, period: tuple[str, str], include: str = "") -> None:
    """Compares the dashboard and all reports of a period with what the oracle computes."""
    answer = await analytics.dashboard(*period, include=include)
    found = {each.key: each.value if each.HasField("value") else None for each in answer.figures}
    assert found == pytest.approx(oracle.figures(*period)), period
    assert [shown(each) for each in answer.series] == [pytest.approx(each) for each in oracle.series(*period)], period
    steps = oracle.report("funnel", "step", *period)
    assert [(each.step, each.people, each.drop_off) for each in answer.funnel] == [
        (step, row["people"], row["drop_off"]) for step, row in steps.items()
    ]
    for report, group in REPORTS:
        rows = keyed(await analytics.report(report, *period, group_by=group, page_size=10_000, include=include), group)
        expected = oracle.report(report, group, *period)
        assert rows.keys() == expected.keys(), (report, group, period)
        assert rows == {name: pytest.approx(row, abs=1e-3) for name, row in expected.items()}, (report, group, period)


@ZONES
async def test_every_figure_of_a_course_and_of_what_led_to_it_is_that_of_what_was_sent(analytics: Analytics, settings: Settings) -> None:
    shop = generated(seed=18, visitors=90)
    for batch in shop.batches:
        await analytics.happen(*batch)
    oracle = Oracle(shop, settings.site_timezone.key)
    kinds = ("landing_page", "video", "campaign", "source")
    for period in PERIODS:
        expected = {(row["kind"], row["content"], row["course"]): row for row in oracle.content(*period)}
        rows = [row for kind in kinds for row in await analytics.content(*period, kind=kind, page_size=10_000)]
        assert {(row["kind"], row["content"], row["course"]): row for row in rows} == {
            key: pytest.approx(row, abs=1e-3) for key, row in expected.items()
        }, period
    period, before = ("2026-03-28", "2026-04-02"), ("2026-03-22", "2026-03-27")
    now, then = (oracle.report("courses", "course", *each) for each in (period, before))
    assert {*now} == {"python", "pmp", "scrum", "product-2"}
    for course, row in now.items():
        answer = await analytics.course(course, *period, top=100)
        assert answer.title == row["title"]
        found = {each.key: (each.value if each.HasField("value") else None, each.compared) for each in answer.figures}
        assert found.keys() == row.keys() - {"title"}
        assert {key: value for key, (value, _) in found.items()} == pytest.approx({key: row[key] for key in found}, abs=1e-3)
        earlier = {key: then.get(course, {}).get(key) or 0 for key in found}
        assert {key: compared for key, (_, compared) in found.items()} == pytest.approx(earlier, abs=1e-3)
        assert [shown(each) for each in answer.trend] == [pytest.approx(each, abs=1e-3) for each in oracle.course_trend(course, *period)]
        led_by = [shown(each) for each in answer.sources]
        assert {(each["kind"], each["content"]) for each in led_by} == {*await _content_of(analytics, course, period)}


async def _content_of(analytics: Analytics, course: str, period: tuple[str, str]) -> set[tuple[str, str]]:
    rows = [
        row
        for kind in ("landing_page", "video", "campaign", "source")
        for row in await analytics.content(*period, kind=kind, course=course)
    ]
    assert {row["course"] for row in rows} <= {course}
    return {(row["kind"], row["content"]) for row in rows}


class Copy:
    """A copy of content, kept by the feed of its changes."""

    def __init__(self, analytics: Analytics) -> None:
        self._analytics = analytics
        self.cursor = ""
        self.rows: dict[int, courses_pb2.ContentChange] = {}

    async def follow(self, page_size: int = 7) -> Sequence[int]:
        """Applies what has changed; returns the ids of the changes."""
        applied: list[int] = []
        has_more = True
        while has_more:
            answer = await self._analytics.changes(self.cursor, page_size)
            assert len(answer.changes) <= page_size
            if answer.restarted:
                self.rows.clear()
            for change in answer.changes:
                if change.removed:
                    del self.rows[change.id]
                else:
                    self.rows[change.id] = change
            applied += [change.id for change in answer.changes]
            self.cursor, has_more = answer.cursor, answer.has_more
        return applied

    def shown(self) -> list[dict[str, Any]]:
        """The rows, less those without any figure."""
        rows = [{"day": row.day, **shown(row.performance)} for row in self.rows.values()]
        return [row for row in rows if any(row[name] for name in ("sessions", "orders", "gross_revenue", "refunds", "net_revenue"))]


async def _content_by_day(analytics: Analytics, days: Sequence[str]) -> list[dict[str, Any]]:
    return [{"day": day, **row} for day in days for row in await analytics.content(day, day, page_size=10_000)]


def _sorted(rows: Sequence[dict[str, Any]]) -> list[Any]:
    return sorted(tuple(sorted((name, value) for name, value in row.items() if name != "title")) for row in rows)


@ZONES
async def test_a_copy_that_follows_the_changes_of_content_is_complete_at_every_step(analytics: Analytics, settings: Settings) -> None:
    shop = generated(seed=18, visitors=40)
    copy, changes = Copy(analytics), 0
    for batch in shop.batches:
        await analytics.happen(*batch)
        applied = await copy.follow()
        assert len(applied) == len(set(applied)), "a row is listed once, however often it changed"
        changes += len(applied)
    assert changes > len(copy.rows) > 50, "rows changed again"
    assert await copy.follow() == []
    days = sorted({row["day"] for row in copy.shown()})
    assert _sorted(copy.shown()) == _sorted(await _content_by_day(analytics, days))
    other = Copy(analytics)
    await other.follow(page_size=1000)
    assert _sorted(other.shown()) == _sorted(copy.shown())
    totals = {(row["kind"], row["content"], row["course"]) for row in await analytics.content("2025-01-01", "2026-12-31", page_size=10_000)}
    assert {(row["kind"], row["content"], row["course"]) for row in copy.shown()} == totals
    assert (await analytics.changes()).timezone == settings.site_timezone.key


async def test_changes_that_are_read_while_others_are_made_have_no_gap(analytics: Analytics, settings: Settings) -> None:
    calendar, copy = Calendar(settings.site_timezone), Copy(analytics)
    follow = FollowEvents(KeyedHasher(bytes(32)), calendar, AffiliateProgram(Affiliates(), calendar))
    done: list[int] = []

    async def apply(database: Database, name: int) -> None:
        for number in range(60):
            seen = event(f"e{name}-{number}", NOON, session=f"s{name}-{number}", url=f"https://shop.example/{name}/{number % 20}")
            seen.enrichment.course = "python"
            record = log_pb2.Record(payload=seen.SerializeToString())
            await transact(database.sessions, lambda session, record=record: follow(session, [Delivery("events", 0, START, 0, 0, record)]))
        done.append(name)

    async def read() -> None:
        while len(done) < 2:
            await copy.follow(page_size=3)
        await copy.follow(page_size=3)

    async with open_database(settings.database("analytics")) as first, open_database(settings.database("analytics")) as second:
        await asyncio.gather(apply(first, 1), apply(second, 2), read())
    assert {row["content"]: row["sessions"] for row in copy.shown()} == {f"/{name}/{number}": 3 for name in (1, 2) for number in range(20)}


async def test_a_removed_row_leaves_a_copy_and_is_known_by_its_id_alone(analytics: Analytics) -> None:
    seen, other = (event(f"e{name}", NOON, session=name, url=f"https://shop.example/{name}") for name in ("diary", "course"))
    seen.enrichment.course = other.enrichment.course = "python"
    await analytics.happen(seen, other)
    copy = Copy(analytics)
    await copy.follow()
    (gone,) = [number for number, row in copy.rows.items() if row.performance.content == "/diary"]
    await analytics.erase(["session:diary"])
    changes = (await analytics.changes(copy.cursor)).changes
    assert [change for change in changes if change.id == gone] == [courses_pb2.ContentChange(id=gone, removed=True)]
    await copy.follow()
    assert {row["content"] for row in copy.shown()} == {"/course", "(other)"}
    assert "diary" not in await analytics.everything()


async def test_a_replay_lets_copies_begin_again(analytics: Analytics, settings: Settings) -> None:
    seen = [event(f"e{number}", NOON, session=f"s{number}", url=f"https://shop.example/{number}") for number in range(5)]
    for each in seen:
        each.enrichment.course = "python"
    await analytics.happen(*seen)
    copy = Copy(analytics)
    assert len(await copy.follow(2)) == 5
    before, cursor = _sorted(copy.shown()), copy.cursor
    await replay("analytics", settings.database_url, None)
    assert (await copy.follow(2), copy.cursor) == ([], cursor), "nothing is known yet"
    analytics.start_consumers()
    await analytics.follow()
    assert (await analytics.changes(cursor)).restarted
    assert len(await copy.follow(2)) == 5
    assert _sorted(copy.shown()) == before
    assert not (await analytics.changes(copy.cursor)).restarted


@pytest.mark.parametrize("settings", [{"site_timezone": ZoneInfo("Europe/Berlin")}], indirect=True)
async def test_a_replay_gives_identical_reports_also_in_another_time_zone(analytics: Analytics, settings: Settings) -> None:
    shop = generated(seed=17, visitors=24)
    for batch in shop.batches:
        await analytics.happen(*batch)
    before = await analytics.totals()
    assert len(before) > 100
    await replay("analytics", settings.database_url, None)
    assert await analytics.totals() == set(), "the tables follow from topics alone"
    analytics.start_consumers()
    await analytics.follow()
    assert await analytics.totals() == before
    with pytest.raises(CommandFailed, match="replay it without --topic"):
        await replay("analytics", settings.database_url, "events")


async def test_persons_who_are_linked_merged_and_separated_count_as_many_as_they_are(analytics: Analytics) -> None:
    await analytics.happen(*(event(f"e{number}", NOON + timedelta(days=number % 2), session=f"s{number}") for number in range(4)))
    assert await analytics.figures("visitors", "sessions") == [4, 4]
    await analytics.happen(*(_linked(f"session:s{number}", f"u{number // 2}") for number in range(4)))
    assert await analytics.figures("visitors", "sessions") == [2, 4]
    await analytics.happen(IdentityChanged(merge=MergeChanged(user_id="u0", merged_user_id="u1")))
    assert await analytics.figures("visitors") == [1]
    assert [await analytics.figures("visitors", since=day, until=day) for day in ("2026-03-10", "2026-03-11")] == [[1], [1]]
    await analytics.happen(IdentityChanged(merge=MergeChanged(user_id="u0", merged_user_id="u1", undone=True)))
    assert await analytics.figures("visitors") == [2]


async def test_what_a_repetition_adds_replaces_the_event(analytics: Analytics) -> None:
    first = event("e1", NOON, session="s")
    await analytics.happen(first, event("e2", NOON, session="s"))
    first.is_update, first.enrichment.is_bot = True, True
    await analytics.happen(first)
    assert await analytics.figures("sessions", "page_views") == [1, 1]
    of_day = event("e3", NOON)
    of_day.enrichment.visitor = "v-1"
    await analytics.happen(of_day)
    assert await analytics.figures("sessions", "visitors", "page_views") == [2, 2, 2]
    of_day.is_update, of_day.event.user_id, of_day.enrichment.visitor = True, "u1", "u1"
    await analytics.happen(of_day)
    assert await analytics.figures("sessions", "visitors", "page_views") == [1, 1, 2], "an event of a user without a session is no visit"


@pytest.mark.parametrize("together", [True, False])
async def test_a_repetition_that_arrives_first_is_not_undone_by_the_event(analytics: Analytics, *, together: bool) -> None:
    firsts = [event("e1", NOON, session="s"), event("e2", NOON)]
    firsts[1].enrichment.visitor = "v-1"
    repetitions = [event("e1", NOON, session="s", user="u1"), event("e2", NOON, user="u1")]
    for repetition in repetitions:
        repetition.is_update = True
    messages = [*repetitions, *firsts]
    deliveries = [Delivery("events", 0, START, 0, 0, log_pb2.Record(payload=message.SerializeToString())) for message in messages]
    calendar = Calendar(ZoneInfo("UTC"))
    follow = FollowEvents(KeyedHasher(bytes(32)), calendar, AffiliateProgram(Affiliates(), calendar))
    for some in (deliveries,) if together else (deliveries[:2], deliveries[2:]):
        await transact(analytics.sessions, lambda session, some=some: follow(session, some))
    assert await analytics.figures("sessions", "visitors", "page_views") == [1, 1, 2]
    await analytics.happen(event("e3", NOON, session="t", user="u1"))
    assert await analytics.figures("sessions", "visitors", "page_views") == [2, 1, 3], "the first session is that of the user as well"


async def test_an_erasure_deletes_facts_and_leaves_totals(analytics: Analytics) -> None:
    await analytics.happen(
        *(event(f"e{number}", NOON, session="s", user="ada" if number else "", url="https://shop.example/diary") for number in range(3)),
        event("server", NOON, user="ada", kind="lead_capture"),
        _linked("session:s", "ada"),
        order := _order("p1", "user:ada", ("sale", 100)),
    )
    whole = {"site", "visitors", "customers"}
    before = {row for row in await analytics.totals() if row[1] in whole}
    facts = await analytics.everything()
    assert all(text in facts for text in ("user:ada", "/diary", "spring"))
    erased = await analytics.erase(["user:ada", "session:s"])
    counts = {each.table: each.rows for each in erased.total if each.table.startswith("analytics")}
    assert counts == {"analytics_sessions": 2, "analytics_presences": 3, "analytics_customer_months": 1, "analytics_orders": 1}
    assert {row for row in await analytics.totals() if row[1] in whole} == before
    assert re.findall(r"ada|session:s\b|spring|diary", await analytics.everything()) == []
    assert await analytics.report("content", "2026-03-01", "2026-03-31") == [{"page": "(other)", "page_views": 3}]
    order.subject = PSEUDONYM
    order.utm_attribution.Clear()
    _book(order, "partial_refund", -30)
    await analytics.happen(order)
    assert await analytics.figures("orders", "customers", "net_revenue", "refunds") == [1, 1, 70, 30]
    (source,) = (each.rows for each in (await analytics.dashboard()).rankings if each.dimension == "source")
    assert {row.value: (row.orders, row.revenue) for row in source} == {"google": (1, 70.0), "(direct)": (0, 0.0)}


async def test_cohorts_follow_late_orders_merges_refunds_and_erasures(analytics: Analytics) -> None:
    async def cohorts(group_by: str = "first_order") -> list[tuple[Any, ...]]:
        rows = await analytics.report("cohorts", "2026-01-01", "2026-04-30", group_by=group_by)
        return [tuple(row[name] for name in (group_by, "months_later", "persons", "buyers", "retention", "net_revenue")) for row in rows]

    def order(purchase_id: str, subject: str, month: int, amount: int) -> PurchaseChanged:
        sold = _order(purchase_id, subject, ("sale", amount))
        for time in (sold.sold_at, sold.entries[0].timestamp):
            time.FromDatetime(NOON.replace(month=month))
        return sold

    ada = IdentityChanged(user=UserChanged(user_id="ada"))
    ada.user.registration_date.FromDatetime(NOON.replace(month=3))
    await analytics.happen(order("p1", "user:ada", 3, 100), order("p2", "user:ada", 4, 50), order("p3", "email:eve", 3, 10), ada)
    assert await cohorts() == [("2026-03", 0, 2, 2, 1, 110), ("2026-03", 1, 2, 1, 0.5, 50)]
    assert await cohorts("registration") == [("2026-03", 0, 1, 1, 1, 100), ("2026-03", 1, 1, 1, 1, 50)]
    late = order("p4", "email:eve", 2, 7)
    await analytics.happen(late)
    assert await cohorts() == [
        *(("2026-02", 0, 1, 1, 1, 7), ("2026-02", 1, 1, 1, 1, 10), ("2026-02", 2, 1, 0, 0, 0)),
        *(("2026-03", 0, 1, 1, 1, 100), ("2026-03", 1, 1, 1, 1, 50)),
    ]
    await analytics.happen(_linked("email:eve", "eve"), IdentityChanged(merge=MergeChanged(user_id="eve", merged_user_id="ada")))
    assert await cohorts() == [("2026-02", 0, 1, 1, 1, 7), ("2026-02", 1, 1, 1, 1, 110), ("2026-02", 2, 1, 1, 1, 50)]
    assert await cohorts("registration") == [("2026-03", 0, 1, 1, 1, 110), ("2026-03", 1, 1, 1, 1, 50)]
    _book(late, "refund", -7)
    await analytics.happen(late)
    assert (await cohorts())[1] == ("2026-02", 1, 1, 1, 1, 103), "a refund counts in the month in which it was made"
    before = await cohorts()
    await analytics.erase(["user:ada", "user:eve", "email:eve"])
    assert await cohorts() == before
    assert re.findall("ada|eve", await analytics.everything()) == []
    last = order("p2", PSEUDONYM, 4, 50)
    last.utm_attribution.Clear()
    _book(last, "refund", -20)
    await analytics.happen(last)
    assert (await cohorts())[1] == ("2026-02", 1, 1, 1, 1, 83), "of the erased person's order as well"


@pytest.mark.parametrize("settings", [{"site_affiliates": {"affiliates": {"ada": {"rate": 0.1, "coupons": ["ada10"]}}}}], indirect=True)
async def test_the_affiliate_of_an_erased_buyers_order_keeps_the_commission_until_it_is_refunded(analytics: Analytics) -> None:
    async def of(report: str) -> list[tuple[Any, ...]]:
        rows = await analytics.report(report, "2026-03-01", "2026-03-31")
        return [tuple(row[name] for name in _SHOWN[report]) for row in rows]

    order = _order("p1", "user:ada", ("sale", 100))
    order.amount, order.tax_total, order.base_tax_total, order.country = "100", "20", "20", "DE"
    order.coupon_codes.extend(["ada10", "lovelace"])
    await analytics.happen(order)
    assert await of("coupons") == [("ada10", 1, 100), ("lovelace", 1, 100)]
    order.coupon_codes.pop()
    await analytics.happen(order)
    assert "lovelace" not in await analytics.everything(), "an erasure would not find it"
    assert await of("affiliates") == [("ada", 1, 8)]
    assert await of("coupons") == [("ada10", 1, 100)]
    await analytics.erase(["user:ada"])
    assert await of("affiliates") == [("ada", 1, 8)]
    assert await of("coupons") == [("(other)", 1, 100)]
    order.subject = PSEUDONYM
    order.utm_attribution.Clear()
    order.ClearField("coupon_codes")
    _book(order, "partial_refund", -50)
    await analytics.happen(order)
    assert await of("affiliates") == [("ada", 1, 4)]
    assert await of("coupons") == [("(other)", 1, 50)]
    assert await analytics.figures("taxes", "net_revenue") == [20, 50]


_SHOWN = {"affiliates": ("affiliate", "orders", "commission"), "coupons": ("coupon", "orders", "net_revenue")}


async def test_an_erasure_leaves_what_was_sold_of_a_course_without_what_led_to_it(analytics: Analytics) -> None:
    seen = event("e1", NOON, session="s", source="google", url="https://shop.example/courses/python/diary")
    seen.enrichment.course, seen.enrichment.video, seen.enrichment.campaign = "python", "holiday", "spring"
    order = _order("p1", "user:ada", ("sale", 100))
    order.session_id, order.utm_attribution.campaign = "s", ""
    order.lines.add(product_id="1", product_name="Python", amount="80", course_ids=["python", "sql"])
    await analytics.happen(seen, event("e2", NOON, session="s", user="ada", kind="add_to_cart"), order)
    assert [step.people for step in (await analytics.dashboard()).funnel] == [1, 1, 1, 1]
    assert {row["content"] for row in await analytics.content(*MARCH)} == {"/courses/python/diary", "holiday", "spring"}
    await analytics.erase(["user:ada", "session:s"])
    assert re.findall(r"ada|session:s\b|holiday|spring|diary", await analytics.everything()) == []
    order.subject, order.session_id = PSEUDONYM, ""
    order.utm_attribution.Clear()
    _book(order, "partial_refund", -30)
    await analytics.happen(order)
    assert [step.people for step in (await analytics.dashboard()).funnel] == [1, 1, 1, 1]
    sold = {row["course"]: (row["orders"], row["gross_revenue"], row["refunds"]) for row in await analytics.report("courses", *MARCH)}
    assert sold == {"python": (1, 40, 12), "sql": (1, 40, 12), "(other)": (0, 0, 0)}
    rows = await analytics.content(*MARCH, kind="video")
    assert {(row["content"], row["course"], row["orders"], row["net_revenue"]) for row in rows} == {
        ("(other)", "python", 1, 28),
        ("(other)", "sql", 1, 28),
        ("(other)", "(other)", 0, 0),
    }


async def test_an_order_counts_for_the_session_that_its_visitor_has_now(analytics: Analytics) -> None:
    order = _order("p1", "user:ada", ("sale", 100))
    order.session_id = "s"
    await analytics.happen(order)
    assert [step.people for step in (await analytics.dashboard()).funnel] == [0, 0, 0, 0], "of an unknown session nobody is known"
    await analytics.happen(event("e1", NOON - timedelta(minutes=9), session="s"))
    assert [step.people for step in (await analytics.dashboard()).funnel] == [1, 1, 1, 1]
    await analytics.happen(event("e2", NOON - timedelta(minutes=8), session="s", user="bob"), event("e3", NOON, session="t", user="bob"))
    assert [step.people for step in (await analytics.dashboard()).funnel] == [1, 1, 1, 1], "the session is bob's, in both steps"


@pytest.mark.parametrize("settings", [{"site_timezone": ZoneInfo("Europe/Berlin")}], indirect=True)
async def test_an_hour_that_comes_twice_is_two_hours(analytics: Analytics) -> None:
    first = datetime(2026, 10, 25, 0, 30, tzinfo=UTC)
    await analytics.happen(*(event(f"e{number}", first + timedelta(hours=number), session=f"s{number}") for number in range(2)))
    answer = await analytics.dashboard("2026-10-25", "2026-10-25")
    assert (answer.grain, len(answer.series)) == ("hour", 25)
    assert [(each.hour, each.sessions) for each in answer.series if each.sessions] == [
        ("2026-10-25T02:00:00+02:00", 1),
        ("2026-10-25T02:00:00+01:00", 1),
    ]
    assert not any(each.visitors for each in answer.series), "visitors are not counted by the hour"


async def test_a_course_is_known_once_something_is_recorded_of_it(analytics: Analytics) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="nothing is known of this course") as refused:
        await analytics.course("python", *MARCH)
    assert refused.value.code() is grpc.StatusCode.NOT_FOUND
    order = _order("p1", "user:ada", ("sale", 100))
    order.lines.add(product_id="python", product_name="Python", product_type="course", amount="100")
    await analytics.happen(order)
    answer = await analytics.course("python", *MARCH, explain=True)
    figures = {each.key: each for each in answer.figures}
    assert (answer.title, figures["net_revenue"].value, figures["net_revenue"].facts, figures["orders"].unit) == (
        "Python",
        100,
        1,
        "orders",
    )
    assert not figures["conversion"].HasField("value")
    assert figures["gross_revenue"].definition.endswith(f"{PART}.")
    assert (await analytics.course("python", "2020-01-01", "2020-01-02")).figures[4].value == 0


async def test_attribution_is_that_of_journeys(settings: Settings, resources: Resources) -> None:
    address = f"127.0.0.1:{free_port()}"
    own = settings_for(ROLE, settings, service_addresses={"journeys": address})
    async with newest_database(settings, "analytics"), newest_database(settings, "journeys"):
        runtime = ROLE.compose(own, resources)
        journeys = ROLES["journeys"].compose(settings_for(ROLES["journeys"], settings, listen=address), resources)
        async with serving(runtime) as channel:
            analytics = Analytics(runtime, channel)
            with pytest.raises(grpc.aio.AioRpcError, match="attribution is not known") as refused:
                await analytics.report("attribution", *MARCH)
            assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
            async with serving(journeys):
                orders = [_order(f"p{number}", "user:ada", ("sale", 100)) for number in range(2)]
                for number, order in enumerate(orders):
                    order.timestamp.FromDatetime(NOON)
                    order.paid_at.FromDatetime(NOON + timedelta(days=30 * number))
                    order.payment_status, order.paid_amount, order.base_net_amount = PAYMENT_STATUS_COMPLETED, "100", "100"
                visits = [
                    event(source, NOON - timedelta(days=2 - number), session=source, user="ada", source=source)
                    for number, source in enumerate(("google", "newsletter"))
                ]
                await analytics.happen(*visits, *orders)
                for consumer in Topics(journeys).consumers.values():
                    for partition in range(settings.log_partitions):
                        while await consumer.step(partition):
                            pass

                async def is_attributed() -> bool:
                    """A report waits 0.1 s for what is pending."""
                    return bool(await analytics.report("attribution", *MARCH))

                await eventually(is_attributed)
                found = {model: await analytics.report("attribution", *MARCH, model=model) for model in ("", "first_touch", "linear")}
    assert found == {
        "": [{"source": "newsletter", "orders": 1, "revenue": 100}],
        "first_touch": [{"source": "google", "orders": 1, "revenue": 100}],
        "linear": [{"source": "google", "orders": 0.5, "revenue": 50}, {"source": "newsletter", "orders": 0.5, "revenue": 50}],
    }


async def test_retention_deletes_facts_and_leaves_totals(analytics: Analytics, settings: Settings) -> None:
    await analytics.happen(event("e1", NOON, session="s"))
    before = await analytics.totals()
    kept = settings.model_copy(update={"site_retention_tables": {"analytics.analytics_sessions": timedelta(days=30)}})
    retention = Retention(kept, "analytics", analytics.sessions, expiries(personal_tables(Calendar(settings.site_timezone))))
    assert await retention.look(NOON + timedelta(days=29)) == {"analytics_sessions": 0}
    assert await retention.look(NOON + timedelta(days=31)) == {"analytics_sessions": 1}
    assert await analytics.totals() == before


async def test_two_processes_that_change_the_same_facts_lose_nothing(analytics: Analytics, settings: Settings) -> None:
    events = [event(f"e{number}", NOON + timedelta(minutes=number), session=f"s{number % 3}") for number in range(60)]
    calendar = Calendar(settings.site_timezone)
    follow = FollowEvents(KeyedHasher(bytes(32)), calendar, AffiliateProgram(Affiliates(), calendar))

    async def apply(database: Database, some: Sequence[event_pb2.EventStored]) -> None:
        for message in some:
            record = log_pb2.Record(payload=message.SerializeToString())
            await transact(database.sessions, lambda session, record=record: follow(session, [Delivery("events", 0, START, 0, 0, record)]))

    async with open_database(settings.database("analytics")) as first, open_database(settings.database("analytics")) as second:
        await asyncio.gather(apply(first, events[::2]), apply(second, events[1::2]))
    assert await analytics.figures("sessions", "visitors", "page_views", "session_seconds") == [3, 3, 60, 57 * 60]


async def test_csv_is_the_report(analytics: Analytics) -> None:
    await analytics.happen(
        *(event(f"e{number}", NOON, session=f"s{number}", url=f"https://shop.example/{number % 3}") for number in range(9))
    )
    rows = await analytics.report("content", "2026-03-01", "2026-03-31")
    query = ParseDict({"report": "content", "from": "2026-03-01", "to": "2026-03-31"}, pb.ExportReportRequest())
    body = await analytics.call("ExportReport", query)
    assert body.content_type == "text/csv; charset=utf-8"
    shown = [
        {name: value if name == "page" else float(value) for name, value in row.items()} for row in DictReader(StringIO(body.data.decode()))
    ]
    assert shown == rows
    assert len(rows) == 3


async def test_a_figure_explains_itself(analytics: Analytics) -> None:
    await analytics.happen(event("e1", NOON, session="s", source="google"), event("e0", NOON - timedelta(days=31), session="s0"))
    answer = await analytics.dashboard(explain=True)
    views = next(each for each in answer.figures if each.key == "page_views")
    assert (views.value, views.compared, views.facts, views.unit) == (1, 1, 1, "page views")
    assert views.definition == DEFINITIONS["page_views"].text
    assert (answer.compared.to, answer.timezone, answer.currency) == ("2026-02-28", "UTC", "USD")
    year = await analytics.dashboard(compare="year")
    assert getattr(year.compared, "from") == "2025-03-01"
    alone = await analytics.dashboard(compare="none")
    assert not alone.HasField("compared")
    assert not any(each.HasField("compared") or each.definition for each in alone.figures)


async def test_every_query_of_a_reader_uses_an_index(analytics: Analytics) -> None:
    order = _order("p1", "user:ada", ("sale", 100))
    order.lines.add(product_id="1", product_name="Python", amount="100", course_ids=["python"])
    await analytics.happen(event("e1", NOON, session="s", source="google"), order)
    statements: list[tuple[str, Any]] = []

    def executed(_connection: Any, _cursor: Any, statement: str, parameters: Any, _context: Any, _many: bool) -> None:
        statements.append((statement, parameters))

    listen(analytics.engine.sync_engine, "before_cursor_execute", executed)
    await analytics.dashboard()
    for report, group in REPORTS:
        await analytics.report(report, "2026-02-02", "2026-04-02", group_by=group)
    await analytics.dashboard("2026-03-10", "2026-03-10")
    await analytics.dashboard("2025-01-10", "2026-03-10")
    await analytics.dashboard("2026-03-10", "2026-03-10", include="staff")
    await analytics.course("python", "2026-02-02", "2026-04-02")
    await analytics.content("2026-02-02", "2026-04-02")
    await analytics.changes()
    remove(analytics.engine.sync_engine, "before_cursor_execute", executed)
    read = [(statement, parameters) for statement, parameters in statements if statement.startswith("SELECT")]
    assert len(read) > 30
    async with analytics.engine.connect() as connection:
        for statement, parameters in read:
            plan = [dict(row) for row in (await connection.exec_driver_sql(f"{analytics.explain} {statement}", parameters)).mappings()]
            scans = [step for step in plan if step.get("type") == "ALL" or step.get("detail", "").startswith("SCAN")]
            # Rows that another step of the plan has found are no table.
            assert [step for step in scans if step.get("table") != "<derived2>" and step.get("detail") != f"SCAN {FOUND}"] == [], plan


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        ("GetDashboard", pb.GetDashboardRequest(compare="tomorrow")),
        ("GetDashboard", ParseDict({"from": "2026-02-02", "to": "2026-02-01"}, pb.GetDashboardRequest())),
        ("GetReport", pb.GetReportRequest(report="gossip")),
        ("ExportReport", pb.ExportReportRequest(report="content", group_by="mood")),
        ("GetReport", pb.GetReportRequest(report="attribution", model="astrology")),
        ("GetReport", pb.GetReportRequest(report="attribution", include="staff")),
        ("ExportReport", pb.ExportReportRequest(report="revenue", include="robots")),
        ("GetDashboard", pb.GetDashboardRequest(include="staff,bots")),
        ("GetCoursePerformance", courses_pb2.GetCoursePerformanceRequest()),
        ("GetCoursePerformance", courses_pb2.GetCoursePerformanceRequest(id="python", compare="tomorrow")),
        ("GetContentPerformance", courses_pb2.GetContentPerformanceRequest(kind="rumour")),
        ("ListContentChanges", courses_pb2.ListContentChangesRequest(since="yesterday")),
    ],
)
async def test_what_there_is_not_is_refused(analytics: Analytics, method: str, request_: Message) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await analytics.call(method, request_)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await analytics.call(method, request_, scope="site")
    assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


def _linked(identifier: str, user: str) -> IdentityChanged:
    changed = IdentityChanged(alias=AliasChanged(subject=identifier, user_id=user))
    changed.alias.linked_at.FromDatetime(NOON)
    return changed


def _order(purchase_id: str, subject: str, sale: tuple[str, int]) -> PurchaseChanged:
    order = PurchaseChanged(purchase_id=purchase_id, subject=subject, currency="USD", base_currency="USD")
    order.utm_attribution.source, order.utm_attribution.campaign = "google", "spring"
    order.sold_at.FromDatetime(NOON)
    _book(order, *sale)
    return order


def _book(order: PurchaseChanged, kind: str, amount: int) -> None:
    entry = order.entries.add(kind=EntryKind.Value(f"ENTRY_KIND_{kind.upper()}"), amount=f"{amount}", base_amount=f"{amount}")
    entry.timestamp.FromDatetime(NOON)
