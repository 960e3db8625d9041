"""How old is what waits: messages in the log, entries of an outbox, the last backup, and what a starved process loses."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from time import time

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from kit.database.engine import Database
from kit.log.ages import BACKED_UP, backup_seconds, oldest_seconds
from kit.log.leases import Leases
from kit.log.publish.outbox import Outbox, first_committed_at
from kit.log.publish.relay import Relay
from kit.log.redis_log import RedisLog, key
from kit.log.streams import START, Offset
from kit.settings import Settings
from kit.telemetry.names import MetricName
from kit.telemetry.setup import telemetry
from tests.unit.mesh_log import TOPIC as RAW
from tests.unit.mesh_log import append, record

TOPIC = "events"


async def test_a_raw_log_is_as_old_as_its_first_message_that_is_not_processed(log: RedisLog) -> None:
    assert await oldest_seconds(log, RAW, {0: START, 1: START}) == 0
    await append(log, "first")
    await asyncio.sleep(0.3)
    await append(log, "second")
    assert 0.3 <= await oldest_seconds(log, RAW, {0: START, 1: START}) < 20
    first = (await log.read(RAW, 0, START, limit=1, block_ms=0))[0].offset
    await asyncio.sleep(0.01)
    assert 0 < await oldest_seconds(log, RAW, {0: first}) <= await oldest_seconds(log, RAW, {0: START}) - 0.3
    assert await oldest_seconds(log, RAW, {0: await log.head(RAW, 0)}) == 0


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_topic_is_as_old_as_its_first_entry_that_is_not_processed(ingestion_database: Database, log: RedisLog) -> None:
    for text in ("first", "second"):
        async with ingestion_database.sessions.begin() as session:
            await Outbox(TOPIC).add(session, 0, [record(text)])
        while await Relay(ingestion_database.sessions, log, TOPIC, keep=timedelta(hours=1)).step(0):
            pass
        await asyncio.sleep(0.3)
    ages = [await oldest_seconds(log, TOPIC, {0: Offset(position, 0)}) for position in (0, 1, 2)]
    assert ages[0] - 0.3 >= ages[1] >= 0.3
    assert ages[2] == 0


async def test_an_entry_of_an_older_release_has_no_age(log: RedisLog) -> None:
    await log.redis.xadd(key(TOPIC, 0, "log"), {"p": b"", "n": 1, "h": 0}, id="1-0")
    assert await oldest_seconds(log, TOPIC, {0: START}) == 0


async def test_an_outbox_is_as_old_as_its_first_entry_that_is_not_published(ingestion_database: Database) -> None:
    before = datetime.now(UTC)
    async with ingestion_database.sessions.begin() as session:
        await Outbox(TOPIC).add_to_partitions(session, {0: [record("a")], 1: [record("b")]})
    between = datetime.now(UTC)
    async with ingestion_database.sessions.begin() as session:
        await Outbox(TOPIC).add(session, 0, [record("c")])
    async with ingestion_database.sessions.reading() as session:
        oldest, newest = [await first_committed_at(session, TOPIC, after) for after in ({0: 0, 1: 0}, {0: 1, 1: 1})]
        assert await first_committed_at(session, TOPIC, {0: 2, 1: 1}) is None
    assert oldest is not None
    assert newest is not None
    assert before <= oldest <= between <= newest


async def test_a_backup_is_as_old_as_it_says(log: RedisLog) -> None:
    assert await backup_seconds(log) is None
    await log.redis.set(BACKED_UP, time() - 3600)
    assert 3600 <= (await backup_seconds(log) or 0) < 3620


async def test_a_process_that_renews_too_late_counts_what_it_lost(settings: Settings, log: RedisLog) -> None:
    reader = InMemoryMetricReader()

    def lost() -> float:
        data = reader.get_metrics_data()
        metrics = (
            [metric for resource in data.resource_metrics for scope in resource.scope_metrics for metric in scope.metrics] if data else []
        )
        return sum(
            getattr(point, "value", 0)
            for metric in metrics
            if metric.name == str(MetricName.LEASES_LOST)
            for point in metric.data.data_points
        )

    with telemetry(settings, "leases-test", readers=[reader]):
        late, in_time = (Leases(log, RAW, group, 4, seconds=60) for group in ("ingestion", "another"))
        for each in (late, in_time):
            await each.tick()
            await each.tick()
        assert lost() == 0
        await log.redis.delete(*(key(RAW, partition, "lease:ingestion") for partition in range(4)))  # as when they expire
        await late.tick()
        await in_time.tick()
        assert lost() == 1, "once for all partitions"
