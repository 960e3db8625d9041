"""A mesh with far too little processor time answers part of each kind of call in time, and keeps everything it answered."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import statistics
import timeit
from collections import Counter
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import cycle
from pathlib import Path
from typing import Any

import grpc
import httpx
import psutil
import pytest
from google.protobuf.json_format import ParseDict
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from cli.layout import Processes
from tests.e2e.mesh import Mesh, running
from tests.servers import until

PROCESSOR = 0.3
"""Share of one processor for all processes of the mesh together, on a machine that is as fast as `ADDITIONS_SECONDS` says."""
ADDITIONS_SECONDS = 0.04
"""What a million additions take there. A slower machine gives the mesh a larger share, up to `MOST_OF_PROCESSOR`."""
MOST_OF_PROCESSOR = 0.9
EVENTS = 150
"""Offered per second; fewer of the rarer calls."""
OTHERS = 1.2
SECONDS = 25
GATEWAY_SECONDS = 15
_GROUPS = Path("/sys/fs/cgroup/cpu")
_CONNECTIONS = 10

Json = dict[str, Any]


@dataclass
class Offered:
    """The calls that were sent, and their outcome."""

    statuses: dict[str, Counter[int]] = field(default_factory=dict[str, Counter[int]])
    kept: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    """Calls answered with 200."""
    refused_without_word: int = 0
    """Refusals without `retry-after`."""

    def note(self, kind: str, name: str, status: int, headers: Json) -> None:
        self.statuses.setdefault(kind, Counter())[status] += 1
        if status == 200:
            self.kept.setdefault(kind, set()).add(name)
        if status == 429 and "retry-after" not in headers:
            self.refused_without_word += 1


def _share() -> float:
    """Share of one processor of this machine, as it is at this moment, in which as much is done as in `PROCESSOR` of that other."""
    own_seconds = min(timeit.repeat("for i in range(1_000_000): total += i", "total = 0", number=1, repeat=5))
    return min(MOST_OF_PROCESSOR, PROCESSOR * max(1, own_seconds / ADDITIONS_SECONDS))


@contextmanager
def starved(mesh: Mesh) -> Generator[None]:
    """Holds all processes of a mesh to a part of one processor. Needs the right to make a control group (v1, `cpu`)."""
    supervisor = psutil.Process(mesh.state["supervisor_pid"])
    group = _GROUPS / f"overload-{supervisor.pid}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    try:
        # It gets this share whatever else is running.
        (group / "cpu.shares").write_text("262144")
        (group / "cpu.cfs_period_us").write_text("100000")
        (group / "cpu.cfs_quota_us").write_text(f"{100_000 * _share():.0f}")
        for process in (supervisor, *supervisor.children(recursive=True)):
            (group / "cgroup.procs").write_text(str(process.pid))
        yield
    finally:
        for pid in (group / "cgroup.procs").read_text().split():
            (_GROUPS / "cgroup.procs").write_text(pid)
        group.rmdir()


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    with running(tmp_path_factory.mktemp("mesh"), processes=Processes.EACH) as mesh:
        yield mesh


@pytest.fixture(scope="module")
def offered(mesh: Mesh) -> Offered:
    """The outcome of all calls while the mesh was starved."""
    headers = mesh.credentials("site", "1")
    with starved(mesh):
        return asyncio.run(_offer(mesh, headers))


async def _offer(mesh: Mesh, headers: dict[str, str]) -> Offered:
    """Events natively, over several connections as from many visitors, and the others as the shop's server sends them."""
    offered, tasks = Offered(), list[asyncio.Task[None]]()
    channels = [
        grpc.aio.insecure_channel(mesh.url.removeprefix("http://"), options=[("grpc.use_local_subchannel_pool", 1)])
        for _ in range(_CONNECTIONS)
    ]
    stubs: Iterator[Any] = cycle([IngestionServiceStub(channel) for channel in channels])

    async def track(number: int) -> None:
        event = _event(number)
        try:
            await next(stubs).TrackEvent(ParseDict({"event": event}, pb.TrackEventRequest()), metadata=tuple(headers.items()), timeout=60)
        except grpc.aio.AioRpcError:
            offered.note("event", event["id"], 503, {})
        else:
            offered.note("event", event["id"], 200, {})

    async with httpx.AsyncClient(base_url=f"{mesh.url}/api/v1", headers=headers, timeout=60) as client:

        async def ask(kind: str, name: str, call: Callable[[], Awaitable[httpx.Response]]) -> None:
            answer = await call()
            offered.note(kind, name, answer.status_code, dict(answer.headers))

        def others(number: int) -> Iterator[tuple[str, str, Callable[[], Awaitable[httpx.Response]]]]:
            user, order, touchpoint = _registration(number), _order(number), _touchpoint(number)
            yield "user", user["wordpress_id"], lambda: client.post("/users/register", json=user)
            yield "purchase", order["order_id"], lambda: client.post("/purchases/track", json=order)
            yield "touchpoint", touchpoint["id"], lambda: client.post("/journey/touchpoint", json=touchpoint)
            yield "read", f"{number}", lambda: client.get("/users/1/journey")

        loop = asyncio.get_running_loop()
        start, events, calls = loop.time(), 0, 0
        while (passed := loop.time() - start) < SECONDS:
            for number in range(events, round(passed * EVENTS)):
                tasks.append(asyncio.create_task(track(number)))
            events = round(passed * EVENTS)
            for number in range(calls, round(passed * OTHERS)):
                tasks += [asyncio.create_task(ask(*each)) for each in others(number)]
            calls = round(passed * OTHERS)
            await asyncio.sleep(0.02)
        await asyncio.gather(*tasks)
    for channel in channels:
        await channel.close()
    return offered


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _event(number: int) -> Json:
    """Sessions of six pages; some came through a campaign, some belong to known users, and a few leave an address."""
    event: Json = {
        "id": f"e{number}",
        "event_type": "page_view",
        "timestamp": _now(),
        "session_id": f"s{number // 6}",
        "page_title": "Page",
    }
    if number % 3 == 0:
        event["utm_parameters"] = {"source": "google", "campaign": f"c{number % 9}"}
    if number % 4 == 0:
        event["user_id"] = str(1 + number % 400)
    if number % 33 == 0:
        event |= {"event_type": "lead_capture", "email": f"lead{number}@example.org"}
    return event


def _registration(number: int) -> Json:
    return {
        "wordpress_id": str(100_000 + number),
        "email": f"user{number}@example.org",
        "first_name": "Ada",
        "session_id": f"s{number * 20}",
        "timestamp": _now(),
    }


def _order(number: int) -> Json:
    return {"order_id": f"o{number}", "user_id": str(1 + number), "amount": 199, "currency": "USD", "timestamp": _now()}


def _touchpoint(number: int) -> Json:
    return {
        "id": f"t{number}",
        "session_id": f"s{number * 20}",
        "stage": "interest",
        "action": "download",
        "touchpoint": "lead_magnet",
        "timestamp": _now(),
    }


def _durations(mesh: Mesh, method: str) -> list[float]:
    """Durations of an rpc's calls in seconds, as measured by the gateway."""
    lines = (mesh.data / "logs" / "gateway.log").read_text().splitlines()
    calls = (json.loads(line) for line in lines if line.startswith("{"))
    return [call["duration_ms"] / 1000 for call in calls if call["path"].endswith(f"/{method}")]


def _stored(mesh: Mesh, service: str, query: str) -> set[str]:
    [path] = mesh.data.rglob(f"{service}.db")
    with closing(sqlite3.connect(path)) as connection:
        return {str(row[0]) for row in connection.execute(query)}


@pytest.mark.parametrize("kind", ["user", "purchase", "touchpoint", "read"])
def test_half_of_the_calls_of_each_kind_succeed_beside_a_flood_of_events(offered: Offered, kind: str) -> None:
    statuses = offered.statuses[kind]
    assert statuses.total() > SECONDS * OTHERS / 2, "the test itself was starved"
    answered = statuses[200] + (statuses[404] if kind == "read" else 0)
    assert answered >= statuses.total() / 2, offered.statuses


def test_events_are_taken_as_far_as_there_is_time_for_them(offered: Offered) -> None:
    assert offered.statuses["event"][200] > 0, offered.statuses


def test_no_registration_takes_longer_than_the_gateway_waits(mesh: Mesh, offered: Offered) -> None:
    calls = offered.statuses["user"].total()
    # Envoy writes its log lines a second later, and slowly.
    until(lambda: len(_durations(mesh, "RegisterUser")) == calls)
    durations = _durations(mesh, "RegisterUser")
    # The gateway's own timers wait for its part of the processor.
    assert max(durations) < GATEWAY_SECONDS + 5, statistics.quantiles(durations)


def test_refused_callers_get_retry_after(offered: Offered) -> None:
    assert offered.refused_without_word == 0
    assert {status for kind in ("user", "purchase", "touchpoint", "read") for status in offered.statuses[kind]} <= {200, 404, 429, 503, 504}


def test_everything_that_was_answered_is_stored(mesh: Mesh, offered: Offered) -> None:
    books = mesh.drained()
    assert books["balanced"]
    assert offered.kept["event"] <= _stored(mesh, "ingestion", "SELECT id FROM events")
    assert offered.kept["user"] <= _stored(mesh, "identity", "SELECT wordpress_id FROM users")
    assert offered.kept["purchase"] <= _stored(mesh, "purchases", "SELECT order_id FROM purchases")
    touchpoints = _stored(mesh, "journeys", "SELECT id FROM user_journeys WHERE origin = 'client'")
    assert {f"+{id_}" for id_ in offered.kept["touchpoint"]} <= touchpoints
