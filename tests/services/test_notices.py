"""What the mesh itself has to say: summaries and alarms for the owner, and content that has changed, each once."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.analytics.v1.analytics_pb2 import Figure, GetDashboardResponse
from pmp.destinations.v1.notice_pb2 import AlarmChanged, PeriodEnded
from pmp.ingestion.v1 import ingestion_pb2
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceServicer, add_IngestionServiceServicer_to_server
from pmp.purchases.v1.comparison_pb2 import AddComparisonRequest, Comparison
from pmp.purchases.v1.comparison_pb2_grpc import ComparisonServiceStub
from sqlalchemy import select, update
from typing_extensions import override

from cli.replay import replay
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings, WrongSetting
from services.destinations.alarms import is_low
from services.destinations.composition import ROLE
from services.destinations.configuration import load
from services.destinations.models import AlarmRow, DeliveryRow, DestinationRow
from services.destinations.owner.rendering import alarm, shown, summary
from services.destinations.owner.texts import CATALOGUE, Language
from services.destinations.repository import Destinations
from services.destinations.summaries import Kind, ended
from tests.background import eventually, running
from tests.databases import newest_database
from tests.mailbox import Channel, Mailbox, channel, mailbox
from tests.roles import ROLES, serving, settings_for
from tests.servers import free_port
from tests.services.test_analytics import Analytics, event
from tests.webhooks import SECRET, Systems, systems

ONE_DATABASE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what does not depend on the database."""
LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


class Books(IngestionServiceServicer):
    """Ingestion, as far as its books are asked for."""

    def __init__(self) -> None:
        self.balanced = True

    @override
    async def GetAccounting(
        self, request: ingestion_pb2.GetAccountingRequest, context: grpc.aio.ServicerContext[Any, Any]
    ) -> ingestion_pb2.GetAccountingResponse:
        return ingestion_pb2.GetAccountingResponse(balanced=self.balanced)


class Owner:
    """The shop's owner, with the services that know what there is to say."""

    def __init__(self, settings: Settings, resources: Resources, file: Path) -> None:
        self.mail = Mailbox()
        self.channel = Channel()
        self.hooks = Systems()
        self.books = Books()  # pyright: ignore[reportAbstractUsage]  (the other rpcs are not called)
        self.file = file
        self.addresses = {name: f"127.0.0.1:{free_port()}" for name in ("analytics", "ingestion", "purchases")}
        self.settings = settings.model_copy(update={"service_addresses": self.addresses, "site_timezone": ZoneInfo("Europe/Berlin")})
        self.resources = resources
        self.runtime: ServiceRuntime
        self.analytics: Analytics
        self.comparisons: Any

    def configure(self, **tables: Mapping[str, Any]) -> None:
        lines = [f"[{name}]\n" + "\n".join(f"{key} = {_toml(value)}" for key, value in table.items()) for name, table in tables.items()]
        self.file.write_text("\n".join(lines))

    @asynccontextmanager
    async def following(self) -> AsyncGenerator[None]:
        """Lets destinations work, as a new process does."""
        own = settings_for(ROLE, self.settings, destinations=self.file, notices_seconds=0.05, log_disk=None)
        self.runtime = ROLE.compose(own, self.resources)
        await self.runtime.prepare()
        async with AsyncExitStack() as stack:
            for work in self.runtime.background:
                await stack.enter_async_context(running(work()))
            yield

    async def deliveries(self) -> list[tuple[str, str, str]]:
        async with self.runtime.sessions.reading() as session:
            rows = await session.scalars(select(DeliveryRow).order_by(DeliveryRow.id))
            return [(row.destination, row.key, row.state) for row in rows]

    async def delivered(self, count: int) -> bool:
        return [state for _, _, state in await self.deliveries()] == ["delivered"] * count

    async def quiet(self) -> None:
        """Lets some looks pass."""
        await asyncio.sleep(0.5)


def _toml(value: Any) -> str:
    return json.dumps(value)


@pytest.fixture
async def owner(settings: Settings, resources: Resources, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Owner]:
    found = Owner(settings, resources, tmp_path / "destinations.toml")
    monkeypatch.setenv("HOOK_SECRET", SECRET)
    async with AsyncExitStack() as stack:
        found.mail = await stack.enter_async_context(mailbox())
        found.channel = await stack.enter_async_context(channel())
        found.hooks = await stack.enter_async_context(systems())
        monkeypatch.setenv("MAIL_SERVER", f"smtp://127.0.0.1:{found.mail.port}")
        monkeypatch.setenv("CHANNEL", f"http://127.0.0.1:{found.channel.port}/services/T0/B0/x")
        for service in ("analytics", "destinations", "purchases"):
            await stack.enter_async_context(newest_database(settings, service))
        analytics = ROLES["analytics"].compose(
            settings_for(ROLES["analytics"], found.settings, listen=found.addresses["analytics"]), resources
        )
        found.analytics = Analytics(analytics, await stack.enter_async_context(serving(analytics)))
        purchases = ROLES["purchases"].compose(
            settings_for(ROLES["purchases"], found.settings, listen=found.addresses["purchases"]), resources
        )
        found.comparisons = ComparisonServiceStub(await stack.enter_async_context(serving(purchases)))
        server = grpc.aio.server()
        add_IngestionServiceServicer_to_server(found.books, server)
        server.add_insecure_port(found.addresses["ingestion"])
        await server.start()
        yield found
        await server.stop(0)


EMAIL = {"kind": "email", "server": "MAIL_SERVER", "sender": "mesh@shop.example", "to": ["ada@shop.example", "bob@shop.example"]}
SLACK = {"kind": "slack", "webhook": "CHANNEL"}


def _owners(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "email")


async def _was_added_long_ago(owner: Owner) -> None:
    async with owner.following():
        await owner.quiet()
        async with owner.runtime.sessions.begin() as session:
            await Destinations(session).add(_owners("owner", "besitzer"), LONG_AGO)
            await session.execute(update(DestinationRow).values(added_at=LONG_AGO))


async def test_a_summary_has_the_figures_of_the_dashboard_and_is_sent_once(owner: Owner) -> None:
    zone = ZoneInfo("Europe/Berlin")
    week = ended("week", datetime.now(UTC), zone)
    noon = datetime.combine(week.first, datetime.min.time(), zone) + timedelta(hours=12)
    visits = [event(f"e{number}", noon + timedelta(hours=number), session=f"s{number}", source="google") for number in range(30)]
    earlier = [event(f"b{number}", noon - timedelta(days=7, minutes=number), session=f"b{number}") for number in range(12)]
    await owner.analytics.happen(*visits, *earlier)
    owner.configure(
        owner={**EMAIL, "summaries": ["weekly"], "hour": 3, "shop": "Ada's <shop>"},
        besitzer={**EMAIL, "summaries": ["weekly"], "hour": 3, "language": "de", "alarms": False},
    )
    await _was_added_long_ago(owner)
    async with owner.following():
        await eventually(lambda: owner.delivered(2))
    async with owner.following():
        await owner.quiet()
    assert await owner.delivered(2), "a new process decides nothing twice"
    assert sorted(owner.mail.subjects()) == sorted([f"Ada's <shop>: week {week.name}", f"pmp-mesh: Woche {week.name}"])
    assert owner.mail.recipients == [EMAIL["to"], EMAIL["to"]]
    dashboard = await owner.analytics.dashboard(week.first.isoformat(), week.last.isoformat())
    figures = {figure.key: figure for figure in dashboard.figures}
    assert (figures["sessions"].value, figures["sessions"].compared) == (30, 12)
    languages: dict[str, Language] = {"week": "en", "Woche": "de"}
    for message in owner.mail.messages:
        language = languages[str(message["Subject"]).split(": ", 1)[1].split(" ")[0]]
        texts = CATALOGUE[language]
        plain = message.get_body(("plain",))
        html = message.get_body(("html",))
        assert plain is not None
        assert html is not None
        text = plain.get_content()
        for key, name in texts.figures.items():
            figure = figures[key]
            now, before = (shown(each, figure.unit, texts) for each in _values(figure))
            (line,) = [each for each in text.splitlines() if each.startswith(f"{name}  ")]
            assert [part.strip() for part in line.removeprefix(name).split("  ") if part.strip()][:2] == [now, before], line
            assert f">{now}</td>" in html.get_content()
        assert "+150 %" in text
        assert "<shop>" not in html.get_content()
        assert message["Message-ID"].endswith("@shop.example>")
    assert len({str(message["Message-ID"]) for message in owner.mail.messages}) == 2


def _values(figure: Figure) -> tuple[float | None, float | None]:
    return figure.value if figure.HasField("value") else None, figure.compared if figure.HasField("compared") else None


@ONE_DATABASE
async def test_a_summary_that_the_server_refuses_for_now_is_sent_later_under_the_same_id(owner: Owner) -> None:
    owner.configure(owner={**EMAIL, "summaries": ["weekly"], "hour": 3})
    await _was_added_long_ago(owner)
    owner.mail.answer = "451 later"
    async with owner.following():

        async def refused() -> bool:
            async with owner.runtime.sessions.reading() as session:
                return await session.scalar(select(DeliveryRow.detail)) == "the server answers 451"

        await eventually(refused)
        owner.mail.answer = "250 accepted"
        async with owner.runtime.sessions.begin() as session:
            await session.execute(update(DeliveryRow).values(next_attempt_at=LONG_AGO))
        await eventually(lambda: owner.delivered(1))
    assert len(owner.mail.messages) == 1


async def test_an_alarm_is_sent_once_when_it_begins_and_once_when_it_ends(owner: Owner) -> None:
    hook = {"kind": "webhook", "url": f"http://127.0.0.1:{owner.hooks.port}/all", "secrets": ["HOOK_SECRET"], "types": ["order.paid"]}
    hook |= {"allow_private_networks": True, "consent": "none"}
    owner.configure(owner=EMAIL, team=SLACK, hook=hook)

    async def begun() -> bool:
        async with owner.runtime.sessions.reading() as session:
            return set(await session.scalars(select(AlarmRow.alarm))) == {"books:", "paused:hook"}

    async def pause(reason: str | None) -> None:
        async with owner.runtime.sessions.begin() as session:
            await Destinations(session).set_paused("hook", reason)

    async with owner.following():
        async with owner.runtime.sessions.begin() as session:
            await Destinations(session).add({"owner": "email", "team": "slack", "hook": "webhook"}, LONG_AGO)
        await owner.quiet()
        assert await owner.deliveries() == []
        owner.books.balanced = False
        await pause("HTTP 401")
        await eventually(begun)
        await eventually(lambda: owner.delivered(4))
        await owner.quiet()
    async with owner.following():
        await owner.quiet()
        assert await owner.delivered(4), "a new process repeats none"
        owner.books.balanced = True
        await pause(None)
        await eventually(lambda: owner.delivered(8))
        await owner.quiet()
        assert await owner.delivered(8)
    began, over = ["events are missing", "hook is paused"], ["over: events are missing", "over: hook is paused"]
    assert [sorted(owner.mail.subjects()[:2]), sorted(owner.mail.subjects()[2:])] == [
        [f"pmp-mesh: {each}" for each in began],
        [f"pmp-mesh: {each}" for each in over],
    ]
    assert sorted(text.splitlines()[0] for text in owner.channel.texts) == sorted(f"*pmp-mesh: {each}*" for each in (*began, *over))


@ONE_DATABASE
async def test_a_ledger_that_differs_from_the_shop_is_an_alarm_until_it_agrees(owner: Owner) -> None:
    owner.configure(team=SLACK)

    async def compared(different: int) -> None:
        at = Timestamp()
        at.GetCurrentTime()
        comparison = Comparison(shop="woocommerce", checked_at=at, to=at, orders=10, found=2, different=different, **{"from": at})
        await owner.comparisons.AddComparison(AddComparisonRequest(comparison=comparison), metadata=owner.settings.mesh_metadata)

    async with owner.following():
        async with owner.runtime.sessions.begin() as session:
            await Destinations(session).add({"team": "slack"}, LONG_AGO)
        await compared(2)
        await eventually(lambda: owner.delivered(1))
        await compared(0)
        await eventually(lambda: owner.delivered(2))
    said = "orders differ from the shop's"
    assert [text.splitlines()[0] for text in owner.channel.texts] == [f"*pmp-mesh: {said}*", f"*pmp-mesh: over: {said}*"]


@ONE_DATABASE
async def test_what_heals_by_itself_is_no_alarm_and_what_is_unknown_changes_nothing(owner: Owner) -> None:
    owner.configure(team=SLACK)
    async with owner.following():
        pass
    (look,) = [source.look for source in owner.runtime.background[-1].__self__._sources]  # type: ignore[attr-defined]
    now = datetime.now(UTC)
    for balanced in (False, True, False, True):
        owner.books.balanced = balanced
        await look(now)
    assert await owner.deliveries() == []
    async with owner.runtime.sessions.begin() as session:
        await Destinations(session).add({"team": "slack"}, LONG_AGO)
        session.add(_waiting(now - timedelta(minutes=61), None))
        session.add(_waiting(now - timedelta(days=3), now + timedelta(hours=1)))
    await look(now)
    assert len(await owner.deliveries()) == 2
    await look(now)
    assert [key.partition(":")[0] for _, key, _ in await owner.deliveries()][2:] == ["ALARM_QUEUE"]
    async with owner.runtime.sessions.begin() as session:
        await session.execute(update(DeliveryRow).where(DeliveryRow.key == "old").values(state="delivered"))
        await session.execute(update(DeliveryRow).where(DeliveryRow.key.startswith("ALARM")).values(decided_at=now))
    await look(now)
    assert [key.rpartition(":")[2] for _, key, _ in await owner.deliveries()][2:] == ["began", "ended"]


def _waiting(decided_at: datetime, not_before: datetime | None) -> DeliveryRow:
    return DeliveryRow(
        destination="team",
        name="alarm",
        key="old" if not_before is None else "future",
        about="",
        message_id="m",
        subject="",
        order_by="",
        needs_consent=False,
        happened_at=decided_at,
        state="pending",
        attempts=0,
        claim="",
        not_before=not_before,
        next_attempt_at=decided_at,
        decided_at=decided_at,
        detail="",
    )


async def test_changed_content_is_sent_as_a_signed_webhook(owner: Owner) -> None:
    types = ["content.performance.updated"]
    hook = {"kind": "webhook", "url": f"http://127.0.0.1:{owner.hooks.port}/content", "secrets": ["HOOK_SECRET"], "types": types}
    owner.configure(tube={**hook, "allow_private_networks": True})
    noon = datetime.now(UTC)

    def seen(number: int, video: str) -> Any:
        visit = event(f"e{number}", noon, session=f"s{number}", url="https://shop.example/courses/python")
        visit.enrichment.course, visit.enrichment.video = "python", video
        return visit

    def videos() -> list[tuple[str, str]]:
        received = [each.content for each in owner.hooks.received["/content"]]
        assert {each["type"] for each in received} <= {*types}
        rows = [each["data"]["performance"] for each in received if each["data"]["performance"]["kind"] == "video"]
        return [(row["content"], row["sessions"]) for row in rows]

    await owner.analytics.happen(seen(0, "before"))
    async with owner.following():
        async with owner.runtime.sessions.begin() as session:
            await Destinations(session).add({"tube": "webhook"}, LONG_AGO)
        await owner.quiet()
        assert owner.hooks.received["/content"] == [], "what was there before is not sent"
        await owner.analytics.happen(seen(1, "dQw4"))
        await eventually(lambda: _is(videos, [("dQw4", "1")]))
    await owner.analytics.happen(seen(2, "dQw4"))
    async with owner.following():
        await eventually(lambda: _is(videos, [("dQw4", "1"), ("dQw4", "2")]))
        await owner.quiet()
    await replay("analytics", owner.settings.database_url, None)
    owner.analytics.start_consumers()
    await owner.analytics.follow()
    async with owner.following():
        await owner.quiet()
        assert videos() == [("dQw4", "1"), ("dQw4", "2")], "what was computed anew is no change"
        await owner.analytics.happen(seen(3, "other"))
        await eventually(lambda: _is(videos, [("dQw4", "1"), ("dQw4", "2"), ("other", "1")]))
    assert owner.hooks.forged == 0
    assert set(owner.hooks.ids("/content").values()) == {1}


async def _is(found: Any, expected: object) -> bool:
    return found() == expected


@pytest.mark.parametrize(
    ("now", "week", "month"),
    [
        ("2026-11-30T01:59:59+00:00", "2026-W47 2026-11-16 2026-11-22", "2026-10 2026-10-01 2026-10-31"),
        ("2026-11-30T02:00:00+00:00", "2026-W48 2026-11-23 2026-11-29", "2026-10 2026-10-01 2026-10-31"),
        ("2026-12-01T02:00:00+00:00", "2026-W48 2026-11-23 2026-11-29", "2026-11 2026-11-01 2026-11-30"),
        ("2027-01-04T12:00:00+00:00", "2026-W53 2026-12-28 2027-01-03", "2026-12 2026-12-01 2026-12-31"),
        ("2026-03-30T01:00:00+00:00", "2026-W13 2026-03-23 2026-03-29", "2026-02 2026-02-01 2026-02-28"),
    ],
)
def test_a_week_or_month_is_over_when_its_last_day_is_closed_where_the_site_is(now: str, week: str, month: str) -> None:
    expected_of: dict[Kind, str] = {"week": week, "month": month}
    for kind, expected in expected_of.items():
        found = ended(kind, datetime.fromisoformat(now), ZoneInfo("Europe/Berlin"))
        assert f"{found.name} {found.first} {found.last}" == expected
        assert found.closed_at <= datetime.fromisoformat(now)


def _dashboard() -> GetDashboardResponse:
    dashboard = GetDashboardResponse(timezone="Europe/Berlin", currency="EUR")
    for period, first in ((dashboard.period, date(2026, 11, 23)), (dashboard.compared, date(2026, 11, 16))):
        setattr(period, "from", first.isoformat())
        period.to = (first + timedelta(days=6)).isoformat()
    dashboard.figures.add(key="net_revenue", value=12345.5, compared=9876.4, unit="EUR")
    dashboard.figures.add(key="orders", value=12, compared=12, unit="orders")
    dashboard.figures.add(key="conversion_rate", value=0.0125, compared=0.025, unit="ratio")
    dashboard.figures.add(key="average_order_value", unit="EUR")
    ranking = dashboard.rankings.add(dimension="product")
    ranking.rows.add(value="7", title="Python & <SQL>", orders=3, revenue=1234)
    return dashboard


@pytest.mark.parametrize(
    ("language", "lines"),
    [
        (
            "en",
            [
                "2026-11-23 to 2026-11-29 (Europe/Berlin), compared with 2026-11-16 to 2026-11-22",
                "Net revenue          12,345.50 EUR  9,876.40 EUR   +25 %",
                "Average order value           none          none",
                "- Conversion rate fell from 2.5 % to 1.3 % (-50 %)",
                "- Net revenue rose from 9,876.40 EUR to 12,345.50 EUR (+25 %)",
                "- Python & <SQL>: 3 orders, 1,234.00 EUR",
            ],
        ),
        (
            "de",
            [
                "23.11.2026 bis 29.11.2026 (Europe/Berlin), verglichen mit 16.11.2026 bis 22.11.2026",
                "Nettoumsatz                     12.345,50 EUR  9.876,40 EUR     +25 %",
                "- Konversionsrate: gefallen von 2,5 % auf 1,3 % (-50 %)",
                "- Python & <SQL>: 3 Bestellungen, 1.234,00 EUR",
            ],
        ),
    ],
)
def test_a_summary_is_written_in_the_notation_of_its_language(language: Language, lines: list[str]) -> None:
    rendered = summary(PeriodEnded(period="week", name="2026-W48", dashboard=_dashboard()), "shop", language)
    assert [line for line in lines if line not in rendered.text.splitlines()] == [], rendered.text
    assert "Python &amp; &lt;SQL&gt;" in rendered.html


def test_every_text_is_in_every_language() -> None:
    english, german = CATALOGUE["en"], CATALOGUE["de"]
    for name in ("figures", "rankings", "alarms"):
        assert [*getattr(english, name)] == [*getattr(german, name)]
    for kind in AlarmChanged.Alarm.values()[1:]:
        for language in CATALOGUE:
            for over in (False, True):
                rendered = alarm(AlarmChanged(alarm=kind, destination="hook", ended=over), "shop", language)
                assert "{" not in rendered.subject + rendered.text


def test_a_disk_is_full_below_a_tenth_and_no_more_above_an_eighth_or_so() -> None:
    assert [is_low(free, 100, was_low=was_low) for free, was_low in ((9, False), (11, False), (11, True), (12, True))] == [
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"server": "NOWHERE"}, "server: Value error, names an environment variable, which is not set or empty"),
        ({"server": "CHANNEL"}, "server: Value error, is no address of a server"),
        ({"to": []}, "to: "),
        ({"to": ["ada@shop.example\nBcc: eve@elsewhere.example"]}, "to.0: "),
        ({"language": "fr"}, "language: "),
        ({"hour": 2}, "hour: "),
        ({"summaries": ["daily"]}, "summaries.0: "),
    ],
)
def test_a_wrong_configuration_says_what_is_wrong(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: Mapping[str, Any], message: str
) -> None:
    monkeypatch.setenv("MAIL_SERVER", "smtp://localhost")
    monkeypatch.setenv("CHANNEL", "https://hooks.example/x")
    table = {**EMAIL, **changes}
    lines = "\n".join(f"{name} = {_toml(value)}" for name, value in table.items())
    (tmp_path / "destinations.toml").write_text(f"[owner]\n{lines}\n")
    with pytest.raises(WrongSetting) as refused:
        load(tmp_path / "destinations.toml")
    assert str(refused.value).startswith(f"destination owner: {message}")
