"""The log on a Redis Cluster, of which a shard may be down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from cli.doctor.clocks import clocks
from cli.doctor.redis import configuration
from kit.credentials.urls import redis_url
from kit.database.engine import open_database
from kit.log.leases import Leases
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog, key
from kit.log.streams import START, Append, Offset, TopicPartition
from kit.outages import is_outage
from services.destinations.waking import Waking
from tests.servers import PrivateRedisCluster
from tests.unit.mesh_log import group
from tests.unit.test_doctor import examining

TOPIC = "intake"
PARTITIONS = 12
FLOOR = Offset(9_999_999_999_000, 0)
"""An offset far in the future."""


async def _floors() -> Mapping[TopicPartition, Offset]:
    return {TopicPartition(TOPIC, partition): FLOOR for partition in range(PARTITIONS)}


@pytest.fixture
async def log(redis_cluster: PrivateRedisCluster) -> AsyncIterator[RedisLog]:
    async with open_log(redis_cluster.url, floors=_floors) as log:
        await log.redis.flushall()
        yield log


def _to_all(number: int) -> list[Append]:
    return [group(partition, [(b"%d" % number, 1)], 7, {"received": 1}) for partition in range(PARTITIONS)]


async def test_every_shard_is_reconciled_before_its_first_append(log: RedisLog) -> None:
    assert set(await log.append(TOPIC, _to_all(1))) == {None}
    heads = await log.heads(TOPIC, range(PARTITIONS))
    assert [partition for partition, head in heads.items() if head <= FLOOR] == []


async def test_while_a_shard_is_down_the_partitions_of_the_others_go_on(log: RedisLog, redis_cluster: PrivateRedisCluster) -> None:
    shards = {partition: redis_cluster.holder(key(TOPIC, partition, "log")) for partition in range(PARTITIONS)}
    assert len({shard.port for shard in shards.values()}) == 3
    after = dict.fromkeys(shards, START)
    await log.append(TOPIC, _to_all(1))
    # The URL names another one.
    dead = next(shard for shard in shards.values() if shard is not redis_cluster.shards[0])
    alive = {partition for partition, shard in shards.items() if shard is not dead}
    dead.kill()
    try:
        async with open_log(redis_cluster.url, floors=_floors) as new:
            for number, appending in ((2, log), (3, log), (4, new)):
                verdicts = dict(zip(shards, await appending.append(TOPIC, _to_all(number)), strict=True))
                assert {partition for partition, verdict in verdicts.items() if verdict is None} == alive
                assert all(is_outage(verdict) for verdict in verdicts.values() if verdict)
        assert {
            partition: len(entries) for partition, (entries, _) in (await log.read_counted(TOPIC, after, limit=9)).items()
        } == dict.fromkeys(alive, 4)
        assert (await log.read_several(TOPIC, after, limit=9, block_ms=0)).keys() == alive
        await log.check()
        assert await log.used_bytes() > 0
    finally:
        dead.start()
    for _ in range(100):
        if not any(await log.append(TOPIC, _to_all(5))):
            break
        await asyncio.sleep(0.1)
    kept = await log.read_several(TOPIC, dict.fromkeys(shards.keys() - alive, START), limit=9, block_ms=0)
    assert {(entries[0].pack, entries[-1].pack) for entries in kept.values()} == {(b"1", b"5")}


async def test_one_of_many_partitions_ends_the_wait_for_all(log: RedisLog) -> None:
    async def append() -> None:
        await asyncio.sleep(0.3)
        await log.append(TOPIC, [group(7, [(b"late", 1)], 7, {"received": 1})])

    await log.append(TOPIC, _to_all(1))
    after = await log.heads(TOPIC, range(PARTITIONS))
    appending = asyncio.create_task(append())
    begun = time.monotonic()
    readers = [log.read_several(TOPIC, after, limit=1, block_ms=5000) for _ in range(2)]
    for found in await asyncio.gather(*readers):
        assert {partition: [entry.pack for entry in entries] for partition, entries in found.items()} == {7: [b"late"]}
    assert 0.2 < time.monotonic() - begun < 4
    await appending


async def test_a_wait_ends_when_nothing_comes(log: RedisLog) -> None:
    assert await log.read_several(TOPIC, dict.fromkeys(range(PARTITIONS), START), limit=1, block_ms=200) == {}


async def test_signals_and_leases_are_those_of_the_whole_cluster(log: RedisLog, redis_cluster: PrivateRedisCluster) -> None:
    woken = asyncio.Event()
    async with open_log(redis_cluster.url) as other:
        signalling, listening = Waking(log.redis, lambda: None), Waking(other.redis, woken.set)
        running = [asyncio.create_task(each.run()) for each in (signalling, listening)]
        try:
            # Once for what was signalled before it listened, then for the other's signal.
            for _ in range(2):
                await asyncio.wait_for(woken.wait(), 10)
                woken.clear()
                signalling.signal()
        finally:
            for each in running:
                each.cancel()
            await asyncio.gather(*running, return_exceptions=True)
        one, two = (Leases(each, TOPIC, "group", PARTITIONS) for each in (log, other))
        assert await one.tick() == set(range(PARTITIONS))
        await two.tick()
        assert len(await one.tick()) == PARTITIONS // 2
        assert await two.tick() == set(range(PARTITIONS)) - await one.tick()
        await one.release()
        await two.release()


async def test_pmp_doctor_examines_every_shard(log: RedisLog, redis_cluster: PrivateRedisCluster, tmp_path: Path) -> None:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/doctor.db") as database:
        subject = replace(examining(log, database), redis_url=redis_cluster.url, log_max_bytes=2**27)
        assert [finding.what async for finding in configuration(subject)] == []
        assert [finding.what async for finding in clocks(subject)] == []
        second = (await log.instances())[1]
        await second.config_set("cluster-require-full-coverage", "yes")
        try:
            (finding,) = [finding async for finding in configuration(subject)]
        finally:
            await second.config_set("cluster-require-full-coverage", "no")
        assert finding.what.startswith("shard 2: cluster-require-full-coverage is yes")
        async with open_log(redis_cluster.url.replace("+cluster", "")) as one:
            wrong = replace(examining(one, database), log_max_bytes=2**27)
            assert ["node of a cluster" in finding.what async for finding in configuration(wrong)] == [True]


@pytest.mark.parametrize("url", ["redis+cluster://:secret@redis:6379", "rediss+cluster://redis", "redis+cluster://redis:6379/0"])
def test_a_url_may_name_a_cluster(url: str) -> None:
    assert redis_url(url) == url


@pytest.mark.parametrize(
    "url", ["redis+cluster://:secret@redis:6379/1", "unix+cluster:///socket", "redis+sentinel://redis", "redis+cluster://"]
)
def test_a_cluster_has_one_database_and_no_socket(url: str) -> None:
    with pytest.raises(ValueError, match="expected a URL of a Redis"):
        redis_url(url)
