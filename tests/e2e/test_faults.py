"""Every process is killed under load: everything answered with 200 is stored once and published once, and the books balance."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pymysql
import pytest
import redis

from cli.layout import Processes
from tests.e2e.event_load import RATE, SECONDS, load, published
from tests.e2e.mesh import Mesh, running
from tests.servers import PrivateMariaDb, PrivateRedis, until
from tests.variants import long_test, some_of


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb) -> Iterator[Mesh]:
    urls = ["--database-url", mariadb_server.url.replace("{service}", "faults_{service}"), "--redis-url", redis_of_mesh.url]
    with running(tmp_path_factory.mktemp("mesh"), *urls, processes=Processes.EACH) as mesh:
        yield mesh


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


@long_test
@pytest.mark.timeout(400)
async def test_a_redis_that_loses_what_it_has_confirmed_can_not_hide_it(
    mesh: Mesh, redis_of_mesh: PrivateRedis, mariadb_server: PrivateMariaDb
) -> None:
    answered = await load(mesh, "lossy", during=lambda: _lose(mesh, redis_of_mesh), rate=100)
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


# Those of the default layout are killed in test_faults_shared.
@pytest.mark.parametrize("victim", some_of(["ingestion", "ingestion-worker", "gateway", "redis", "mariadb"], 2, 3, 4))
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

    answered = await load(mesh, victim, during=kill)
    assert len(answered) == RATE * SECONDS
    books = mesh.drained()
    assert books["balanced"], books
    # Events from before earlier kills are still stored, and still once.
    stored = sorted(_stored(mariadb_server))
    assert [name for name in stored if name.rpartition("-")[0] == victim] == sorted(answered)
    until(lambda: len(published(redis_of_mesh.url)) >= len(stored))
    assert sorted(published(redis_of_mesh.url)) == stored
    assert books["dead_lettered"] == 0
