"""Pods are replaced under load, by their own release and by the next: no call fails, nothing is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import httpx
import pytest
from pmp_mesh_client.tokens import Scope, mint

from cli.layout import Processes, databases, roles_by_process
from services import role_modules
from tests.background import eventually
from tests.e2e import kubernetes
from tests.e2e.event_load import published
from tests.e2e.kubernetes import GATEWAY, THIS_RELEASE, Cluster, Release
from tests.releases import check_out, release_before
from tests.servers import PrivateMariaDb, PrivateRedis
from tests.variants import EVERY_VARIANT

RATE = int(os.environ.get("PMP_ROLLING_RATE", "0"))
"""Calls per second to pods of one role each, with the delays of a cluster; 0 for few calls, to pods of all roles that end sooner."""
PROCESSES = Processes(os.environ.get("PMP_ROLLING_PROCESSES", Processes.EACH))
"""How roles are distributed over pods at that rate: two cores do not carry 200 calls/s beside twenty pods."""
FEW = 40
MOST = 4
"""Of the few calls, so many are under way at most: a slow machine makes fewer of them, instead of refusing some for lack of time."""
PERSONS = 20
_AMOUNT = 199
_clusters = count()

Json = dict[str, Any]
Call = Callable[[], Awaitable[httpx.Response]]


@dataclass
class Offered:
    """The calls that were made, and their outcome."""

    calls: int = 0
    failed: list[str] = field(default_factory=list[str])
    milliseconds: list[int] = field(default_factory=list[int])
    """How long each call took."""
    late: float = 0.0
    """How much later than it should have been the latest call was made, in seconds."""
    events: list[str] = field(default_factory=list[str])
    orders: list[str] = field(default_factory=list[str])
    touchpoints: list[str] = field(default_factory=list[str])

    def print(self) -> None:
        """Shows how long calls took, with `pytest -s`."""
        took = sorted(self.milliseconds)
        half, most = took[len(took) // 2], took[len(took) * 99 // 100]
        sys.stdout.write(f"\n{self.calls} calls, {len(self.failed)} failed, p50 {half} ms, p99 {most} ms, slowest {took[-1]} ms")
        sys.stdout.write(f", made at most {self.late:.2f} s late\n")


class Shop:
    """The calls of a shop and of those who read its figures.

    Args:
        client: of the gateway.
        cluster: whose gateway it is.
    """

    def __init__(self, client: httpx.AsyncClient, cluster: Cluster) -> None:
        self._client = client
        self._headers = {
            scope: {
                "x-api-key": cluster.keys.api_keys[0],
                "authorization": f"Bearer {mint(cluster.keys.jwt_secrets[0], scope, '1', int(time.time()))}",
            }
            for scope in (Scope.SITE, Scope.READ)
        }
        self.offered = Offered()

    async def post(self, path: str, body: Json) -> httpx.Response:
        return await self._client.post(path, json={"timestamp": datetime.now(UTC).isoformat(), **body}, headers=self._headers[Scope.SITE])

    async def get(self, path: str, scope: Scope = Scope.SITE) -> httpx.Response:
        return await self._client.get(path, headers=self._headers[scope])

    async def track_event(self, name: str, person: int) -> httpx.Response:
        self.offered.events.append(name)
        event = {"id": name, "event_type": "page_view", "page_url": "https://shop.example/courses/pmp", "session_id": f"s{person}"}
        return await self.post("/events/track", {**event, "user_id": str(person)})

    async def track_purchase(self, name: str, person: int) -> httpx.Response:
        self.offered.orders.append(name)
        order = {"id": f"{name}-paid", "order_id": name, "user_id": str(person), "amount": _AMOUNT, "currency": "USD"}
        return await self.post("/purchases/track", {**order, "session_id": f"s{person}", "payment_status": "completed"})

    async def track_touchpoint(self, name: str, person: int) -> httpx.Response:
        self.offered.touchpoints.append(name)
        touchpoint = {"id": name, "user_id": str(person), "stage": "interest", "action": "download", "touchpoint": "lead_magnet"}
        return await self.post("/journey/touchpoint", touchpoint)

    async def register(self, person: int) -> httpx.Response:
        return await self.post("/users/register", {"wordpress_id": str(person), "email": f"user{person}@example.org"})

    async def books(self) -> Json:
        return (await self.get("/events/accounting", Scope.READ)).json()

    def calls(self) -> Iterator[Call]:
        """What a shop calls, in a mix: of ten calls six report an event, two something else, and two read."""
        for number in count():
            person = 1 + number % PERSONS
            events = [partial(self.track_event, f"e{number}-{each}", person) for each in range(6)]
            written = [partial(self.track_touchpoint, f"t{number}", person), partial(self.register, 1000 + number)]
            read = [
                partial(self.get, f"/users/{person}/journey"),
                partial(self.get, "/analytics/dashboard", Scope.READ),
                partial(self.get, "/purchases/first"),
                partial(self.get, f"/users/{person}/consent"),
                partial(self.get, f"/users/{person}"),
                partial(self.get, "/destinations", Scope.READ),
            ]
            yield from (*events[:3], partial(self.track_purchase, f"o{number}", person), read[2 * number % 6])
            yield from (*events[3:], written[number % 2], read[(2 * number + 1) % 6])

    async def note(self, call: Call) -> None:
        """Makes a call, and notes its outcome."""
        started = time.monotonic()
        self.offered.calls += 1
        try:
            answer = await call()
        except httpx.HTTPError as error:
            self.offered.failed.append(f"{call}: {error!r}")
        else:
            if answer.status_code != 200:
                self.offered.failed.append(f"{answer.request.url.path}: {answer.status_code} {answer.text}")
        self.offered.milliseconds.append(round(1000 * (time.monotonic() - started)))

    async def known(self) -> None:
        """Makes the persons, and the order, that calls read."""
        for person in range(1, PERSONS + 1):
            await self.note(partial(self.register, person))
            await self.note(partial(self.track_event, f"first-{person}", person))
        await self.note(partial(self.track_purchase, "first", 1))
        assert not self.offered.failed

        async def is_known(person: int) -> bool:
            return (await self.get(f"/users/{person}/journey")).status_code == 200

        for person in range(1, PERSONS + 1):
            await eventually(partial(is_known, person), 60)

    async def offer(self, rate: float) -> None:
        """Makes calls at a steady rate until it is cancelled, whether or not those before are answered; then waits for answers."""
        under_way: set[asyncio.Task[None]] = set()
        start = time.monotonic()
        try:
            for number, call in enumerate(self.calls()):
                due = start + number / rate
                await asyncio.sleep(due - time.monotonic())
                self.offered.late = max(self.offered.late, time.monotonic() - due)
                task = asyncio.create_task(self.note(call))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
                if not RATE and len(under_way) >= MOST:
                    await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await asyncio.gather(*under_way)


@asynccontextmanager
async def running(made: Cluster, release: Release) -> AsyncGenerator[Shop]:
    """Runs a cluster, and yields a shop that calls it."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with (
        kubernetes.running(made, release),
        httpx.AsyncClient(base_url=f"{made.url}/api/v1", limits=limits, timeout=20) as client,
    ):
        shop = Shop(client, made)
        await shop.known()
        yield shop


@asynccontextmanager
async def under_load(shop: Shop) -> AsyncGenerator[None]:
    """Has the shop call until the block ends."""
    load = asyncio.create_task(shop.offer(RATE or FEW))
    try:
        yield
    finally:
        load.cancel()
        with suppress(asyncio.CancelledError):
            await load


@pytest.fixture
def made(tmp_path: Path, mariadb_server: PrivateMariaDb) -> Iterator[Cluster]:
    """The cluster of a test, without pods."""
    server = PrivateRedis(tmp_path)
    server.start()
    url = mariadb_server.url.replace("{service}", f"rolling{next(_clusters)}_{{service}}")
    workloads = roles_by_process(PROCESSES) if RATE else {"mesh": list(role_modules())}
    yield Cluster(tmp_path, url, server.url, workloads, haste=1 if RATE else 4)
    server.kill()


@pytest.mark.skipif(not RATE and not EVERY_VARIANT, reason="PMP_EVERY_VARIANT=1 replaces some pods, PMP_ROLLING_RATE all of them")
@pytest.mark.timeout(900)
async def test_no_call_fails_while_every_pod_is_replaced(made: Cluster, mariadb_server: PrivateMariaDb) -> None:
    async with running(made, THIS_RELEASE) as shop:
        async with under_load(shop):
            for workload in (GATEWAY, *made.workloads):
                pods = [pod for pod in made.pods if pod.workload == workload]
                for pod in pods if RATE else pods[:1]:
                    await made.replace(pod, THIS_RELEASE)
            await made.ended()
        await check(made, mariadb_server, shop)


@pytest.mark.skipif("PMP_UPGRADE" not in os.environ, reason="PMP_UPGRADE=1 runs the release before this one beside it")
@pytest.mark.timeout(900)
async def test_the_release_before_and_this_one_run_side_by_side(
    made: Cluster, mariadb_server: PrivateMariaDb, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Databases are migrated and used by both, on the way to the new release and on the way back."""
    before = Release(tmp_path_factory.mktemp("release"))
    check_out(release_before(), before.folder, "cli", "client", "gateway", "kit", "protos", "services")
    async with running(made, before) as shop:
        async with under_load(shop):
            await upgrade(made, THIS_RELEASE)
            await upgrade(made, before)
            await made.ended()
        await check(made, mariadb_server, shop)


async def upgrade(made: Cluster, release: Release) -> None:
    """Replaces the pods of all services, half of each at first, so that both releases run for a while."""
    for _ in range(2):
        for workload in made.workloads:
            pods = [pod for pod in made.pods if pod.workload == workload and pod.is_ready]
            await made.replace(pods[0], release)


async def check(made: Cluster, server: PrivateMariaDb, shop: Shop) -> None:
    """No call failed; and what was reported is stored, published and counted once by whoever follows it."""
    offered = shop.offered
    offered.print()
    assert not offered.failed, offered.failed
    assert not made.faults, made.faults

    def stored(service: str, query: str) -> list[Any]:
        database = made.database_url.rpartition("/")[2].replace("{service}", service)
        return [value for (value,) in server.query(database, query)]

    async def are_applied() -> bool:
        touchpoints = await asyncio.to_thread(stored, "journeys", "SELECT COUNT(*) FROM user_journeys")
        orders = await asyncio.to_thread(stored, "analytics", "SELECT COUNT(*) FROM analytics_orders")
        return touchpoints >= [len(keys)] and orders >= [len(purchases)]

    assert sorted(stored("purchases", "SELECT order_id FROM purchases")) == sorted(offered.orders)
    purchases = sorted(stored("purchases", "SELECT id FROM purchases"))
    # What a client tracked as a touchpoint has a mark in its key.
    keys = sorted([*offered.events, *(f"+{name}" for name in offered.touchpoints), *(f"purchase/{name}" for name in purchases)])
    await eventually(are_applied, 60)
    assert sorted(stored("ingestion", "SELECT id FROM events")) == sorted(offered.events)
    assert sorted(published(made.redis_url)) == sorted(offered.events)
    assert sorted(stored("purchases", "SELECT purchase_id FROM purchase_entries")) == purchases
    assert sorted(stored("journeys", "SELECT id FROM user_journeys")) == keys
    assert stored("analytics", "SELECT SUM(net) FROM analytics_orders") == [10_000 * _AMOUNT * len(purchases)]
    for service in databases():
        assert stored(service, "SELECT reason FROM dead_letters") == []
    books = await shop.books()
    assert (books["balanced"], int(books["total"]["received"]), int(books["total"]["stored"])) == (True, *[len(offered.events)] * 2)
