"""Duration of reports on a year of orders, by model, against counting the same orders; and of computing their paths."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import grpc
from pmp.journeys.v1 import journeys_pb2
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub
from pmp_mesh_client.tokens import Scope
from sqlalchemy import Table, func, insert, select

from bench.servers import BenchFailed, cpu_seconds, plan_mesh, running, running_mariadb
from cli.folder import DataFolder
from kit.database.engine import Database, open_database
from kit.migrate import migrate
from kit.people.persons import persons
from services.journeys.attribution import EVERY_MODEL
from services.journeys.models import orders, pending, sessions

_SESSIONS: Final = 2
"""Sessions of a buyer before an order. As many more are of people who buy nothing."""
_SECONDS: Final = int(timedelta(days=365).total_seconds())
_ROWS: Final = 5000

Progress = Callable[[int], None]
"""Receives the number of completed reports."""


@dataclass(frozen=True, slots=True)
class Reports:
    """One model's reports on all orders, one after the other, through the gateway."""

    p50_ms: float
    p95_ms: float
    ratio: float
    """p50 divided by the p50 of just counting the same orders."""
    cpu_ms: float
    """Processor time of journeys for one report, without a database server's."""


@dataclass(frozen=True, slots=True)
class Attribution:
    """The figures, by database."""

    orders: int
    calls: int
    count_ms: dict[str, float]
    """p50 of counting the orders with the driver alone."""
    reports: dict[str, dict[str, Reports]]
    """By model."""
    paths_seconds: dict[str, float]
    """Time to compute all paths from nothing, as after an update."""
    paths_cpu_us: dict[str, float]
    """Processor time of journeys for the path of one session or order, without a database server's."""


async def measure(folder: Path, orders_: int, calls: int, progress: Progress) -> Attribution:
    """Measures on a fresh mesh with its own MariaDB, and then on one with SQLite."""
    measured: dict[str, _Measured] = {}
    folders = {name: folder / name for name in ("mariadb", "sqlite")}
    for each in folders.values():
        each.mkdir()
    async with running_mariadb(folders["mariadb"], "--innodb-buffer-pool-size=1G") as (mariadb, _):
        for name, url in (("mariadb", mariadb), ("sqlite", DataFolder(folders["sqlite"] / "mesh").database_url())):
            measured[name] = await _measured(folders[name] / "mesh", url, orders_, calls, progress)
    return Attribution(
        orders_,
        calls,
        {name: each.count_ms for name, each in measured.items()},
        {name: each.reports for name, each in measured.items()},
        {name: each.paths_seconds for name, each in measured.items()},
        {name: each.paths_cpu_us for name, each in measured.items()},
    )


class _Measured(NamedTuple):
    """The figures of one database for `Attribution`."""

    count_ms: float
    reports: dict[str, Reports]
    paths_seconds: float
    paths_cpu_us: float


async def _measured(folder: Path, url: str, orders_: int, calls: int, progress: Progress) -> _Measured:
    mesh = await plan_mesh(folder, url)
    own = url.replace("{service}", "journeys")
    await migrate("journeys", own)
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(own, 1))
        await _fill(database, orders_)
        await stack.enter_async_context(running(mesh.command("redis")))
        processes = await stack.enter_async_context(running(mesh.command("journeys"), mesh.gateway("journeys")))
        credentials = mesh.credentials(Scope.READ)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(credentials.url.removeprefix("http://")))
        stub: Any = JourneysServiceStub(channel)

        async def count() -> int:
            async with database.sessions.reading() as session:
                query = select(func.count()).where(orders.c.paid_at.is_not(None), orders.c.excluded.is_(False))
                return int(await session.scalar(query) or 0)

        async def report(request: journeys_pb2.GetAttributionRequest) -> int:
            answer = await stub.GetAttribution(request, metadata=metadata)
            return answer.orders if not answer.pending_changes else -1

        metadata = tuple(credentials.headers().items())
        started, idle = time.perf_counter(), cpu_seconds(processes["journeys"])
        while await report(journeys_pb2.GetAttributionRequest()) == -1:  # a report waits a little for pending changes
            pass
        paths_seconds, paths_cpu = time.perf_counter() - started, cpu_seconds(processes["journeys"]) - idle
        counted, _ = await _timed(count, orders_, calls)
        reports: dict[str, Reports] = {}
        for model in EVERY_MODEL:
            request = journeys_pb2.GetAttributionRequest(model=model)
            before = cpu_seconds(processes["journeys"])
            p50, p95 = await _timed(lambda request=request: report(request), orders_, calls)
            reports[model] = Reports(p50, p95, p50 / counted, (cpu_seconds(processes["journeys"]) - before) * 1000 / calls)
            progress(calls)
        return _Measured(counted, reports, paths_seconds, paths_cpu * 1e6 / (orders_ * (1 + 2 * _SESSIONS)))


async def _timed(ask: Callable[[], Awaitable[int]], expected: int, calls: int) -> tuple[float, float]:
    """Calls one after the other and returns p50 and p95 in milliseconds.

    Raises:
        BenchFailed: an answer has a different number of orders.
    """
    taken: list[float] = []
    for _ in range(calls):
        started = time.perf_counter()
        answer = await ask()
        taken.append((time.perf_counter() - started) * 1000)
        if answer != expected:
            raise BenchFailed(f"{expected} orders were paid, and the answer is {answer}")
    taken.sort()
    return taken[calls // 2], taken[min(calls - 1, int(calls * 0.95))]


async def _fill(database: Database, count: int) -> None:
    """Creates orders of the last year, the sessions of their buyers before them, and sessions of people who buy nothing."""
    chance, now = Random(count), datetime.now(UTC).replace(microsecond=0)  # noqa: S311 (the same shop in every run)
    sources = (None, None, "google", "facebook", "newsletter", "bing", "partner.example")
    seen: list[dict[str, Any]] = []
    sold: list[dict[str, Any]] = []

    def add_session(identifier: str, at: datetime) -> None:
        source, campaign = chance.choice(sources), f"campaign {chance.randrange(40)}"
        facts = (at, f"e{len(seen)}", source, "cpc", campaign) if source else (None,) * 5
        names = ("external_at", "external_id", "source", "medium", "campaign")
        seen.append({"session": f"session:{len(seen)}", "subject": identifier, "started_at": at, **dict(zip(names, facts, strict=True))})

    for number in range(count):
        identifier, paid_at = f"wordpress:{number * 7919 % count * 2 // 3}", now - timedelta(seconds=chance.randrange(_SECONDS))
        for _ in range(_SESSIONS):
            add_session(identifier, paid_at - timedelta(seconds=chance.randrange(3600 * 24 * 30)))
            add_session(f"visitor:{len(seen)}", paid_at)
        net = Decimal(chance.choice(("24.50", "49.99", "99.00", "199.00")))
        sold.append({"purchase_id": f"p{number}", "subject": identifier, "ordered_at": paid_at, "paid_at": paid_at, "net": net})
        sold[-1] |= {"session_id": None, "status": "completed", "excluded": False, "position": number, "ordinal": 0}
    buyers = sorted({order["subject"] for order in sold})
    known = [{"subject": subject, "person_id": subject.replace("wordpress:", "person-")} for subject in buyers]
    began = {row["subject"]: row["started_at"] for row in seen}
    changed = [{"subject": subject} for subject in sorted(began, key=lambda subject: began[subject])]
    for table, rows in ((sessions, seen), (orders, sold), (persons, known), (pending, changed)):
        await _insert(database, table, rows)


async def _insert(database: Database, table: Table, rows: list[dict[str, Any]]) -> None:
    for first in range(0, len(rows), _ROWS):
        async with database.sessions.begin() as session:
            await session.execute(insert(table), rows[first : first + _ROWS])
    async with database.engine.begin() as connection:
        await connection.exec_driver_sql(f"ANALYZE TABLE {table.name}" if connection.dialect.name == "mysql" else f"ANALYZE {table.name}")
