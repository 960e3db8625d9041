"""Analytics filled through its own consumers, and its dashboard and reports through the gateway, on each database."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import Any, Final
from zoneinfo import ZoneInfo

import httpx
import psutil
from pmp_mesh_client.tokens import Scope
from sqlalchemy import Column, LargeBinary, MetaData, String, Table, func, insert, select, text
from sqlalchemy.ext.asyncio import AsyncSession

from bench.servers import BenchFailed, Mesh, cpu_seconds, plan_mesh, running, running_mariadb
from bench.shop_year import DAYS, LAST, Messages, ShopYear
from cli.folder import DataFolder
from kit.database.engine import Database, open_database
from kit.database.transactions import transact
from kit.log.consume.handler import Handler
from kit.log.streams import Delivery
from kit.migrate import migrate
from kit.people.hashing import KeyedHasher
from services.analytics.affiliates import AffiliateProgram, Affiliates
from services.analytics.consumers import FollowEvents, FollowIdentity, FollowPurchases
from services.analytics.days import Calendar
from services.analytics.models import sessions
from services.analytics.reports import REPORTS

MOST_IN_SQLITE: Final = 1_000_000
"""Events in SQLite, at most."""
_AT_ONCE: Final = 1000
"""Messages in a transaction: as many as a consumer reads at once."""
_BARE_EVENTS: Final = 50_000
_PERIODS: Final = {"a day": 1, "a month": 30, "a year": 365}
"""Their days. All of them end on the shop's last day."""
_MEMORY: Final = "--innodb-buffer-pool-size=1G"
_DATABASES: Final = ("mariadb", "sqlite")
_OF_JOURNEYS: Final = "attribution"
"""The report that asks journeys: `bench --only attribution` measures that."""
_REPORTS: Final = "/api/v1/analytics/reports"
_DASHBOARD: Final = "/api/v1/analytics/dashboard"
_bare: Final = Table("bench_bare", MetaData(), Column("id", String(64), primary_key=True), Column("payload", LargeBinary))

Progress = Callable[[int], None]
"""Receives the number of applied events."""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the measurement."""

    events: int
    """In MariaDB; in SQLite at most a million."""
    calls: int
    """Of each dashboard and each report."""


@dataclass(frozen=True, slots=True)
class Projection:
    """Filling an empty analytics with messages that were there already."""

    events: int
    sessions: int
    orders: int
    views: int
    per_second: float
    """Events per second; the time of their orders and links is included."""
    cpu_us_per_event: dict[str, float]
    """Processor time of analytics, and of the database's server."""
    bare_per_second: float
    """Events per second that are just inserted, with as many in a transaction."""
    bytes_per_event: float
    """On disk, of all tables with their indices."""


@dataclass(frozen=True, slots=True)
class Answers:
    """Calls, one after the other, through the gateway."""

    p50_ms: float
    p95_ms: float
    ratio: float
    """p50 divided by the p50 of counting the sessions of the same period with the driver alone."""
    cpu_ms: float
    """Processor time of analytics for one call, without a database server's."""


@dataclass(frozen=True, slots=True)
class Analytics:
    """The figures of one database."""

    projection: Projection
    calls: int
    dashboards: dict[str, Answers]
    """By period."""
    reports: dict[str, Answers]
    """Of a year, by report and group."""


async def measure(folder: Path, size: Size, progress: Progress) -> dict[str, Analytics]:
    """Measures a MariaDB of its own and SQLite.

    Args:
        folder: for the databases. Those that an earlier run has filled in it are used as they are.
        size: how much.
        progress: is called while they are filled.

    Raises:
        BenchFailed: a dashboard has other figures than what was sent.
    """
    measured: dict[str, Analytics] = {}
    for name in _DATABASES:
        own = folder / name
        own.mkdir(parents=True, exist_ok=True)
        async with _database(name, own) as (url, server):
            measured[name] = await _measure(own, url, server, size, progress)
    return measured


@asynccontextmanager
async def _database(name: str, folder: Path) -> AsyncGenerator[tuple[str, psutil.Process | None]]:
    if name == "sqlite":
        yield DataFolder(folder / "mesh").database_url(), None
        return
    async with running_mariadb(folder, _MEMORY) as (url, server):
        yield url, server


async def _measure(folder: Path, url: str, server: psutil.Process | None, size: Size, progress: Progress) -> Analytics:
    mesh = await plan_mesh(folder / "mesh", url)
    own, known = url.replace("{service}", "analytics"), folder / "filled.json"
    await migrate("analytics", own)
    async with open_database(own, one_writer=True) as database:
        if not known.exists():
            events = size.events if server else min(size.events, MOST_IN_SQLITE)
            known.write_text(json.dumps(asdict(await _fill(database, folder, events, server, progress))))
        projection = Projection(**json.loads(known.read_text()))
        counted = {days: (await _timed(lambda days=days: _count(database, days), size.calls))[0] for days in _PERIODS.values()}
    dashboards, reports = await _ask(mesh, projection, size.calls, counted)
    return Analytics(projection, size.calls, dashboards, reports)


async def _fill(database: Database, folder: Path, events: int, server: psutil.Process | None, progress: Progress) -> Projection:
    """Lets the consumers of analytics apply all messages of a shop."""
    hasher, calendar = KeyedHasher(bytes(32)), Calendar(ZoneInfo("UTC"))
    program = AffiliateProgram(Affiliates(), calendar)
    handlers = (FollowEvents(hasher, calendar, program), FollowIdentity(calendar), FollowPurchases(hasher, calendar, program))
    shop, seconds, cpu, server_cpu = ShopYear(events), 0.0, 0.0, 0.0
    bare = await _insert_bare(database, islice(ShopYear(events).messages(_AT_ONCE), _BARE_EVENTS // _AT_ONCE))
    applied = 0
    for messages in shop.messages(_AT_ONCE):
        started, used, used_by_server = time.perf_counter(), time.process_time(), cpu_seconds(server) if server else 0.0
        for handler, deliveries in zip(handlers, messages, strict=True):
            await _apply(database, handler, deliveries)
        seconds += time.perf_counter() - started
        cpu += time.process_time() - used
        server_cpu += cpu_seconds(server) - used_by_server if server else 0.0
        applied += len(messages.events)
        progress(applied)
    costs = {"analytics": cpu} | ({"mariadb": server_cpu} if server else {})
    counts = shop.counts
    return Projection(
        counts.events,
        counts.sessions,
        counts.orders,
        counts.views,
        counts.events / seconds,
        {name: each * 1e6 / counts.events for name, each in costs.items()},
        bare,
        await _bytes(database, folder) / counts.events,
    )


async def _apply(database: Database, handler: Handler, deliveries: Sequence[Delivery]) -> None:
    for first in range(0, len(deliveries), _AT_ONCE):
        some = deliveries[first : first + _AT_ONCE]
        await transact(database.sessions, lambda session, some=some: handler(session, some), follows=True)


async def _insert_bare(database: Database, several: islice[Messages]) -> float:
    """Inserts events as they are; returns how many per second."""
    seconds, events = 0.0, 0
    async with database.engine.begin() as connection:
        await connection.run_sync(_bare.create)
    for messages in several:
        rows = [{"id": f"{events + number}", "payload": each.record.payload} for number, each in enumerate(messages.events)]
        started = time.perf_counter()

        async def add(session: AsyncSession, rows: Sequence[Mapping[str, Any]] = rows) -> None:
            await session.execute(insert(_bare), rows)

        await transact(database.sessions, add)
        seconds += time.perf_counter() - started
        events += len(rows)
    async with database.engine.begin() as connection:
        await connection.run_sync(_bare.drop)
    return events / seconds


async def _bytes(database: Database, folder: Path) -> int:
    """The size of the tables of analytics on disk."""
    if database.engine.dialect.name == "mysql":
        return sum(file.stat().st_size for file in (folder / "data" / "pmp_analytics").iterdir())
    async with database.engine.connect() as connection:
        pages = [(await connection.execute(text(f"PRAGMA {name}"))).scalar_one() for name in ("page_count", "freelist_count", "page_size")]
    return (pages[0] - pages[1]) * pages[2]


async def _count(database: Database, days: int) -> None:
    """Counts the sessions of a period."""
    end = datetime.combine(LAST, datetime.min.time(), UTC) + timedelta(days=1)
    query = select(func.count()).where(sessions.c.started_at >= end - timedelta(days=days), sessions.c.started_at < end)
    async with database.sessions.reading() as session:
        await session.scalar(query)


async def _timed(ask: Callable[[], Awaitable[object]], calls: int) -> tuple[float, float]:
    """Calls one after the other, once beforehand; returns p50 and p95 in milliseconds."""
    await ask()
    taken: list[float] = []
    for _ in range(calls):
        started = time.perf_counter()
        await ask()
        taken.append((time.perf_counter() - started) * 1000)
    taken.sort()
    return taken[calls // 2], taken[min(calls - 1, int(calls * 0.95))]


async def _ask(mesh: Mesh, sent: Projection, calls: int, counted: Mapping[int, float]) -> tuple[dict[str, Answers], dict[str, Answers]]:
    credentials = mesh.credentials(Scope.READ)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(mesh.command("redis")))
        processes = await stack.enter_async_context(running(mesh.command("analytics"), mesh.gateway("analytics")))
        client = await stack.enter_async_context(httpx.AsyncClient(base_url=credentials.url, headers=credentials.headers(), timeout=60))

        async def answers(path: str, days: int, **query: str) -> Answers:
            async def ask() -> None:
                answer = await client.get(path, params={**_period(days), **query})
                if not answer.is_success:
                    raise BenchFailed(f"{path} was answered with {answer.status_code}")

            before = cpu_seconds(processes["analytics"])
            p50, p95 = await _timed(ask, calls)
            return Answers(p50, p95, p50 / counted[days], (cpu_seconds(processes["analytics"]) - before) * 1000 / (calls + 1))

        await _check(client, sent)
        dashboards = {name: await answers(_DASHBOARD, days) for name, days in _PERIODS.items()}
        year = _PERIODS["a year"]
        reports = {
            f"{report.name} by {group}": await answers(_REPORTS, year, report=report.name, group_by=group)
            for report in REPORTS.values()
            if report.name != _OF_JOURNEYS
            for group in report.groups
        }
        return dashboards, reports


async def _check(client: httpx.AsyncClient, sent: Projection) -> None:
    """Compares the figures of the whole time with what was sent.

    Raises:
        BenchFailed: they differ.
    """
    # Sessions of the last day go on after midnight.
    whole = {**_period(DAYS), "to": (LAST + timedelta(days=1)).isoformat()}
    answer = (await client.get(_DASHBOARD, params=whole)).json()
    found = {each["key"]: each.get("value") for each in answer["figures"]}
    expected = {"page_views": sent.views, "orders": sent.orders, "sessions": sent.sessions}
    if any(found[key] != value for key, value in expected.items()):
        raise BenchFailed(f"{expected} were sent, and the dashboard has { ({key: found[key] for key in expected}) }")


def _period(days: int) -> dict[str, str]:
    return {"from": (LAST - timedelta(days=days - 1)).isoformat(), "to": LAST.isoformat()}
