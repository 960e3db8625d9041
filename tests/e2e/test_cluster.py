"""Two replicas of everything on a Redis Cluster, of which a shard is killed: what was answered is stored, published and counted once."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Final, cast

import pytest
import redis

from kit.credentials.urls import node_url
from kit.log.leases import members_key
from kit.log.redis_log import key
from services.ingestion.messages import RAW_TOPIC
from tests.e2e.event_load import PARTITIONS, SECONDS, load, published
from tests.e2e.mesh import Mesh, running
from tests.servers import PrivateRedisCluster, until
from tests.variants import long_test

RATE: Final = 60
"""Events per second to each replica."""
FOLLOWED: Final = {"intake": "ingestion", "events": "analytics"}
"""Topics, each with a group that follows it."""


@pytest.fixture(scope="module")
def meshes(tmp_path_factory: pytest.TempPathFactory, redis_cluster: PrivateRedisCluster) -> Iterator[list[Mesh]]:
    """Two of all processes, the gateway included, with the same secrets and databases."""
    with redis.RedisCluster.from_url(node_url(redis_cluster.url)) as client:
        cast("Any", client).flushall()
    one, other = (tmp_path_factory.mktemp("replicas") / name for name in ("one", "other"))
    with running(one, "--redis-url", redis_cluster.url) as first:
        other.mkdir(mode=0o700)
        shutil.copy2(one / "secrets.json", other)
        databases = f"sqlite+aiosqlite:///{one}/{{service}}.db"
        with running(other, "--redis-url", redis_cluster.url, "--database-url", databases) as second:
            yield [first, second]


@long_test
async def test_a_shard_that_dies_loses_nothing_and_nothing_is_counted_twice(meshes: list[Mesh], redis_cluster: PrivateRedisCluster) -> None:
    shard = redis_cluster.holder(key(RAW_TOPIC, 0, "log"))

    def kill() -> None:
        shard.kill()
        time.sleep(1.5)
        shard.start()

    first, second = meshes
    answered = await asyncio.gather(
        load(first, "one", during=kill, rate=RATE),
        load(second, "two", during=lambda: None, rate=RATE),
    )
    sent = sorted(event for each in answered for event in each)
    assert len(sent) == 2 * RATE * SECONDS
    books = first.drained()
    assert books["balanced"], books
    assert (books["stored"], books["dead_lettered"]) == (len(sent), 0)
    with closing(sqlite3.connect(f"file:{first.data / 'ingestion'}.db?mode=ro", uri=True, timeout=30)) as connection:
        assert [row[0] for row in connection.execute("SELECT id FROM events ORDER BY id")] == sent
    until(lambda: len(published(redis_cluster.url)) >= len(sent))
    assert sorted(published(redis_cluster.url)) == sent
    until(lambda: _page_views(second) >= len(sent))
    assert _page_views(first) == len(sent)
    until(lambda: _shares(redis_cluster) == dict.fromkeys(FOLLOWED, [PARTITIONS // 2] * 2))


def _page_views(mesh: Mesh) -> int:
    """What analytics, which follows the topics, has counted."""
    query = {"from": "2026-11-01", "to": "2026-12-31"}
    answer: Any = mesh.client.get(f"{mesh.url}/api/v1/analytics/dashboard", params=query, headers=mesh.credentials("read")).json()
    return int(next(each["value"] for each in answer["figures"] if each["key"] == "page_views"))


def _shares(cluster: PrivateRedisCluster) -> dict[str, list[int]]:
    """How many partitions of a topic each replica works on."""
    shares: dict[str, list[int]] = {}
    with redis.RedisCluster.from_url(node_url(cluster.url)) as client:
        asked: Any = client
        for topic, group in FOLLOWED.items():
            holders = [asked.get(key(topic, partition, f"lease:{group}")) for partition in range(PARTITIONS)]
            shares[topic] = [holders.count(member) for member in asked.zrange(members_key(topic, group), 0, -1)]
    return shares
