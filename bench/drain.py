"""Rate at which the worker stores and publishes the events of the raw log."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import grpc
import psutil
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp_mesh_client.tokens import Scope
from sqlalchemy import func, select

from bench.events import batch
from bench.servers import BenchFailed, Mesh, cpu_seconds, plan_mesh, running, running_mariadb
from kit.database.engine import Database, open_database
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.tables import books, outbox_heads

BATCH = 100
"""Events per request while the log is filled."""
AT_ONCE = 4
"""Concurrent requests while the log is filled."""
POLL_SECONDS = 0.1
"""Interval between two checks of the books."""
STALL_SECONDS = 30.0
"""A worker that makes no progress for this long has failed."""

Progress = Callable[[int], None]
"""Receives the number of processed events."""


@dataclass(frozen=True, slots=True)
class Drained:
    """The worker's work on a log that was full when it started."""

    events: int
    """Events in the log, with distinct ids."""
    seconds: float
    """From the first stored events to the last published one."""
    per_second: float
    """Events per second, without those of the first check."""
    cpu_us_per_event: dict[str, float]
    """Processor time of each process per event, in microseconds."""


async def into_mariadb(folder: Path, events: int, progress: Progress) -> Drained:
    """Measures the worker on a fresh mesh with its own MariaDB."""
    async with running_mariadb(folder) as (url, server):
        mesh = await plan_mesh(folder / "mesh", url)
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(mesh.command("redis")))
            await stack.enter_async_context(running(mesh.command("ingestion"), mesh.gateway("ingestion")))
            await fill(mesh, events)
            return await drain(mesh, events, progress, {"mariadb": server})


async def fill(mesh: Mesh, events: int) -> None:
    """Sends this many events through the gateway, over gRPC.

    Raises:
        BenchFailed: not every one was accepted.
    """
    credentials = mesh.credentials(Scope.SITE)
    metadata = tuple(credentials.headers().items())
    slots = asyncio.Semaphore(AT_ONCE)
    async with grpc.aio.insecure_channel(credentials.url.removeprefix("http://")) as channel:
        stub = IngestionServiceStub(channel)

        async def send(first: int) -> int:
            async with slots:
                request = batch("fill-", first, min(BATCH, events - first))
                return (await stub.TrackEvents(request, metadata=metadata)).accepted

        accepted = sum(await asyncio.gather(*(send(first) for first in range(0, events, BATCH))))
    if accepted != events:
        raise BenchFailed(f"{accepted} of {events} events were accepted")


async def drain(mesh: Mesh, events: int, progress: Progress, others: Mapping[str, psutil.Process] = MappingProxyType({})) -> Drained:
    """Starts the worker on a running mesh with this many events in its log; `others` are processes that work for it.

    Raises:
        BenchFailed: the worker makes no progress, or the books contain anything but stored events.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(open_database(mesh.database_url, 1))
        log = await stack.enter_async_context(open_log(mesh.plan.redis_url))
        processes = {**others} | await stack.enter_async_context(running(mesh.command("ingestion-worker")))
        first = await _until(partial(_stored, database), 1)
        if first >= events:
            raise BenchFailed(f"{events} events are too few to measure: they were stored before anybody looked")
        started, before = time.perf_counter(), {name: cpu_seconds(process) for name, process in processes.items()}
        await _until(partial(_stored, database), events, progress)
        await _until(partial(_published, database, log), events)
        seconds = time.perf_counter() - started
        cpu = {name: (cpu_seconds(process) - before[name]) * 1e6 / (events - first) for name, process in processes.items()}
        account = await mesh.books()
    total = account.total
    if not account.balanced or total.pending or total.duplicate or total.stored != events or total.received != events:
        raise BenchFailed(f"{events} events were accepted, and the books say: {total}")
    return Drained(events, seconds, (events - first) / seconds, cpu)


async def _until(ask: Callable[[], Awaitable[int]], least: int, progress: Progress = lambda _: None) -> int:
    """Polls until the value is at least this much, and returns it.

    Raises:
        BenchFailed: it stood still.
    """
    known, moved = -1, time.monotonic()
    while True:
        answer = await ask()
        progress(answer)
        if answer >= least:
            return answer
        if answer > known:
            known, moved = answer, time.monotonic()
        if time.monotonic() - moved > STALL_SECONDS:
            raise BenchFailed(f"the worker stands still at {answer} of {least}")
        await asyncio.sleep(POLL_SECONDS)


async def _stored(database: Database) -> int:
    async with database.sessions.reading() as session:
        return int(await session.scalar(select(func.sum(books.c.count)).where(books.c.outcome == "stored")) or 0)


async def _published(database: Database, log: RedisLog) -> int:
    """Number of stored events once the topic has all of their messages; until then one less."""
    async with database.sessions.reading() as session:
        heads = (await session.execute(select(outbox_heads))).all()
    reached = [(await log.head(head.topic, head.partition)).ms >= head.position for head in heads]
    return await _stored(database) - (not all(reached))
