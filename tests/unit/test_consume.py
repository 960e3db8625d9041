"""Every message takes effect once, in order; what can't succeed is set aside alone, and what can later waits."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.log import offsets
from kit.log.consume import dead_letters, stream_consumer
from kit.log.consume.consumer import Consumer, RawLogConsumer
from kit.log.consume.handler import Outcome, Poison
from kit.log.consume.isolation import DeadLetterLimit, DeadLetterLimitReached
from kit.log.consume.reader import GapError
from kit.log.consume.stream_consumer import Done
from kit.log.leases import Leases
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Delivery, Entry, Offset
from tests.background import until
from tests.simulation.memory_log import MemoryLog
from tests.unit.mesh_log import BAD, TOPIC, append, memory_log, packed, store, store_events, stored


async def letters(database: Database) -> list[dead_letters.DeadLetter]:
    async with database.sessions() as session:
        return list(await dead_letters.find(session))


def entry(offset: int, *texts: str) -> Entry:
    [(pack, messages)] = packed(*texts)
    return Entry(Offset(offset, 0), pack, messages, 0)


async def published(log: MemoryLog, *numbers: int) -> None:
    """Entries of a topic, wherever the head is, without a record of gaps."""
    stream = log.server.stream(TOPIC, 0)
    for offset in numbers:
        [(pack, messages)] = packed(f"m{offset}")
        stream.add(Offset(offset, 0), pack, messages, 0)


class History:
    """What the publisher's table holds."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.asked: list[int] = []

    async def __call__(self, _partition: int, after: int) -> Sequence[Entry]:
        self.asked.append(after)
        return [entry(offset, f"m{offset}") for offset in range(after + 1, min(after + 3, self.last) + 1)]


async def test_messages_take_effect_in_their_order(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", "b")
    await append(log, "c")
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events)
    assert await consumer.step(0) == 3
    assert await consumer.step(0) == 0
    assert await stored(ingestion_database) == ["a", "b", "c"]


async def test_another_process_goes_on_where_the_first_one_was(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a")
    await Consumer(ingestion_database.sessions, log, TOPIC, store).step(0)
    await append(log, "b")
    await Consumer(ingestion_database.sessions, log, TOPIC, store).step(0)
    assert await stored(ingestion_database) == ["a", "b"]


async def test_a_consumer_that_was_overtaken_changes_nothing_and_goes_on_from_there(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a")
    slow, quick = (RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events) for _ in range(2))
    await slow.step(0)
    await append(log, "b")
    await quick.step(0)
    assert await slow.step(0) == 0
    await append(log, "c")
    assert await slow.step(0) == 1
    assert await stored(ingestion_database) == ["a", "b", "c"]


async def test_two_consumers_at_once_have_one_effect(ingestion_database: Database) -> None:
    log = memory_log()
    consumers = [RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events) for _ in range(3)]
    for number in range(10):
        await append(log, f"{number}")
        # One of them is ahead; SQLite refuses the others as it is locked, MariaDB lets them wait.
        await asyncio.gather(*(consumer.step(0) for consumer in consumers), return_exceptions=True)
    await consumers[0].step(0)
    assert await stored(ingestion_database) == [f"{number}" for number in range(10)]


async def test_one_bad_message_among_a_thousand_is_set_aside_alone(ingestion_database: Database) -> None:
    log = memory_log()
    texts = [f"m{number}" for number in range(999)]
    await append(log, *texts[:700], BAD, *texts[700:])
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events)
    assert await consumer.step(0) == 1000
    assert await stored(ingestion_database) == texts
    [letter] = await letters(ingestion_database)
    assert (letter.record.payload, letter.reason, letter.ordinal, letter.state) == (b"bad", "unexpected ValueError", 700, dead_letters.DEAD)


async def test_transactions_that_take_long_are_followed_by_smaller_ones(ingestion_database: Database) -> None:
    sizes: list[int] = []

    async def slow(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        sizes.append(len(deliveries))
        await asyncio.sleep(0.6)
        await store(session, deliveries)

    log = memory_log()
    texts = [f"m{number}" for number in range(1900)]
    for start in range(0, 1900, 50):
        await append(log, *texts[start : start + 50])
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, slow)
    while await consumer.step(0):
        pass
    assert sizes == [1000, 500, 250, 100, 50]
    assert await stored(ingestion_database) == texts


async def test_a_handler_chooses_which_messages_are_set_aside(ingestion_database: Database) -> None:
    async def choosy(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        kept = await store_events(session, [delivery for delivery in deliveries if delivery.record.payload != b"odd"])
        words = iter(kept)
        return [Poison("it is odd") if delivery.record.payload == b"odd" else next(words) for delivery in deliveries]

    log = memory_log()
    await append(log, "a", "odd", "b")
    await RawLogConsumer(ingestion_database.sessions, log, TOPIC, choosy).step(0)
    assert await stored(ingestion_database) == ["a", "b"]
    assert [letter.reason for letter in await letters(ingestion_database)] == ["it is odd"]


@pytest.mark.parametrize("outage", [TimeoutError("the database is slow"), ConnectionResetError()])
async def test_an_outage_sets_nothing_aside_and_the_partition_waits(ingestion_database: Database, outage: Exception) -> None:
    troubles: list[Exception] = [outage]

    async def troubled(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        outcomes = await store_events(session, deliveries)
        if troubles:
            raise troubles.pop()
        return outcomes

    log = memory_log()
    await append(log, "a", "b")
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, troubled)
    with pytest.raises(type(outage)):
        await consumer.step(0)
    assert await stored(ingestion_database) == []
    assert await letters(ingestion_database) == []
    assert await offsets.load(ingestion_database.sessions, TOPIC, [0]) == {0: START}
    assert await consumer.step(0) == 2
    assert await stored(ingestion_database) == ["a", "b"]


async def test_a_lone_message_whose_id_another_partition_stored_meanwhile_is_looked_at_again(ingestion_database: Database) -> None:
    tries = 0

    async def overtaken_once(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        nonlocal tries
        tries += 1
        if tries == 1:
            raise IntegrityError("INSERT", {}, Exception("another transaction stored it"))
        return await store_events(session, deliveries)

    log = memory_log()
    await append(log, "a")
    await RawLogConsumer(ingestion_database.sessions, log, TOPIC, overtaken_once).step(0)
    assert await letters(ingestion_database) == []
    assert await stored(ingestion_database) == ["a"]


async def test_a_gap_in_a_topic_halts_the_consumer(ingestion_database: Database) -> None:
    log = memory_log()
    await published(log, 1, 2)
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, store, history=History(9))
    await consumer.step(0)
    await published(log, 4)
    with pytest.raises(GapError, match="position 3 is missing, the next is 4"):
        await consumer.step(0)
    assert await stored(ingestion_database) == ["m1", "m2"]


async def test_a_gap_between_entries_that_are_read_together_halts_the_consumer_too(ingestion_database: Database) -> None:
    log = memory_log()
    await published(log, 1, 2, 4, 5)
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, store, history=History(9))
    assert await consumer.step(0) == 2
    with pytest.raises(GapError):
        await consumer.step(0)
    assert await stored(ingestion_database) == ["m1", "m2"]


async def test_a_new_consumer_reads_the_history_and_goes_over_to_the_stream(ingestion_database: Database) -> None:
    log = memory_log()
    await published(log, *range(1, 10))
    await log.trim(TOPIC, 0, Offset(7, 0))
    history = History(9)
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, store, history=history)
    while await consumer.step(0):
        pass
    await published(log, 10)
    await consumer.step(0)
    assert await stored(ingestion_database) == [f"m{offset}" for offset in range(1, 11)]
    assert history.asked == [0, 3, 6]


async def test_a_gap_that_a_relay_left_in_a_stream_is_filled_from_the_history(ingestion_database: Database) -> None:
    log = memory_log()
    await published(log, 1, 2)
    await log.publish(TOPIC, 0, head=Offset(2, 0), packs=[(6, packed("m6")[0][0], 1)])
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, store, history=History(6))
    while await consumer.step(0):
        pass
    assert await stored(ingestion_database) == [f"m{offset}" for offset in range(1, 7)]


async def test_a_consumer_that_has_nothing_to_do_notices_that_it_was_sent_back(ingestion_database: Database) -> None:
    log = memory_log()
    await published(log, 1, 2)
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, store, history=History(2))
    await consumer.step(0)
    async with ingestion_database.sessions.begin() as session:
        await offsets.rewind(session, TOPIC)
    assert await consumer.step(0) == 0
    assert await consumer.step(0) == 2
    assert await stored(ingestion_database) == ["m1", "m2", "m1", "m2"]


async def test_a_late_consumer_can_not_commit_over_a_newer_offset(ingestion_database: Database) -> None:
    await offsets.load(ingestion_database.sessions, TOPIC, [0, 1])
    async with ingestion_database.sessions.begin() as session:
        assert await offsets.advance(session, TOPIC, {0: (START, Offset(10, 0))}) == {0}
    async with ingestion_database.sessions.begin() as session:
        late = {0: (Offset(9, 0), Offset(11, 0)), 1: (START, Offset(4, 0))}
        assert await offsets.advance(session, TOPIC, late) == {1}
    assert await offsets.load(ingestion_database.sessions, TOPIC, [0, 1]) == {0: Offset(10, 0), 1: Offset(4, 0)}


async def test_after_commit_is_called_with_the_offset_committed(ingestion_database: Database) -> None:
    committed: list[tuple[int, Offset]] = []

    async def after_commit(partition: int, offset: Offset) -> None:
        committed.append((partition, offset))

    log = memory_log()
    await append(log, "a")
    consumer = Consumer(ingestion_database.sessions, log, TOPIC, store, after_commit=after_commit)
    await consumer.step(0)
    await consumer.step(0)
    assert committed == [(0, await log.head(TOPIC, 0))]


async def test_it_runs_until_it_is_cancelled_and_gives_its_leases_back(ingestion_database: Database, log: RedisLog) -> None:
    leases = Leases(log, TOPIC, "ingestion", 2, seconds=1)
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events)
    running = asyncio.create_task(consumer.run(leases))
    await append(log, "a")
    await append(log, "b", partition=1)
    for _ in range(100):
        if sorted(await stored(ingestion_database)) == ["a", "b"]:
            break
        await asyncio.sleep(0.05)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert sorted(await stored(ingestion_database)) == ["a", "b"]
    assert await log.redis.keys("*lease*") == []


async def test_messages_that_arrive_one_by_one_share_transactions(ingestion_database: Database, log: RedisLog) -> None:
    sizes: list[int] = []

    async def counting(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        sizes.append(len(deliveries))
        return await store_events(session, deliveries)

    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, counting)
    running = asyncio.create_task(consumer.run(Leases(log, TOPIC, "ingestion", 1)))
    await append(log, "the first one is applied at once")
    await until(lambda: sizes == [1])
    for number in range(49):
        await append(log, f"m{number}")
        await asyncio.sleep(0.01)
    await until(lambda: sum(sizes) == 50)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert len(sizes) < 25


class Recorder:
    """Handler that remembers the messages of each call."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        self.calls.append([delivery.record.payload.decode() for delivery in deliveries])
        return await store_events(session, deliveries)


async def test_partitions_are_applied_in_one_transaction(ingestion_database: Database) -> None:
    log, handler = memory_log(), Recorder()
    for partition, texts in enumerate((["a", "b"], [], ["c"])):
        if texts:
            await append(log, *texts, partition=partition)
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, handler)
    assert await consumer.step_all([0, 1, 2]) == Done(3, {})
    assert handler.calls == [["a", "b", "c"]]
    heads = {partition: await log.head(TOPIC, partition) for partition in range(3)}
    assert await offsets.load(ingestion_database.sessions, TOPIC, range(3)) == heads


async def test_a_partition_that_was_overtaken_falls_out_alone(ingestion_database: Database) -> None:
    log, handler = memory_log(), Recorder()
    slow = RawLogConsumer(ingestion_database.sessions, log, TOPIC, handler)
    await slow.step_all([0, 1])
    await append(log, "a")
    await append(log, "b", partition=1)
    await RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events).step(0)
    assert await slow.step_all([0, 1]) == Done(1, {})
    assert handler.calls == [["b"]]
    await append(log, "c")
    assert await slow.step_all([0, 1]) == Done(1, {})
    assert await stored(ingestion_database) == ["a", "b", "c"]


async def test_a_partition_with_a_gap_is_halted_alone(ingestion_database: Database) -> None:
    log = memory_log()
    await published(log, 2)
    [(pack, messages)] = packed("other")
    log.server.stream(TOPIC, 1).add(Offset(1, 0), pack, messages, 0)
    done = await Consumer(ingestion_database.sessions, log, TOPIC, store, history=History(9)).step_all([0, 1])
    assert done.applied == 1
    assert [(partition, type(error)) for partition, error in done.failed.items()] == [(0, GapError)]
    assert await stored(ingestion_database) == ["other"]


async def test_messages_of_one_partition_that_fail_too_often_do_not_keep_back_the_others(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", BAD)
    await append(log, "b", partition=1)
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events, limit=DeadLetterLimit(0, timedelta(hours=1)))
    done = await consumer.step_all([0, 1])
    assert done.applied == 1
    assert [(partition, type(error)) for partition, error in done.failed.items()] == [(0, DeadLetterLimitReached)]
    assert await stored(ingestion_database) == ["b"]
    assert (await offsets.load(ingestion_database.sessions, TOPIC, [0]))[0] == START


async def test_a_bad_message_is_set_aside_and_both_partitions_go_on(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", BAD)
    await append(log, "b", partition=1)
    assert await RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events).step_all([0, 1]) == Done(3, {})
    assert sorted(await stored(ingestion_database)) == ["a", "b"]
    assert [(letter.partition, letter.ordinal) for letter in await letters(ingestion_database)] == [(0, 1)]


async def test_a_quiet_partition_that_was_sent_back_is_noticed_while_others_are_busy(
    ingestion_database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream_consumer, "_CHECK_SECONDS", 0.0)
    log = memory_log()
    await append(log, "quiet")
    consumer = RawLogConsumer(ingestion_database.sessions, log, TOPIC, store_events)
    await consumer.step_all([0, 1])
    async with ingestion_database.sessions.begin() as session:
        await offsets.rewind(session, TOPIC)
    for number in range(2):
        await append(log, f"busy-{number}", partition=1)
        await consumer.step_all([0, 1])
    assert (await stored(ingestion_database)).count("quiet") == 2
