"""Throughput of the intake, with all checks, durability and accounting, against the empty service's."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
from pmp_mesh_client.tokens import Scope

from bench.drain import Drained, Progress, drain
from bench.load import Answered, Load, send
from bench.servers import BenchFailed, cpu_seconds, plan_mesh, running
from bench.yardstick import plan_yardstick
from cli.credentials import Credentials

WARM_UP_SECONDS = 1
"""Duration of the warm-up on each side."""


@dataclass(frozen=True, slots=True)
class Side:
    """One side of the comparison, over all rounds."""

    rounds: list[float]
    """Requests a second in each round."""
    per_second: float
    """Their median."""
    p50_ms: float
    """Median of the rounds' medians, at full load."""
    p99_ms: float
    """Median of the rounds' 99th percentiles, at full load."""
    cpu_us_per_request: dict[str, float]
    """Processor time of each process per request, in microseconds, over all rounds."""


@dataclass(frozen=True, slots=True)
class Compared:
    """The real mesh compared with the empty service."""

    events_per_request: int
    """Events in a request."""
    connections: int
    """Concurrent requests."""
    empty: Side
    """The empty service."""
    real: Side
    """The mesh."""
    ratios: list[float]
    """For each round: the mesh's rate divided by the rate of the empty service just before."""
    ratio: float
    """Their median."""
    cpu_ratio: float
    """Processor time of a request to the empty service by that of one to the mesh, the load's own left out: varies less than rates do."""


@dataclass(frozen=True, slots=True)
class Intake:
    """Capacity of the intake, and proof that nothing was lost."""

    compared: list[Compared]
    """The mesh compared with the empty service, for each load."""
    into_sqlite: Drained
    """The worker's work on all of these events."""


@dataclass(frozen=True, slots=True)
class _Target:
    name: str
    credentials: Credentials
    processes: dict[str, psutil.Process]


@dataclass(frozen=True, slots=True)
class _Run:
    answered: Answered
    cpu: dict[str, float]


async def measure(folder: Path, loads: Sequence[Load], rounds: int, tick: Callable[[], None], progress: Progress) -> Intake:
    """Loads the empty service and a mesh in turns, so that whatever else happens on the machine hits both; then has all of it stored.

    Args:
        folder: An empty folder for the servers' data.
        loads: What is sent, one after the other.
        rounds: How often each side takes its turn.
        tick: Called after each run of the load.
        progress: receives the number of events that the worker has stored.

    Raises:
        BenchFailed: An answer was not 200, or the books don't hold every event that was answered.
    """
    mesh = await plan_mesh(folder / "mesh")
    empty_service, envoy, url = plan_yardstick(folder / "empty")
    async with AsyncExitStack() as stack:
        processes = await stack.enter_async_context(running(mesh.command("redis")))
        processes |= await stack.enter_async_context(running(mesh.command("ingestion"), mesh.gateway("ingestion")))
        credentials = mesh.credentials(Scope.SITE)
        real = _Target("real", credentials, processes)
        async with running(empty_service, envoy) as others:
            empty = _Target("empty", Credentials(url, credentials.api_key, credentials.token), others)
            compared = [await _alternate(empty, real, load, rounds, tick) for load in loads]
        answered = sum(events for _, events in compared)
        # wrk drops its connections at the end of a run, and with them answers to events that are in the log.
        cut_off = sum(load.connections * load.events * (rounds + 1) for load in loads)
        total = (await mesh.books()).total
        if total.rejected or not answered <= total.received <= answered + cut_off:
            raise BenchFailed(f"{answered} events were answered, and the books say: {total}")
        drained = await drain(mesh, total.received, progress)
    return Intake([result for result, _ in compared], drained)


async def _alternate(empty: _Target, real: _Target, load: Load, rounds: int, tick: Callable[[], None]) -> tuple[Compared, int]:
    """Both sides in turns, after a warm-up; also how many events the mesh answered in all."""
    runs: dict[str, list[_Run]] = {empty.name: [], real.name: []}
    for number in range(rounds + 1):
        current = load if number else replace(load, seconds=WARM_UP_SECONDS)
        for target in (empty, real):
            runs[target.name].append(await _run(target, current, f"{target.name}-{load.events}-{number}-"))
            tick()
    answered = sum(run.answered.requests for run in runs[real.name]) * load.events
    before, after = _side(runs[empty.name][1:]), _side(runs[real.name][1:])
    ratios = [mine / bare for bare, mine in zip(before.rounds, after.rounds, strict=True)]
    return Compared(load.events, load.connections, before, after, ratios, statistics.median(ratios), _cpu(before) / _cpu(after)), answered


def _cpu(side: Side) -> float:
    return sum(us for name, us in side.cpu_us_per_request.items() if name != "wrk")


async def _run(target: _Target, load: Load, ids: str) -> _Run:
    before = {name: cpu_seconds(process) for name, process in target.processes.items()}
    answered = await send(target.credentials, load, ids)
    cpu = {name: cpu_seconds(process) - before[name] for name, process in target.processes.items()}
    return _Run(answered, {**cpu, "wrk": answered.load_cpu_seconds})


def _side(runs: list[_Run]) -> Side:
    requests = sum(run.answered.requests for run in runs)
    return Side(
        rounds=[run.answered.per_second for run in runs],
        per_second=statistics.median(run.answered.per_second for run in runs),
        p50_ms=statistics.median(run.answered.p50_us for run in runs) / 1000,
        p99_ms=statistics.median(run.answered.p99_us for run in runs) / 1000,
        cpu_us_per_request={name: sum(run.cpu[name] for run in runs) * 1e6 / requests for name in runs[0].cpu},
    )
