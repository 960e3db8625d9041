"""What is committed is published once, in order, and nothing else is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta

import pytest
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy import delete, select, update
from typing_extensions import override

from kit.database.engine import Database
from kit.log.leases import Leases
from kit.log.publish.outbox import Outbox, prepare_heads
from kit.log.publish.relay import Relay, TopicAheadOfDatabase
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Offset, StreamLog
from kit.log.tables import outbox as rows
from kit.log.tables import outbox_heads
from kit.outages import is_outage
from tests.simulation.memory_log import MemoryLog
from tests.unit.mesh_log import memory_log, record

TOPIC = "events"
LONG = timedelta(hours=6)


async def commit(database: Database, *texts: str, partition: int = 0) -> Sequence[int]:
    """One transaction that publishes messages."""
    async with database.sessions.begin() as session:
        return await Outbox(TOPIC).add(session, partition, [record(text) for text in texts])


async def published(log: StreamLog, partition: int = 0) -> list[tuple[int, list[str]]]:
    entries = await log.read(TOPIC, partition, START, limit=1000, block_ms=0)
    return [(entry.offset.ms, [each.payload.decode() for each in pb.Pack.FromString(entry.pack).records]) for entry in entries]


def relay(database: Database, log: StreamLog, keep: timedelta = LONG) -> Relay:
    return Relay(database.sessions, log, TOPIC, keep=keep)


async def drain(relay: Relay, partition: int = 0) -> None:
    while await relay.step(partition):
        pass


async def go_back(database: Database, offset: int) -> None:
    """What a restored backup makes of the outbox."""
    async with database.sessions.begin() as session:
        await session.execute(delete(rows).where(rows.c.position > offset))
        await session.execute(update(outbox_heads).values(position=offset))


async def test_an_entry_holds_no_more_than_a_consumer_applies_at_once(ingestion_database: Database) -> None:
    texts = [f"{number}" for number in range(300)]
    offsets = await commit(ingestion_database, *texts)
    assert (offsets[0], offsets[127], offsets[128], offsets[-1]) == (1, 1, 2, 3)
    log = memory_log()
    await drain(relay(ingestion_database, log))
    assert [len(each) for _, each in await published(log)] == [128, 128, 44]


async def test_offsets_are_consecutive_under_concurrent_transactions(ingestion_database: Database) -> None:
    await prepare_heads(ingestion_database.sessions, TOPIC, 2)

    async def change(number: int) -> None:
        while True:
            try:
                await commit(ingestion_database, f"{number}", partition=number % 2)
            except Exception as error:
                if not is_outage(error):
                    raise
            else:
                return

    await asyncio.gather(*(change(number) for number in range(40)))
    async with ingestion_database.sessions() as session:
        given = (await session.execute(select(rows.c.partition, rows.c.position).order_by(rows.c.partition, rows.c.position))).all()
    assert [tuple(row) for row in given] == [(partition, offset) for partition in (0, 1) for offset in range(1, 21)]


async def test_a_transaction_that_fails_leaves_no_hole(ingestion_database: Database) -> None:
    await commit(ingestion_database, "a")

    async def change_mind() -> None:
        async with ingestion_database.sessions.begin() as session:
            await Outbox(TOPIC).add(session, 0, [record("never")])
            raise ValueError("changed its mind")

    with pytest.raises(ValueError, match="changed its mind"):
        await change_mind()
    assert await commit(ingestion_database, "b") == [2]


async def test_what_does_not_fit_one_entry_gets_several_offsets(ingestion_database: Database) -> None:
    big = pb.Record(type="t", payload=bytes(300_000))
    async with ingestion_database.sessions.begin() as session:
        assert await Outbox(TOPIC).add(session, 0, [big, big, record("small")]) == [1, 2, 2]


async def test_committed_messages_are_published_in_order_at_their_offsets(ingestion_database: Database) -> None:
    log = memory_log()
    await commit(ingestion_database, "a", "b")
    await commit(ingestion_database, "c")
    await drain(relay(ingestion_database, log))
    assert await published(log) == [(1, ["a", "b"]), (2, ["c"])]


async def test_more_than_one_step_takes_is_published_by_the_next(ingestion_database: Database) -> None:
    log = memory_log()
    for number in range(40):
        await commit(ingestion_database, f"{number}")
    await drain(relay(ingestion_database, log))
    assert await published(log) == [(number + 1, [f"{number}"]) for number in range(40)]


async def test_two_relays_publish_each_message_once(ingestion_database: Database, log: RedisLog) -> None:
    for number in range(30):
        await commit(ingestion_database, f"{number}")
    await asyncio.gather(*(drain(relay(ingestion_database, log)) for _ in range(3)))
    await drain(relay(ingestion_database, log))
    assert await published(log) == [(number + 1, [f"{number}"]) for number in range(30)]


class SlowLog(MemoryLog):
    """Another relay publishes between the read of the head and the append."""

    def __init__(self, log: MemoryLog, meanwhile: Sequence[Relay]) -> None:
        super().__init__(log.server)
        self._meanwhile = list(meanwhile)

    @override
    async def publish(self, topic: str, partition: int, *, head: Offset, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        if self._meanwhile:
            await drain(self._meanwhile.pop())
        return await super().publish(topic, partition, head=head, packs=packs)


async def test_a_relay_that_was_overtaken_publishes_nothing_of_what_it_had_in_hand(ingestion_database: Database) -> None:
    log = memory_log()
    await commit(ingestion_database, "a")
    slow = relay(ingestion_database, SlowLog(log, [relay(ingestion_database, log)]))
    assert await slow.step(0) == 0
    assert await published(log) == [(1, ["a"])]
    await commit(ingestion_database, "b")
    assert await slow.step(0) == 1
    assert await published(log) == [(1, ["a"]), (2, ["b"])]


async def test_what_is_asked_for_is_published_whoever_holds_the_lease_and_by_one_for_all(ingestion_database: Database) -> None:
    log = memory_log()
    own = relay(ingestion_database, log)
    for number in range(20):
        await commit(ingestion_database, f"{number}", partition=1)
    asked = [own.flush({1: offset}, 5) for offset in (20, 3, 20)]
    assert await asyncio.gather(*asked, relay(ingestion_database, log).flush({1: 20, 0: 0}, 5)) == [True] * 4
    assert await published(log, 1) == [(number + 1, [f"{number}"]) for number in range(20)]


async def test_what_the_log_does_not_take_in_time_is_reported_and_published_later(ingestion_database: Database) -> None:
    log = memory_log()
    await commit(ingestion_database, "a")
    own = relay(ingestion_database, log)
    assert not await own.flush({0: 2}, 0.2), "nothing was committed there yet"
    await commit(ingestion_database, "b")
    assert await own.flush({0: 2}, 5)
    await go_back(ingestion_database, 1)
    with pytest.raises(TopicAheadOfDatabase, match="the topic is at position 2, the database at 1"):
        await own.flush({0: 2}, 5)


async def test_a_wiped_topic_is_published_again_and_marks_what_is_missing_as_trimmed(ingestion_database: Database, log: RedisLog) -> None:
    for text in ("a", "b", "c"):
        await commit(ingestion_database, text)
    publisher = relay(ingestion_database, log, keep=timedelta(0))
    await drain(publisher)
    await publisher.prune(0)
    await log.redis.flushall()
    await drain(publisher)
    assert await published(log) == [(3, ["c"])]
    assert await log.trimmed(TOPIC, 0) == Offset(2, 0)


async def test_a_topic_ahead_of_its_database_halts_the_relay(ingestion_database: Database) -> None:
    log = memory_log()
    for text in ("a", "b", "c"):
        await commit(ingestion_database, text)
    publisher = relay(ingestion_database, log)
    await drain(publisher)
    await go_back(ingestion_database, 1)
    with pytest.raises(TopicAheadOfDatabase, match="the topic is at position 3, the database at 1"):
        await publisher.step(0)


async def test_a_restored_database_that_caught_up_with_the_topic_still_halts_the_relay(ingestion_database: Database) -> None:
    log = memory_log()
    for text in ("a", "b", "c"):
        await commit(ingestion_database, text)
    publisher = relay(ingestion_database, log)
    await drain(publisher)
    await go_back(ingestion_database, 1)
    await commit(ingestion_database, "b", "c")
    await commit(ingestion_database, "d")
    for _ in range(2):
        with pytest.raises(TopicAheadOfDatabase, match="at position 3 the topic and the database hold different messages"):
            await publisher.step(0)
        await commit(ingestion_database, "e")
    assert await published(log) == [(1, ["a"]), (2, ["b"]), (3, ["c"])]


async def test_what_was_published_is_forgotten_after_a_while_but_for_the_newest(ingestion_database: Database) -> None:
    log = memory_log()
    for text in ("a", "b", "c"):
        await commit(ingestion_database, text)
    patient, hasty = relay(ingestion_database, log), relay(ingestion_database, log, keep=timedelta(0))
    await drain(patient)
    assert await patient.prune(0) == 0
    assert await hasty.prune(0) == 2
    assert await published(log) == [(3, ["c"])]
    assert await log.trimmed(TOPIC, 0) == Offset(2, 0)
    assert await hasty.prune(0) == 0


async def test_what_was_not_published_is_never_forgotten(ingestion_database: Database) -> None:
    log = memory_log()
    await commit(ingestion_database, "a")
    hasty = relay(ingestion_database, log, keep=timedelta(0))
    await drain(hasty)
    await commit(ingestion_database, "b")
    await commit(ingestion_database, "c")
    await hasty.prune(0)
    await drain(hasty)
    assert (await published(log))[-2:] == [(2, ["b"]), (3, ["c"])]


async def test_heads_are_prepared_by_several_processes_at_once(ingestion_database: Database) -> None:
    async def prepare() -> None:
        with suppress(Exception):
            await prepare_heads(ingestion_database.sessions, TOPIC, 4)

    await asyncio.gather(*(prepare() for _ in range(4)))
    await prepare_heads(ingestion_database.sessions, TOPIC, 4)
    async with ingestion_database.sessions() as session:
        heads = (await session.execute(select(outbox_heads.c.partition, outbox_heads.c.position).order_by(outbox_heads.c.partition))).all()
    assert [tuple(head) for head in heads] == [(0, 0), (1, 0), (2, 0), (3, 0)]


async def test_a_running_relay_publishes_soon_after_it_was_woken(ingestion_database: Database, log: RedisLog) -> None:
    outbox = Outbox(TOPIC)
    running = asyncio.create_task(relay(ingestion_database, log).run(Leases(log, TOPIC, "relay", 2), outbox))
    await asyncio.sleep(0.3)
    await commit(ingestion_database, "a", partition=1)
    outbox.wake()
    for _ in range(100):
        if await published(log, 1):
            break
        await asyncio.sleep(0.02)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert await published(log, 1) == [(1, ["a"])]
    assert await log.redis.keys("*lease*") == []
