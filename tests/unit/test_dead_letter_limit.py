"""A defect halts a consumer before it turns a topic into dead letters; what senders cause never does."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime, timedelta

import pytest
from google.protobuf.message import DecodeError
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.log import books, offsets
from kit.log.books import Account
from kit.log.consume import dead_letters
from kit.log.consume.consumer import Consumer, RawLogConsumer
from kit.log.consume.handler import Handler, Outcome, Poison
from kit.log.consume.isolation import DeadLetterLimit, DeadLetterLimitReached
from kit.log.consume.stream_consumer import StreamConsumer
from kit.log.leases import Leases
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Delivery, StreamLog
from kit.log.tables import dead_letters as table
from kit.settings import Settings
from kit.telemetry.setup import telemetry
from tests.background import running
from tests.unit.mesh_log import BAD, TOPIC, append, memory_log, store, store_events, stored
from tests.unit.test_report import figures

HOUR = timedelta(hours=1)


def consumer(database: Database, log: StreamLog, most: int, handler: Handler = store) -> Consumer:
    """A process that starts now."""
    return Consumer(database.sessions, log, TOPIC, handler, limit=DeadLetterLimit(most, HOUR))


async def reasons(database: Database) -> list[str]:
    async with database.sessions() as session:
        return [letter.reason for letter in await dead_letters.find(session)]


async def grow_old(database: Database) -> None:
    """The window passes."""
    async with database.sessions.begin() as session:
        await session.execute(update(table).values(created_at=datetime.now(UTC) - 2 * HOUR))


async def refuse(_session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler that knows every id already."""
    raise Poison("this id is taken", deliveries)


async def test_failures_within_the_limit_are_set_aside(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", BAD, "b", BAD)
    assert await consumer(ingestion_database, log, 2).step(0) == 4
    assert await stored(ingestion_database) == ["a", "b"]
    assert await reasons(ingestion_database) == ["unexpected ValueError"] * 2


async def test_more_failures_halt_the_consumer_and_nothing_of_the_batch_takes_effect(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", BAD, "b", BAD, BAD)
    halted = RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events, limit=DeadLetterLimit(2, HOUR))
    with pytest.raises(DeadLetterLimitReached, match="too many messages fail to be set aside, this one by ValueError"):
        await halted.step(0)
    assert await stored(ingestion_database) == []
    assert await reasons(ingestion_database) == []
    assert await offsets.load(ingestion_database.sessions, TOPIC, [0]) == {0: START}
    [account] = (await books.accounts(ingestion_database.sessions, log, TOPIC, 1)).values()
    assert account == Account(received=5, pending=5)


async def test_a_defect_on_every_message_is_found_after_a_few(ingestion_database: Database) -> None:
    calls = 0

    async def defective(_session: AsyncSession, _deliveries: Sequence[Delivery]) -> None:
        nonlocal calls
        calls += 1
        raise KeyError

    log = memory_log()
    await append(log, *(f"m{number}" for number in range(1000)))
    with pytest.raises(DeadLetterLimitReached):
        await consumer(ingestion_database, log, 3, defective).step(0)
    assert calls < 30


async def test_dead_letters_of_an_earlier_process_count(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, BAD, BAD)
    await consumer(ingestion_database, log, 2).step(0)
    await append(log, BAD)
    with pytest.raises(DeadLetterLimitReached):
        await consumer(ingestion_database, log, 2).step(0)
    assert len(await reasons(ingestion_database)) == 2


async def test_dead_letters_that_are_decided_on_count_still(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, BAD)
    await consumer(ingestion_database, log, 1).step(0)
    async with ingestion_database.sessions.begin() as session:
        await dead_letters.mark(session, dead_letters.DROPPED, None)
    await append(log, BAD)
    with pytest.raises(DeadLetterLimitReached):
        await consumer(ingestion_database, log, 1).step(0)


async def test_dead_letters_from_before_the_window_and_of_other_topics_do_not_count(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, BAD)
    await Consumer(ingestion_database.sessions, log, TOPIC, store).step(0)
    await grow_old(ingestion_database)
    async with ingestion_database.sessions.begin() as session:
        [letter] = await dead_letters.find(session)
        other = Delivery("another", 0, START, 0, 0, letter.record)
        await dead_letters.add(session, [(other, letter.reason)])
    await append(log, BAD)
    assert await consumer(ingestion_database, log, 1).step(0) == 1


async def test_a_halted_consumer_sets_nothing_aside_as_the_window_passes(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, BAD)
    halted = consumer(ingestion_database, log, 1)
    await halted.step(0)
    await append(log, BAD)
    for _ in range(2):
        with pytest.raises(DeadLetterLimitReached):
            await halted.step(0)
        await grow_old(ingestion_database)
    assert len(await reasons(ingestion_database)) == 1


async def test_a_halted_consumer_resumes_when_messages_fail_no_more(ingestion_database: Database) -> None:
    broken = True

    async def mended(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        if broken:
            raise KeyError
        await store(session, deliveries)

    log = memory_log()
    await append(log, "a", "b")
    halted = consumer(ingestion_database, log, 1, mended)
    with pytest.raises(DeadLetterLimitReached):
        await halted.step(0)
    broken = False
    assert await halted.step(0) == 2
    await append(log, BAD)
    assert await halted.step(0) == 1, "it may set messages aside again"
    assert await stored(ingestion_database) == ["a", "b"]


async def test_a_process_with_a_fixed_handler_applies_what_halted_the_last_one(ingestion_database: Database) -> None:
    log = memory_log()

    async def defective(_session: AsyncSession, _deliveries: Sequence[Delivery]) -> None:
        raise KeyError

    await append(log, "a", "b")
    with pytest.raises(DeadLetterLimitReached):
        await consumer(ingestion_database, log, 1, defective).step(0)
    assert await consumer(ingestion_database, log, 1).step(0) == 2
    assert await stored(ingestion_database) == ["a", "b"]
    assert await reasons(ingestion_database) == []


async def test_messages_of_another_schema_count(ingestion_database: Database) -> None:
    async def unreadable(_session: AsyncSession, _deliveries: Sequence[Delivery]) -> None:
        raise DecodeError

    log = memory_log()
    await append(log, "a")
    await consumer(ingestion_database, log, 1, unreadable).step(0)
    assert await reasons(ingestion_database) == ["not a pmp.Test"]
    await append(log, "b")
    with pytest.raises(DeadLetterLimitReached, match="this one by DecodeError"):
        await consumer(ingestion_database, log, 1, unreadable).step(0)


async def test_refused_messages_never_halt_the_consumer_of_a_topic(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, *(f"m{number}" for number in range(50)))
    assert await consumer(ingestion_database, log, 0, refuse).step(0) == 50
    assert await reasons(ingestion_database) == ["this id is taken"] * 50
    await append(log, "another")
    assert await consumer(ingestion_database, log, 0, refuse).step(0) == 1


async def test_events_that_are_refused_for_their_id_never_halt_the_raw_log(ingestion_database: Database) -> None:
    async def handler(_session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        return [Poison("another event is stored under this id") for _ in deliveries]

    log = memory_log()
    await append(log, "a", "b", "c")
    hostile = RawLogConsumer(ingestion_database.sessions, log, TOPIC, handler, limit=DeadLetterLimit(0, HOUR))
    assert await hostile.step(0) == 3
    assert len(await reasons(ingestion_database)) == 3


async def test_the_others_of_a_batch_are_applied_when_some_are_refused(ingestion_database: Database) -> None:
    batches: list[int] = []

    async def choosy(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        batches.append(len(deliveries))
        if odd := [delivery for delivery in deliveries if delivery.record.payload == b"odd"]:
            raise Poison("it is odd", odd)
        await store(session, deliveries)

    log = memory_log()
    await append(log, "a", "odd", "b", "odd", "c")
    assert await consumer(ingestion_database, log, 0, choosy).step(0) == 5
    assert await stored(ingestion_database) == ["a", "b", "c"]
    assert batches == [5, 5, 3], "together, then in a savepoint, then without those refused"
    async with ingestion_database.sessions() as session:
        assert [(letter.ordinal, letter.reason) for letter in await dead_letters.find(session)] == [(1, "it is odd"), (3, "it is odd")]


async def test_an_operators_retry_is_not_limited(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, BAD)
    await consumer(ingestion_database, log, 1).step(0)
    async with ingestion_database.sessions.begin() as session:
        await dead_letters.mark(session, dead_letters.RETRYING, None)
    assert await consumer(ingestion_database, log, 0).retry(0) == 1
    assert await reasons(ingestion_database) == ["unexpected ValueError"]


def consuming(consumer: StreamConsumer, log: RedisLog) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    return running(consumer.run(Leases(log, TOPIC, "ingestion", 2, seconds=1)))


async def until_stored(database: Database, *texts: str) -> None:
    for _ in range(400):
        if sorted(await stored(database)) == sorted(texts):
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


async def until_shown(reader: InMemoryMetricReader, halted: int) -> None:
    for _ in range(400):
        if figures(reader).get(f"pmp.partitions.halted {TOPIC} ingestion") == halted:
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


async def test_an_operator_sees_that_a_partition_is_halted_while_others_go_on(
    ingestion_database: Database, log: RedisLog, settings: Settings
) -> None:
    reader = InMemoryMetricReader()
    await append(log, "a", BAD)
    await append(log, "b", partition=1)
    with telemetry(settings, "limit-test", readers=[reader]):
        async with consuming(consumer(ingestion_database, log, 0), log):
            await until_stored(ingestion_database, "b")
            await until_shown(reader, 1)
        assert await offsets.load(ingestion_database.sessions, TOPIC, [0]) == {0: START}
        assert await reasons(ingestion_database) == []
        async with consuming(consumer(ingestion_database, log, 1), log):
            await until_stored(ingestion_database, "a", "b")
            await until_shown(reader, 0)
    assert await reasons(ingestion_database) == ["unexpected ValueError"]
