"""Every process is killed under load: everything answered with 200 is stored once and published once, and the books balance."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import grpc
import pymysql
import pytest
import redis
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp.log.v1 import log_pb2

from kit.log.redis_log import key
from tests.e2e.mesh import Mesh, running
from tests.servers import PrivateMariaDb, PrivateRedis, until

RATE = 500
SECONDS = 6


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb) -> Iterator[Mesh]:
    urls = ["--database-url", mariadb_server.url.replace("{service}", "faults_{service}"), "--redis-url", redis_of_mesh.url]
    with running(tmp_path_factory.mktemp("mesh"), *urls) as mesh:
        yield mesh


async def _load(mesh: Mesh, name: str, *, during: Callable[[], object], rate: int = RATE) -> list[str]:
    """Sends events at a steady rate, retries each with the same id until it is answered, and returns the answered ids."""
    headers = tuple(mesh.credentials("site", "1").items())
    answered: list[str] = []
    async with grpc.aio.insecure_channel(mesh.url.removeprefix("http://"), options=[("grpc.max_reconnect_backoff_ms", 500)]) as channel:
        stub: Any = IngestionServiceStub(channel)

        async def send(number: int) -> None:
            event = event_pb2.Event(id=f"{name}-{number}", event_type="page_view", session_id=f"s{number % 50}", page_title="under load")
            event.timestamp.CopyFrom(Timestamp(seconds=1_795_000_000 + number))
            while True:
                try:
                    await stub.TrackEvent(pb.TrackEventRequest(event=event), metadata=headers, timeout=15)
                except grpc.aio.AioRpcError as error:
                    again = {
                        grpc.StatusCode.UNAVAILABLE,
                        grpc.StatusCode.DEADLINE_EXCEEDED,
                        grpc.StatusCode.RESOURCE_EXHAUSTED,
                        grpc.StatusCode.CANCELLED,
                    }
                    assert error.code() in again, error  # noqa: PT017 (any other status is a defect)
                    await asyncio.sleep(0.3)
                else:
                    answered.append(event.id)
                    return

        tasks: list[asyncio.Task[None]] = []
        loop = asyncio.get_running_loop()
        start = loop.time()
        trouble: asyncio.Future[object] | None = None
        for number in range(rate * SECONDS):
            tasks.append(asyncio.create_task(send(number)))
            await asyncio.sleep(max(0.0, start + number / rate - loop.time()))
            if number == rate * SECONDS // 3:
                trouble = loop.run_in_executor(None, during)
        assert trouble is not None
        await trouble
        await asyncio.wait_for(asyncio.gather(*tasks), 90)
    return answered


def _lose(mesh: Mesh, server: PrivateRedis) -> None:
    """Redis is flushed twice, and restarted with an older file, while no worker is running."""
    worker = mesh.pid("ingestion-worker")
    file, older = server.folder / "appendonlydir", server.folder / "older"
    shutil.copytree(file, older)
    os.kill(worker, signal.SIGSTOP)
    try:
        with redis.Redis.from_url(server.url) as client:
            for _ in range(2):
                # Receipts of answers older than a second are stored.
                time.sleep(1.5)
                client.flushall()
        time.sleep(1.5)
        server.kill()
        shutil.rmtree(file)
        older.rename(file)
        server.start()
    finally:
        os.kill(worker, signal.SIGCONT)


def _named(mesh: Mesh) -> list[dict[str, Any]]:
    """The lost events according to the books."""
    return mesh.client.get(f"{mesh.url}/api/v1/events/accounting", headers=mesh.credentials("read")).json()["lost"]


@pytest.mark.timeout(400)
async def test_a_redis_that_loses_what_it_has_confirmed_can_not_hide_it(
    mesh: Mesh, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb
) -> None:
    answered = await _load(mesh, "lossy", during=lambda: _lose(mesh, redis_of_mesh), rate=100)
    assert mesh.drained()["balanced"] is False
    lost = sorted(set(answered) - set(_stored(mariadb_server)))
    assert lost
    # The first delivery of an unconfirmed event that was sent again may be lost as well: it is listed once that is noticed.
    until(lambda: mesh.books()["missing"] == len(lost), 90)
    # The answer lists at most a thousand ids per period.
    until(lambda: sum(int(each["count"]) for each in _named(mesh)) == len(lost), 90)
    assert {each["scope"] for each in _named(mesh)} == {"site"}
    assert {event_id for each in _named(mesh) for event_id in each["event_ids"]} <= set(lost)
    refused = mesh.pmp("books", "--lost", check=False)
    assert (refused.returncode, "more are missing" in refused.stdout) == (1, False)
    assert "books do not balance" in (mesh.data / "logs" / "ingestion-worker.log").read_text()

    headers = {**mesh.credentials("site", "1"), "content-type": "application/json"}
    again = [{"id": event_id, "event_type": "page_view", "timestamp": "2026-11-19T00:00:00Z"} for event_id in lost]
    for first in range(0, len(again), 500):
        send = partial(mesh.client.post, f"{mesh.url}/api/v1/events/batch", headers=headers, json={"events": again[first : first + 500]})
        # The first call after an idle minute may use a connection that the restart broke: it is retried, like every 503.
        until(lambda send=send: send().status_code == 200)
    until(lambda: mesh.books()["balanced"], 90)
    assert mesh.books()["recovered"] >= len(lost)
    assert set(answered) <= set(_stored(mariadb_server))


def _stored(server: PrivateMariaDb) -> list[str]:
    with (
        pymysql.connect(host="127.0.0.1", port=server.port, user="root", database="faults_ingestion") as connection,
        connection.cursor() as cursor,
    ):
        cursor.execute("SELECT id FROM events")
        return [row[0] for row in cursor.fetchall()]


def _published(server: PrivateRedis, partitions: int) -> Sequence[str]:
    """Ids on the topic, in its order; asserts that its positions have no gap."""
    ids: list[str] = []
    with redis.Redis.from_url(server.url) as client:
        for partition in range(partitions):
            entries: Any = client.xrange(key("events", partition, "log"))
            assert [int(position.split(b"-")[0]) for position, _ in entries] == list(range(1, len(entries) + 1))
            records = [record for _, fields in entries for record in log_pb2.Pack.FromString(fields[b"p"]).records]
            ids.extend(event_pb2.EventStored.FromString(record.payload).event.id for record in records)
    return ids


@pytest.mark.parametrize("victim", ["ingestion", "ingestion-worker", "gateway", "redis", "mariadb"])
async def test_nothing_answered_is_lost_or_counted_twice(
    mesh: Mesh, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb, victim: str
) -> None:
    def kill() -> None:
        if victim in ("redis", "mariadb"):
            server = redis_of_mesh if victim == "redis" else mariadb_server
            server.kill()
            server.start()
        else:
            mesh.kill(victim)

    answered = await _load(mesh, victim, during=kill)
    assert len(answered) == RATE * SECONDS
    books = mesh.drained()
    assert books["balanced"], books
    # Events from before earlier kills are still stored, and still once.
    stored = sorted(_stored(mariadb_server))
    assert [name for name in stored if name.rpartition("-")[0] == victim] == sorted(answered)
    until(lambda: len(_published(redis_of_mesh, 4)) >= len(stored))
    assert sorted(_published(redis_of_mesh, 4)) == stored
    assert books["dead_lettered"] == 0
