"""Live streams of a whole mesh: many WebSocket clients, some of which do not read, while events arrive at a constant rate."""

from __future__ import annotations

import asyncio
import json
import resource
import sqlite3
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import uvloop
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.log.v1 import log_pb2
from typing_extensions import override

from bench.cost import Usage
from bench.events import COURSES, SESSIONS, USERS, template
from bench.listeners import Counting, Listener, Noting, Unread
from bench.servers import BenchFailed, memory_mib, pmp_up
from cli.credentials import Credentials, Scope, credentials
from cli.folder import DataFolder
from cli.state import running_mesh
from kit.settings import split_address

_PER_CALLER = 20
"""Streams of one user: as many as the mesh allows."""
_BATCH = 10
"""Events in a request."""
_NOTING = 20
"""Clients that note when each event arrives."""
_LOOKS, _LOOK_SECONDS = 600, 0.2
"""How often and how long the last events are waited for."""
_SIGHT_SECONDS = 0.005
"""From one look at the database to the next."""
_OPENING = 50
"""Clients that connect at once."""


@dataclass(frozen=True, slots=True)
class Size:
    """Size of the measurement."""

    clients: int
    unread: int
    """Clients that do not read until the load has ended."""
    per_second: int
    """Events."""
    seconds: int


@dataclass(frozen=True, slots=True)
class Realtime:
    """Live streams of one mesh on SQLite."""

    clients: int
    unread: int
    per_second: int
    """Events offered."""
    events: int
    """Events sent, each of which arrived at each client that read."""
    p50_ms: float
    """From when the database showed an event, give or take 5 ms, until a client has received it."""
    p99_ms: float
    max_ms: float
    missed_per_unread: float
    """Events that a client which did not read was given the number of, on average; with those it received later, all."""
    opened_per_second: float
    """Streams opened per second."""
    cpu_percent: Mapping[str, float]
    """Share of one core of each process during the load."""
    idle_mib: Mapping[str, float]
    """Memory (PSS) of each process before the clients came."""
    open_mib: Mapping[str, float]
    """The same with all clients connected, before the load."""
    peak_mib: Mapping[str, float]
    """The largest during the load."""


async def measure(folder: Path, size: Size, tick: Callable[[], None]) -> Realtime:
    """Measures a mesh as `pmp up` runs it.

    Args:
        folder: an empty folder.
        size: how much.
        tick: is called each second of the load.

    Raises:
        BenchFailed: the mesh does not start, or an event did not arrive at a client exactly once.
    """
    data = DataFolder(folder / "mesh")
    async with pmp_up(data):
        # A loop of its own: the clients are not to wait for what else this process does.
        return await asyncio.to_thread(uvloop.run, _measure(data, size, tick))


class _Stored(threading.Thread):
    """Notes when the database shows each event to others: until then it is not stored.

    Args:
        data: of the mesh.
    """

    def __init__(self, data: DataFolder) -> None:
        super().__init__(daemon=True)
        self._path = data.path / "ingestion.db"
        self._partitions = range(running_mesh(data).log_partitions)
        self._packs: list[tuple[float, bytes]] = []
        self._ended = threading.Event()

    @override
    def run(self) -> None:
        newest = dict.fromkeys(self._partitions, 0)
        query = "SELECT position, pack FROM outbox WHERE topic = 'events' AND partition = ? AND position > ? ORDER BY position"
        with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True)) as database:
            while not self._ended.wait(_SIGHT_SECONDS):
                for partition in self._partitions:
                    rows = database.execute(query, (partition, newest[partition])).fetchall()
                    now = time.time()
                    for position, pack in rows:
                        newest[partition] = position
                        self._packs.append((now, pack))

    def times(self) -> Mapping[str, float]:
        """Ends; returns when each event was stored, in seconds since 1970, by its id."""
        self._ended.set()
        self.join()
        records = ((at, record) for at, pack in self._packs for record in log_pb2.Pack.FromString(pack).records)
        return {EventStored.FromString(record.payload).event.id: at for at, record in records}


async def _measure(data: DataFolder, size: Size, tick: Callable[[], None]) -> Realtime:
    _, most_files = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))
    processes = {each.name: psutil.Process(each.pid) for each in running_mesh(data).processes if each.pid}
    idle = _memory(processes)
    began = time.monotonic()
    clients = await _connected(data, size)
    opened = size.clients / (time.monotonic() - began)
    open_ = _memory(processes)
    usage, peak = Usage(processes), dict(open_)
    watching = asyncio.create_task(_watch(processes, peak, tick))
    storing = _Stored(data)
    storing.start()
    events = await _offer(credentials(data, Scope.SITE, "1", {}), size)
    used = {name: 100 * share for name, share in usage.shares().items()}
    await _arrived([each for each in clients if isinstance(each, Counting | Noting) and not isinstance(each, Unread)], events)
    unread = [each for each in clients if isinstance(each, Unread)]
    for each in unread:
        each.resume()
    await _arrived(unread, events)
    watching.cancel()
    stored = storing.times()
    noted = [each for each in clients if type(each) is Noting]
    took = sorted(1000 * (at - stored[event]) for each in noted for event, at in each.arrived.items())
    for each in clients:
        if each.transport is not None:
            each.transport.abort()
    return Realtime(
        clients=size.clients,
        unread=size.unread,
        per_second=size.per_second,
        events=events,
        p50_ms=statistics.median(took),
        p99_ms=took[int(len(took) * 0.99)],
        max_ms=took[-1],
        missed_per_unread=statistics.mean(each.missed for each in unread),
        opened_per_second=opened,
        cpu_percent=used,
        idle_mib=idle,
        open_mib=open_,
        peak_mib=peak,
    )


async def _connected(data: DataFolder, size: Size) -> list[Listener]:
    kinds = [Unread] * size.unread + [Noting] * min(_NOTING, size.clients - size.unread)
    kinds += [Counting] * (size.clients - len(kinds))
    callers = [credentials(data, Scope.READ, f"user-{number}", {}) for number in range(-(-size.clients // _PER_CALLER))]
    host, port = split_address(urlsplit(callers[0].url).netloc)
    room = asyncio.Semaphore(_OPENING)

    async def connect(kind: type[Listener], caller: Credentials) -> Listener:
        async with room:
            loop = asyncio.get_running_loop()
            _, client = await loop.create_connection(partial(kind, caller), host, port)
            await client.opened
            return client

    return list(await asyncio.gather(*(connect(kind, callers[number // _PER_CALLER]) for number, kind in enumerate(kinds))))


async def _offer(caller: Credentials, size: Size) -> int:
    """Sends events at the rate, whether or not the answers keep up; returns their number."""
    pattern, numbers = template(), count()
    limits = httpx.Limits(max_connections=64)

    async def send(client: httpx.AsyncClient) -> None:
        some = (next(numbers) for _ in range(_BATCH))
        events = ",".join(pattern % (f"live-{each}", each % USERS, each % SESSIONS, each % COURSES) for each in some)
        answer = await client.post("/api/v1/events/batch", content=f'{{"events":[{events}]}}')
        if not answer.is_success or not json.loads(answer.content)["success"]:
            raise BenchFailed(f"events were answered with {answer.status_code}")

    headers = {**caller.headers(), "content-type": "application/json"}
    async with httpx.AsyncClient(base_url=caller.url, headers=headers, limits=limits, timeout=30) as client, asyncio.TaskGroup() as group:
        began, requests = time.monotonic(), size.per_second * size.seconds // _BATCH
        for number in range(requests):
            await asyncio.sleep(began + number * _BATCH / size.per_second - time.monotonic())
            group.create_task(send(client))
    return requests * _BATCH


async def _arrived(clients: Sequence[Counting | Noting], events: int) -> None:
    """Waits until each client has all events, or the number of those it missed.

    Raises:
        BenchFailed: one has more, or does not get all.
    """
    for _ in range(_LOOKS):
        if all(_count(each) >= events for each in clients):
            break
        await asyncio.sleep(_LOOK_SECONDS)
    if wrong := [_count(each) for each in clients if _count(each) != events]:
        raise BenchFailed(f"{len(wrong)} of {len(clients)} clients have another number of events than {events}, such as {wrong[0]}")


def _count(client: Counting | Noting) -> int:
    return client.events + (client.missed if isinstance(client, Unread) else 0)


async def _watch(processes: Mapping[str, psutil.Process], peak: dict[str, float], tick: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(1)
        tick()
        for name, mib in _memory(processes).items():
            peak[name] = max(peak[name], mib)


def _memory(processes: Mapping[str, psutil.Process]) -> dict[str, float]:
    return {name: memory_mib(process) for name, process in processes.items()}
