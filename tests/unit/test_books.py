"""The books balance at every moment, and a log that lost something can't hide it."""

from __future__ import annotations

from typing import Any

from sqlalchemy import select

from kit.database.engine import Database
from kit.log import books, offsets
from kit.log.books import Account
from kit.log.consume.consumer import RawLogConsumer
from kit.log.redis_log import RedisLog, key
from kit.log.streams import Count, Counters, StreamLog
from kit.log.tables import log_counters
from tests.simulation.memory_log import MemoryLog
from tests.unit.mesh_log import BAD, HOUR, TOPIC, append, group, memory_log, store_events

PARTITIONS = 2


async def account(database: Database, log: StreamLog) -> Account:
    total = Account()
    for each in (await books.accounts(database.sessions, log, TOPIC, PARTITIONS)).values():
        assert each.balanced
        total.add(each)
    return total


async def copies(database: Database) -> dict[tuple[str, str], int]:
    async with database.sessions() as session:
        rows = await session.execute(select(log_counters.c.epoch, log_counters.c.name, log_counters.c["count"]))
        return {(writer, name): count for writer, name, count in rows}


def counters(writer: str, received: int, hour: int = HOUR) -> Counters:
    return Counters({Count(writer, "received", hour): received})


async def copy(database: Database, live: Counters, copied: Counters | None = None) -> None:
    async with database.sessions.begin() as session:
        await books.copy_counters(session, TOPIC, {0: live}, {0: copied} if copied else {})


def wiped(database: Database, log: MemoryLog) -> MemoryLog:
    """A new connection to a log that lost everything."""
    log.server.restore({})
    return MemoryLog(log.server, floors=lambda: offsets.floors(database.sessions, TOPIC))


def consumer(database: Database, log: StreamLog) -> RawLogConsumer:
    return RawLogConsumer(database.sessions, log, TOPIC, store_events)


async def test_what_is_in_the_log_is_pending_until_it_is_stored(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", "b")
    assert await account(ingestion_database, log) == Account(received=2, pending=2)
    await consumer(ingestion_database, log).step(0)
    assert await account(ingestion_database, log) == Account(received=2, stored=2)


async def test_rejected_and_set_aside_messages_are_accounted_for(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", BAD)
    await log.append(TOPIC, [group(1, [], HOUR, {"received": 3, "rejected": 3})])
    await consumer(ingestion_database, log).step(0)
    assert await account(ingestion_database, log) == Account(received=5, stored=1, dead_lettered=1, rejected=3)


async def test_each_hour_has_an_account_of_its_own(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", hour=HOUR)
    await append(log, "b", "c", hour=HOUR + 1)
    working = consumer(ingestion_database, log)
    await working.step(0)
    await append(log, "d", hour=HOUR + 1, partition=1)
    assert await books.accounts(ingestion_database.sessions, log, TOPIC, PARTITIONS) == {
        HOUR: Account(received=1, stored=1),
        HOUR + 1: Account(received=3, stored=2, pending=1),
    }


async def test_what_is_trimmed_stays_in_the_books(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", "b")
    await consumer(ingestion_database, log).step(0)
    await log.trim(TOPIC, 0, await log.head(TOPIC, 0))
    assert await account(ingestion_database, log) == Account(received=2, stored=2)


async def test_a_wiped_log_leaves_its_last_counts_and_begins_anew(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", "b")
    working = consumer(ingestion_database, log)
    await working.step(0)
    log = wiped(ingestion_database, log)
    assert await account(ingestion_database, log) == Account(received=2, stored=2)
    await append(log, "c", "d")
    await working.step(0)
    assert await account(ingestion_database, log) == Account(received=4, stored=4)


async def test_counters_of_another_writer_are_copied_though_they_look_the_same(ingestion_database: Database) -> None:
    log = memory_log()
    working = consumer(ingestion_database, log)
    for texts in (("a", "b"), ("c", "d")):
        await append(log, *texts)
        await working.step(0)
        log = wiped(ingestion_database, log)
    assert await account(ingestion_database, log) == Account(received=4, stored=4)


async def test_what_a_restored_log_lost_is_missing_in_the_books(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a")
    backup = log.server.snapshot()
    await append(log, "b", "c")
    await copy(ingestion_database, await log.counters(TOPIC, 0))
    log.server.restore(backup)
    restored = MemoryLog(log.server, floors=lambda: offsets.floors(ingestion_database.sessions, TOPIC))
    await consumer(ingestion_database, restored).step(0)
    await append(restored, "d")
    await consumer(ingestion_database, restored).step(0)
    [found] = (await books.accounts(ingestion_database.sessions, restored, TOPIC, PARTITIONS)).values()
    assert (found.received, found.stored, found.balanced) == (4, 2, False)


async def test_a_copy_of_counters_never_goes_back(ingestion_database: Database) -> None:
    await copy(ingestion_database, counters("one", 5))
    await copy(ingestion_database, counters("one", 3))
    assert await copies(ingestion_database) == {("one", "received"): 5}
    await copy(ingestion_database, counters("one", 8))
    assert await copies(ingestion_database) == {("one", "received"): 8}


async def test_counters_are_copied_when_they_changed_or_their_writer_did(ingestion_database: Database) -> None:
    await copy(ingestion_database, counters("one", 5), counters("one", 5))
    assert await copies(ingestion_database) == {}
    await copy(ingestion_database, counters("two", 5), counters("one", 5))
    assert await copies(ingestion_database) == {("two", "received"): 5}


async def test_floors_are_the_offsets(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a")
    await consumer(ingestion_database, log).step(0)
    assert await offsets.floors(ingestion_database.sessions, TOPIC) == {(TOPIC, 0): await log.head(TOPIC, 0)}


async def test_counts_that_left_the_log_stay_in_the_books(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", "b", hour=HOUR - 100)
    await consumer(ingestion_database, log).step(0)
    await books.prune_counters(log, TOPIC, 0)
    assert (await log.counters(TOPIC, 0)).counts == {}
    assert await account(ingestion_database, log) == Account(received=2, stored=2)


async def test_an_empty_mesh_has_no_accounts(ingestion_database: Database, log: RedisLog) -> None:
    assert await books.accounts(ingestion_database.sessions, log, TOPIC, PARTITIONS) == {}


async def test_old_counters_of_all_writers_become_one_and_the_books_stay_as_they_are(ingestion_database: Database, log: RedisLog) -> None:
    week = 7 * 24
    for hour in (HOUR - week - 1, HOUR - week - 1, HOUR):
        await append(log, "a", "b", hour=hour)
    await consumer(ingestion_database, log).step(0)
    before = await books.accounts(ingestion_database.sessions, log, TOPIC, PARTITIONS)
    for _ in range(2):
        await books.fold_counters(ingestion_database.sessions, log, TOPIC, 0)
        assert await books.accounts(ingestion_database.sessions, log, TOPIC, PARTITIONS) == before
    found = await copies(ingestion_database)
    assert found[books.ALL, "received"] == 4
    assert len(found) == 2


async def test_counters_of_an_older_release_stay_in_the_books(ingestion_database: Database, log: RedisLog) -> None:
    fields: Any = {"epoch": "an older life", f"received:{HOUR}": 3, f"rejected:{HOUR}": 3}
    await log.redis.hset(key(TOPIC, 0, "books"), mapping=fields)
    await append(log, "a")
    assert await account(ingestion_database, log) == Account(received=4, rejected=3, pending=1)
    await consumer(ingestion_database, log).step(0)
    await log.redis.flushall()
    assert await account(ingestion_database, log) == Account(received=4, rejected=3, stored=1)
