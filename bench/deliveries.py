"""Webhooks to six systems, of which one fails, one hangs and one is busy, while events arrive at a constant rate."""

from __future__ import annotations

import asyncio
import sys
import time
from base64 import b64encode
from collections.abc import Callable, Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from secrets import token_bytes
from typing import Any, Final

import httpx
import orjson
import psutil
from google.protobuf.json_format import Parse
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.log.v1 import log_pb2

from bench.cost import Usage
from bench.events import COURSES, SESSIONS, USERS, template
from bench.servers import PORTS, BenchFailed, Mesh, cpu_seconds, environment, memory_mib, plan_mesh, running
from bench.systems import HEAL, LATE, RECEIVED, Received
from cli.ports import LOOPBACK
from cli.processes import Command
from kit.log.packs import packs
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.streams import Offset, partition_of
from kit.migrate import migrate
from services.destinations.http_client import open_client

SERVICE: Final = "destinations"
_WELL, _ILL = ("well-1", "well-2", "well-3"), ("fails", "hangs", "busy")
_PUBLISHED_SECONDS: Final = 0.05
"""From one publication to the next: the pace of a relay."""
_LOOK_SECONDS: Final = 0.5
_STALL_SECONDS: Final = 180.0
"""A system that receives nothing for this long will not."""
_BARE_REQUESTS: Final = 2000


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the measurement."""

    per_second: int
    """Events."""
    seconds: int


@dataclass(frozen=True, slots=True)
class Deliveries:
    """Deliveries of one process of destinations, with a database in SQLite."""

    per_second: int
    """Events offered."""
    events: int
    p50_ms: float
    """From when an event is published until a system that is well has received its webhook."""
    p99_ms: float
    max_ms: float
    catch_up_seconds: float
    """From the last event until the systems that are well had all webhooks."""
    healed_seconds: float
    """From when the others were well again until they had all webhooks, too."""
    delivered_per_second: float
    """To the systems that are well, until they had all."""
    bare_per_second: float
    """Requests per second of the same HTTP client alone, to one of the systems."""
    bare_cpu_us: float
    """Processor time of such a request, in microseconds."""
    cpu_us_per_delivery: float
    """Processor time of destinations for a delivery to a system that is well; the attempts at the others are included."""
    cpu_percent: Mapping[str, float]
    """Share of one core of each process during the load."""
    idle_mib: float
    """Memory (PSS) of destinations before the load."""
    peak_mib: float
    """The largest until the systems that are well had all webhooks."""


async def measure(folder: Path, size: Size, tick: Callable[[], None]) -> Deliveries:
    """Measures destinations beside a Redis, and systems on loopback in a process of their own.

    Args:
        folder: an empty folder.
        size: how much.
        tick: is called each second of the load.

    Raises:
        BenchFailed: a webhook was not received exactly once by a system that is well, or not at all by another one.
    """
    mesh = await plan_mesh(folder / "mesh")
    [port] = PORTS.take(1)
    systems = _systems(folder, f"{LOOPBACK}:{port}")
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(running(mesh.command("redis")))
        others = await stack.enter_async_context(running(systems))
        client = await stack.enter_async_context(open_client())
        client.base_url = f"http://{systems.address}"
        bare_per_second, bare_cpu_us = await _bare(client)
        log = await stack.enter_async_context(open_log(mesh.plan.redis_url))
        processes = others | await stack.enter_async_context(running(await _destinations(mesh, folder, systems.address)))
        load = _Load(size, _Publisher(log, mesh.plan.log_partitions), client, processes)
        return await load.run(bare_per_second, bare_cpu_us, tick)


def _systems(folder: Path, address: str) -> Command:
    return Command(
        name="systems",
        kind="service",
        argv=(sys.executable, "-m", "bench.systems", address, *(f"/{name}" for name in _ILL)),
        environment=environment(),
        log=folder / "systems.log",
        address=address,
        ready=partial(_is_listening, address),
    )


async def _is_listening(address: str) -> bool:
    try:
        async with httpx.AsyncClient() as client:
            return (await client.get(f"http://{address}{RECEIVED}")).is_success
    except httpx.TransportError:
        return False


async def _destinations(mesh: Mesh, folder: Path, address: str) -> Command:
    command = mesh.command(SERVICE)
    file = folder / "destinations.toml"
    file.write_text("\n".join(_table(name, address) for name in (*_WELL, *_ILL)))
    await migrate(SERVICE, command.environment["PMP_DATABASE_URL"].replace("{service}", SERVICE))
    secret = f"whsec_{b64encode(token_bytes(32)).decode()}"
    return replace(command, environment={**command.environment, "PMP_DESTINATIONS": str(file), "BENCH_SECRET": secret})


def _table(name: str, address: str) -> str:
    options = 'types = ["event.page_view"]\nconsent = "none"\nallow_private_networks = true'
    return f'[{name}]\nkind = "webhook"\nurl = "http://{address}/{name}"\nsecrets = ["BENCH_SECRET"]\n{options}\n'


async def _bare(client: httpx.AsyncClient) -> tuple[float, float]:
    """Sends requests with the client alone, 16 at once; returns their rate, and the processor time of one in microseconds."""
    content = orjson.dumps({"timestamp": "2026-11-01T10:00:00+00:00", "data": "x" * 1000})
    own = psutil.Process()

    async def send() -> None:
        for _ in range(_BARE_REQUESTS // 16):
            await client.post("/bare", content=content)

    started, used = time.perf_counter(), cpu_seconds(own)
    await asyncio.gather(*(send() for _ in range(16)))
    return _BARE_REQUESTS / (time.perf_counter() - started), (cpu_seconds(own) - used) * 1e6 / _BARE_REQUESTS


class _Publisher:
    """Publishes the topic `events`, as its relay does."""

    def __init__(self, log: RedisLog, partitions: int) -> None:
        self._log = log
        self._heads = dict.fromkeys(range(partitions), 0)
        self._pattern = template()
        self.published = 0

    async def publish(self, count: int) -> None:
        """Publishes so many events, which happen at this moment."""
        records: dict[int, list[bytes]] = {}
        for number in range(self.published, self.published + count):
            stored = self._event(number)
            record = log_pb2.Record(type=stored.DESCRIPTOR.full_name, payload=stored.SerializeToString())
            records.setdefault(partition_of(stored.event.user_id, len(self._heads)), []).append(record.SerializeToString())
        batches: dict[int, tuple[Offset, Sequence[tuple[int, bytes, int]]]] = {}
        for partition, some in records.items():
            head = self._heads[partition]
            entries = [(head + place, pack, size) for place, (pack, size) in enumerate(packs(some), start=1)]
            batches[partition] = (Offset(head, 0), entries)
            self._heads[partition] += len(entries)
        await self._log.publish_to_several("events", batches)
        self.published += count

    def _event(self, number: int) -> EventStored:
        text = self._pattern % (f"delivered-{number}", number % USERS, number % SESSIONS, number % COURSES)
        stored = Parse(f'{{"event":{text}}}', EventStored())
        stored.event.timestamp.FromNanoseconds(time.time_ns() // 1000 * 1000)
        stored.key = stored.event.id
        return stored


class _Load:
    def __init__(self, size: Size, publisher: _Publisher, client: httpx.AsyncClient, processes: Mapping[str, psutil.Process]) -> None:
        self._size = size
        self._publisher = publisher
        self._client = client
        self._processes = processes
        self._peak = memory_mib(processes[SERVICE])

    async def run(self, bare_per_second: float, bare_cpu_us: float, tick: Callable[[], None]) -> Deliveries:
        size, idle, usage = self._size, self._peak, Usage(self._processes)
        watching = asyncio.create_task(self._watch(tick))
        started, events = time.monotonic(), size.per_second * size.seconds
        for number in range(int(size.seconds / _PUBLISHED_SECONDS)):
            await asyncio.sleep(started + number * _PUBLISHED_SECONDS - time.monotonic())
            await self._publisher.publish(int((number + 1) * _PUBLISHED_SECONDS * size.per_second) - self._publisher.published)
        shares, ended = usage.shares(), time.monotonic()
        await self._until_received(_WELL, events)
        received, cost = time.monotonic(), usage.cost(len(_WELL) * events, dict.fromkeys(self._processes, 0.0))
        watching.cancel()
        late_at: dict[str, list[float]] = (await self._client.get(LATE)).json()
        late = sorted(1000 * each for name in _WELL for each in late_at[f"/{name}"])
        await self._client.post(HEAL)
        await self._until_received(_ILL, events)
        if repeated := sum(each.repeated for each in await self._until_received(_WELL, events)):
            raise BenchFailed(f"{repeated} webhooks were repeated at systems that are well")
        return Deliveries(
            per_second=size.per_second,
            events=events,
            p50_ms=late[len(late) // 2],
            p99_ms=late[int(len(late) * 0.99)],
            max_ms=late[-1],
            catch_up_seconds=received - ended,
            healed_seconds=time.monotonic() - received,
            delivered_per_second=len(late) / (received - started),
            bare_per_second=bare_per_second,
            bare_cpu_us=bare_cpu_us,
            cpu_us_per_delivery=cost.cpu_us_per_event[SERVICE],
            cpu_percent={name: 100 * share for name, share in shares.items()},
            idle_mib=idle,
            peak_mib=self._peak,
        )

    async def _watch(self, tick: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(1)
            tick()
            self._peak = max(self._peak, memory_mib(self._processes[SERVICE]))

    async def _until_received(self, names: Sequence[str], events: int) -> Sequence[Received]:
        """Waits until systems have received all webhooks.

        Raises:
            BenchFailed: one of them receives nothing more.
        """
        known, moved = 0, time.monotonic()
        while True:
            found: dict[str, Any] = (await self._client.get(RECEIVED)).json()
            received = [Received(**found.get(f"/{name}", {})) for name in names]
            count = sum(each.webhooks for each in received)
            if all(each.webhooks == events for each in received):
                return received
            if count > known:
                known, moved = count, time.monotonic()
            if time.monotonic() - moved > _STALL_SECONDS:
                raise BenchFailed(f"of {events} webhooks for each of {', '.join(names)} {count} were received in all")
            await asyncio.sleep(_LOOK_SECONDS)
