"""An operator looks at what was set aside, and retries or drops it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

import pytest
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.log import books
from kit.log.books import Account
from kit.log.consume import dead_letters
from kit.log.consume.consumer import Consumer, RawLogConsumer
from kit.log.consume.dead_letters import DEAD, DROPPED, RETRYING, DeadLetter
from kit.log.consume.handler import Outcome, Poison, RawLogHandler
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.streams import START, Delivery, StreamLog
from tests.simulation.memory_log import MemoryLog
from tests.unit.mesh_log import BAD, HOUR, TOPIC, append, memory_log, record, store, store_events, stored


class Publishing:
    """Stores and publishes; what is in `refused` is set aside."""

    def __init__(self, *refused: str) -> None:
        self.refused = set(refused)

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        good = [delivery for delivery in deliveries if delivery.record.payload.decode() not in self.refused]
        if good:
            await store(session, good)
            await Outbox("events").add(session, 0, [delivery.record for delivery in good])
        return ["stored" if delivery in good else Poison("refused") for delivery in deliveries]


def consumer(database: Database, log: StreamLog, handler: RawLogHandler) -> RawLogConsumer:
    return RawLogConsumer(database.sessions, log, TOPIC, handler)


async def letters(database: Database) -> list[DeadLetter]:
    async with database.sessions() as session:
        return list(await dead_letters.find(session))


async def mark(database: Database, state: str, ids: Sequence[int] | None = None) -> int:
    async with database.sessions.begin() as session:
        return await dead_letters.mark(session, state, ids)


async def account(database: Database, log: StreamLog) -> Account:
    [found] = (await books.accounts(database.sessions, log, TOPIC, 1)).values()
    assert found.balanced
    return found


async def topic(database: Database, log: MemoryLog) -> list[list[str]]:
    while await Relay(database.sessions, log, "events", keep=timedelta(hours=1)).step(0):
        pass
    entries = await log.read("events", 0, START, limit=100, block_ms=0)
    return [[each.payload.decode() for each in pb.Pack.FromString(entry.pack).records] for entry in entries]


@pytest.fixture
async def set_aside(ingestion_database: Database) -> tuple[RawLogConsumer, Publishing, MemoryLog]:
    """A consumer that stored `a` and `c`, and set `x` and `y` aside."""
    log = memory_log()
    handler = Publishing("x", "y")
    await append(log, "a", "x", "y", "c")
    working = consumer(ingestion_database, log, handler)
    await working.step(0)
    return working, handler, log


SetAside = tuple[RawLogConsumer, Publishing, MemoryLog]


async def test_a_letter_has_its_origin_and_its_reason(ingestion_database: Database, set_aside: SetAside) -> None:
    first, second = await letters(ingestion_database)
    head = await set_aside[2].head(TOPIC, 0)
    assert (first.topic, first.partition, first.position, first.ordinal, first.hour) == (TOPIC, 0, str(head), 1, HOUR)
    assert (first.record, first.reason, first.state) == (record("x"), "refused", DEAD)
    assert second.record == record("y")
    async with ingestion_database.sessions() as session:
        assert await dead_letters.get(session, first.id) == first
        assert await dead_letters.get(session, 999) is None
        assert await dead_letters.count(session) == 2


async def test_letters_are_paged_by_their_ids(ingestion_database: Database, set_aside: SetAside) -> None:
    del set_aside
    async with ingestion_database.sessions() as session:
        [first] = await dead_letters.find(session, limit=1)
        [second] = await dead_letters.find(session, after=first.id)
    assert (first.record.payload, second.record.payload) == (b"x", b"y")


async def test_nothing_is_retried_until_an_operator_marks_it(ingestion_database: Database, set_aside: SetAside) -> None:
    assert await set_aside[0].retry(0) == 0
    assert len(await letters(ingestion_database)) == 2


async def test_a_retry_that_succeeds_moves_its_count_and_publishes_at_a_new_offset(
    ingestion_database: Database, set_aside: SetAside
) -> None:
    working, handler, log = set_aside
    assert await account(ingestion_database, log) == Account(received=4, stored=2, dead_lettered=2)
    assert await topic(ingestion_database, log) == [["a", "c"]]
    handler.refused = {"y"}
    assert await mark(ingestion_database, RETRYING) == 2
    assert await working.retry(0) == 2
    assert await account(ingestion_database, log) == Account(received=4, stored=3, dead_lettered=1)
    assert await stored(ingestion_database) == ["a", "c", "x"]
    assert await topic(ingestion_database, log) == [["a", "c"], ["x"]]
    [left] = await letters(ingestion_database)
    assert (left.record.payload, left.state) == (b"y", DEAD)


async def test_a_retry_that_fails_unexpectedly_is_dead_again_with_its_new_reason(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, BAD)
    await consumer(ingestion_database, log, Publishing(BAD)).step(0)
    await mark(ingestion_database, RETRYING)
    assert await consumer(ingestion_database, log, store_events).retry(0) == 1
    [letter] = await letters(ingestion_database)
    assert (letter.reason, letter.state) == ("unexpected ValueError", DEAD)
    assert await account(ingestion_database, log) == Account(received=1, dead_lettered=1)


async def test_an_outage_leaves_a_retry_for_later(ingestion_database: Database, set_aside: SetAside) -> None:
    async def away(_session: AsyncSession, _deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        raise TimeoutError

    log = set_aside[2]
    await mark(ingestion_database, RETRYING)
    with pytest.raises(TimeoutError):
        await consumer(ingestion_database, log, away).retry(0)
    assert {letter.state for letter in await letters(ingestion_database)} == {RETRYING}
    assert await account(ingestion_database, log) == Account(received=4, stored=2, dead_lettered=2)


async def test_one_letter_is_retried_and_the_other_stays(ingestion_database: Database, set_aside: SetAside) -> None:
    working, handler, _ = set_aside
    handler.refused.clear()
    first, _ = await letters(ingestion_database)
    assert await mark(ingestion_database, RETRYING, [first.id]) == 1
    assert await working.retry(0) == 1
    assert [letter.record.payload for letter in await letters(ingestion_database)] == [b"y"]


async def test_letters_of_another_partition_are_left_to_its_consumer(ingestion_database: Database, set_aside: SetAside) -> None:
    await mark(ingestion_database, RETRYING)
    assert await set_aside[0].retry(1) == 0
    async with ingestion_database.sessions() as session:
        assert await dead_letters.marked_partitions(session, TOPIC) == {0}


async def test_a_dropped_letter_stays_in_the_books_and_is_never_tried(ingestion_database: Database, set_aside: SetAside) -> None:
    working, handler, log = set_aside
    handler.refused.clear()
    assert await mark(ingestion_database, DROPPED) == 2
    assert await mark(ingestion_database, RETRYING) == 0
    assert await working.retry(0) == 0
    assert await account(ingestion_database, log) == Account(received=4, stored=2, dead_lettered=2)
    async with ingestion_database.sessions() as session:
        assert (await dead_letters.count(session), await dead_letters.count(session, DROPPED)) == (0, 2)


async def test_a_retry_of_a_topic_without_books_makes_none(ingestion_database: Database) -> None:
    refused = {b"x"}

    async def handler(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        if poisoned := [delivery for delivery in deliveries if delivery.record.payload in refused]:
            raise Poison("refused", poisoned)
        await store(session, deliveries)

    log = memory_log()
    await append(log, "x")
    working = Consumer(ingestion_database.sessions, log, TOPIC, handler)
    await working.step(0)
    refused.clear()
    await mark(ingestion_database, RETRYING)
    assert await working.retry(0) == 1
    async with ingestion_database.sessions() as session:
        assert (await session.execute(books.books.select())).all() == []
