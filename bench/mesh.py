"""The whole mesh of `pmp up`: its usage at rest, and its throughput under load with every service consuming.

Everything runs on the same processors: Envoy, Redis, the services, the database and the load. An event counts when it was answered with
200 and everything that follows from it is stored, published and applied: rates include the time that the services take to catch up.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

import psutil
from pmp_mesh_client.tokens import Scope

from bench import followed, k6, load
from bench.backlog import Backlog, open_backlog
from bench.cost import Cost, Usage
from bench.followed import Followed
from bench.k6 import Answers, Scenario
from bench.load import Answered, Load
from bench.servers import BenchFailed, environment, memory_mib, pmp_up, running_mariadb
from bench.yardstick import empty_rate
from cli.books import fetch_books
from cli.credentials import Credentials, credentials
from cli.folder import DataFolder
from cli.processes import last_lines, spawn
from cli.state import running_mesh

_API_PER_SECOND = 1000
_STEADY_PER_SECOND = 300
_API_SHARE, _STEADY_SHARE = 0.5, 0.15
"""Largest offered rate as a fraction of the empty service's, so that a slow machine is not overloaded."""
_TRAFFIC_MINUTES, _API_MINUTES = 16, 10
"""As in the brief."""
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class Size:
    """Durations of the parts."""

    scale: float
    """Fraction of the full durations."""
    steady_seconds: int
    """At 300 events per second."""
    single_seconds: int
    """Single events as fast as they are answered."""
    batch_seconds: int
    """The same in batches of 100."""
    batch_connections: int
    """Batches under way at any time."""
    rest_seconds: int
    """At rest."""
    single_events: int
    """Events that are sent one by one and traced into the databases."""
    with_mariadb: bool
    """On MariaDB as well as on SQLite."""
    demo_events: int | None
    """Rows of the demo in the mesh before it is measured at rest; None for all."""


@dataclass(frozen=True, slots=True)
class Sustained:
    """Events as fast as they are answered, until all of them are applied."""

    events_per_request: int
    answered_per_second: float
    """Events answered while the load lasted."""
    catch_up_seconds: float
    """Seconds from the end of the load until everything was applied."""
    per_second: float
    """Events per second over the whole time."""
    p50_ms: float
    p99_ms: float
    empty_per_second: float
    """The empty service, before and after: events answered."""
    ratio: float
    """`per_second` divided by `empty_per_second`."""
    cost: Cost
    cpu_ratio: float
    """Processor time of an event divided by the empty service's, without the load generator's own."""


@dataclass(frozen=True, slots=True)
class Offered:
    """A scenario of k6."""

    name: str
    per_second: int
    """Events offered; 0 for visitors."""
    answers: Answers
    backlog: int
    """Messages and entries not applied when the load ended."""
    catch_up_seconds: float
    """Seconds from then until everything was applied."""
    cost: Cost


@dataclass(frozen=True, slots=True)
class WholeMesh:
    """A mesh on one kind of database."""

    ready_seconds: float
    """Seconds from the command until all processes are ready, on an empty folder."""
    ready_again_seconds: float
    """The same for the second start."""
    pss_mib: dict[str, float]
    """Memory (PSS) of each process at rest after the demo."""
    rest_cpu_percent: dict[str, float]
    """Share of one core that each process uses at rest after the demo."""
    followed: Followed
    """Time until an event is stored and in its journey, at rest."""
    sustained: list[Sustained]
    offered: list[Offered]


class _Run(NamedTuple):
    """A load that was sent as fast as it was answered."""

    load: Load
    answered: Answered
    catch_up_seconds: float
    cost: Cost


@dataclass
class _Running:
    """A running mesh."""

    target: Credentials
    reader: Credentials
    processes: Mapping[str, psutil.Process]
    backlog: Backlog
    rest: Mapping[str, float] = field(default_factory=dict[str, float])
    """Processor seconds per second that each process uses at rest."""


async def measure(folder: Path, size: Size, tick: Callable[[str], None]) -> dict[str, WholeMesh]:
    """Measures a mesh by database: on SQLite and, where it is asked for, on MariaDB.

    Args:
        folder: an empty folder for the servers' data.
        size: how long everything takes.
        tick: is called with what is measured next.

    Raises:
        BenchFailed: the mesh does not start, a response to an unbounded load was not 200, or the books don't hold what was answered.
    """
    for name in ("sqlite", "mariadb", "server"):
        (folder / name).mkdir()
    measured = {"sqlite": await _measure(folder / "sqlite", size, (), {}, lambda what: tick(f"SQLite: {what}"))}
    if size.with_mariadb:
        async with running_mariadb(folder / "server") as (url, server):
            options, database = ("--database-url", url), {"mariadb": server}
            measured["mariadb"] = await _measure(folder / "mariadb", size, options, database, lambda what: tick(f"MariaDB: {what}"))
    return measured


async def _measure(
    folder: Path, size: Size, options: tuple[str, ...], database: Mapping[str, psutil.Process], tick: Callable[[str], None]
) -> WholeMesh:
    data = DataFolder(folder / "mesh")
    loads = (Load(1, 64, size.single_seconds), Load(100, size.batch_connections, size.batch_seconds))
    tick("the empty service")
    before = [await empty_rate(folder / f"empty-before-{each.events}", each) for each in loads]
    tick("the demo")
    async with pmp_up(data, options) as (_, ready):
        await _demo(data, size.demo_events)
    async with pmp_up(data, options) as (supervisor, ready_again), open_backlog(running_mesh(data)) as backlog:
        processes = {"pmp up": supervisor, **database} | {
            each.name: psutil.Process(each.pid) for each in running_mesh(data).processes if each.pid
        }
        mesh = _Running(credentials(data, Scope.SITE, "42", {}), credentials(data, Scope.READ, environ={}), processes, backlog)
        tick("at rest")
        await backlog.drained()
        mesh.rest = await _rest(processes, size.rest_seconds)
        pss = {name: memory_mib(process) for name, process in processes.items()}
        soon = await followed.measure(mesh.target, backlog.databases, size.single_events)
        rate = before[0][0]
        offered: list[Offered] = []
        for scenario in _scenarios(size, rate):
            tick(scenario.name)
            offered.append(await _offer(mesh, scenario))
        runs: list[_Run] = []
        for each in loads:
            tick(f"as fast as answered, {each.events} in a request")
            runs.append(await _sustain(mesh, each))
    tick("the empty service again")
    after = [await empty_rate(folder / f"empty-after-{each.events}", each) for each in loads]
    return WholeMesh(
        ready_seconds=ready,
        ready_again_seconds=ready_again,
        pss_mib=pss,
        rest_cpu_percent={name: 100 * share for name, share in mesh.rest.items()},
        followed=soon,
        sustained=[_sustained(*measured) for measured in zip(runs, before, after, strict=True)],
        offered=offered,
    )


def _scenarios(size: Size, empty_per_second: float) -> tuple[Scenario, ...]:
    return (
        Scenario("steady", size.steady_seconds, round(min(_STEADY_PER_SECOND, _STEADY_SHARE * empty_per_second))),
        Scenario("api_load", round(60 * _API_MINUTES * size.scale), round(min(_API_PER_SECOND, _API_SHARE * empty_per_second))),
        Scenario("website_traffic", round(60 * _TRAFFIC_MINUTES * size.scale)),
    )


def _sustained(run: _Run, before: tuple[float, float], after: tuple[float, float]) -> Sustained:
    """What the mesh sustained, beside the rate and the processor seconds of the empty service."""
    answered, events = run.answered, run.load.events
    per_second = answered.requests * events / (answered.duration_us / 1e6 + run.catch_up_seconds)
    empty_per_second, empty_cpu_seconds = (statistics.mean(pair) for pair in zip(before, after, strict=True))
    return Sustained(
        events_per_request=events,
        answered_per_second=answered.per_second * events,
        catch_up_seconds=run.catch_up_seconds,
        per_second=per_second,
        p50_ms=answered.p50_us / 1000,
        p99_ms=answered.p99_us / 1000,
        empty_per_second=empty_per_second,
        ratio=per_second / empty_per_second,
        cost=run.cost,
        cpu_ratio=sum(run.cost.cpu_us_per_event.values()) / 1e6 / empty_cpu_seconds,
    )


async def _demo(data: DataFolder, events: int | None) -> None:
    limit = () if events is None else ("--events", str(events))
    log = data.path / "demo.log"
    process = await spawn((sys.executable, "-m", "cli", "demo", "--data", str(data.path), *limit), environment(), log)
    if await process.wait() != 0:
        raise BenchFailed("\n".join(("the demo failed:", *last_lines(log))))


async def _rest(processes: Mapping[str, psutil.Process], seconds: int) -> dict[str, float]:
    usage = Usage(processes)
    await asyncio.sleep(seconds)
    return usage.shares()


async def _offer(mesh: _Running, scenario: Scenario) -> Offered:
    held = await _stored(mesh)
    answers, left, seconds, cost = await _costed(mesh, lambda: k6.send(mesh.target, scenario, f"{scenario.name}-"), lambda it: it.requests)
    await _check(mesh, held, answers.requests - answers.failed, answers.failed)
    return Offered(scenario.name, scenario.per_second, answers, left, seconds, cost)


async def _sustain(mesh: _Running, each: Load) -> _Run:
    held = await _stored(mesh)
    answered, _, seconds, cost = await _costed(
        mesh, lambda: load.send(mesh.target, each, f"sustained-{each.events}-"), lambda it: it.requests * each.events
    )
    # wrk drops its connections at the end, and with them responses to events that are in the log.
    await _check(mesh, held, answered.requests * each.events, each.connections * each.events)
    return _Run(each, answered, seconds, cost)


async def _costed(
    mesh: _Running, send: Callable[[], Awaitable[_Answer]], count: Callable[[_Answer], int]
) -> tuple[_Answer, int, float, Cost]:
    """Sends a load; returns its responses, the backlog at its end, the seconds to clear it, and the cost until then."""
    usage = Usage(mesh.processes)
    answer = await send()
    left = await mesh.backlog.count()
    seconds = await mesh.backlog.drained()
    return answer, left, seconds, usage.cost(count(answer), mesh.rest)


async def _stored(mesh: _Running) -> int:
    return (await fetch_books(mesh.reader)).total.stored


async def _check(mesh: _Running, held: int, answered: int, unanswered: int) -> None:
    """Compares the books with the answers; some events without a response may have been accepted."""
    books = await fetch_books(mesh.reader)
    if not books.balanced or not answered <= books.total.stored - held <= answered + unanswered:
        raise BenchFailed(f"{answered} events were answered after {held}, and the books say: {books.total}")
