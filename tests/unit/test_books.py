"""The books balance at every moment, and a log that lost something can't hide it."""

from __future__ import annotations

from sqlalchemy import select

from kit.database import Database
from kit.log import books
from kit.log.books import Account
from kit.log.consume import Consumer
from kit.log.redis_log import RedisLog
from kit.log.streams import Append, Counters, StreamLog
from kit.log.tables import log_counters
from tests.simulation.memory_log import MemoryLog
from tests.unit.mesh_log import BAD, HOUR, TOPIC, append, memory_log, store

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
        return {(epoch, name): count for epoch, name, count in rows}


async def copy(database: Database, live: Counters, copied: Counters | None = None) -> None:
    async with database.sessions.begin() as session:
        await books.copy_counters(session, TOPIC, 0, live, copied)


def wiped(database: Database, log: MemoryLog) -> MemoryLog:
    """A new connection to a log that lost everything."""
    log.server.restore({})
    return MemoryLog(log.server, floors=lambda: books.floors(database.sessions, TOPIC))


def consumer(database: Database, log: StreamLog) -> Consumer:
    return Consumer(database.sessions, log, TOPIC, store, counted=True)


async def test_what_is_in_the_log_is_pending_until_it_is_stored(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", "b")
    assert await account(ingestion_database, log) == Account(received=2, pending=2)
    await consumer(ingestion_database, log).step(0)
    assert await account(ingestion_database, log) == Account(received=2, stored=2)


async def test_rejected_and_set_aside_messages_are_accounted_for(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", BAD)
    await log.append(TOPIC, [Append(1, [], HOUR, {"received": 3, "rejected": 3})])
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


async def test_a_wiped_log_leaves_its_last_counts_behind_and_begins_anew(ingestion_database: Database) -> None:
    log = memory_log()
    await append(log, "a", "b")
    working = consumer(ingestion_database, log)
    await working.step(0)
    log = wiped(ingestion_database, log)
    assert await account(ingestion_database, log) == Account(received=2, stored=2)
    await append(log, "c", "d")
    await working.step(0)
    assert await account(ingestion_database, log) == Account(received=4, stored=4)


async def test_counters_of_a_new_epoch_are_copied_though_they_look_the_same(ingestion_database: Database) -> None:
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
    restored = MemoryLog(log.server, floors=lambda: books.floors(ingestion_database.sessions, TOPIC))
    await consumer(ingestion_database, restored).step(0)
    await append(restored, "d")
    await consumer(ingestion_database, restored).step(0)
    [found] = (await books.accounts(ingestion_database.sessions, restored, TOPIC, PARTITIONS)).values()
    assert (found.received, found.stored, found.balanced) == (4, 2, False)


async def test_a_copy_of_counters_never_goes_back(ingestion_database: Database) -> None:
    await copy(ingestion_database, Counters("one", {("received", HOUR): 5}))
    await copy(ingestion_database, Counters("one", {("received", HOUR): 3}))
    assert await copies(ingestion_database) == {("one", "received"): 5}
    await copy(ingestion_database, Counters("one", {("received", HOUR): 8}))
    assert await copies(ingestion_database) == {("one", "received"): 8}


async def test_counters_are_copied_when_they_changed_or_their_epoch_did(ingestion_database: Database) -> None:
    same = {("received", HOUR): 5}
    await copy(ingestion_database, Counters("one", same), Counters("one", same))
    assert await copies(ingestion_database) == {}
    await copy(ingestion_database, Counters("two", same), Counters("one", same))
    assert await copies(ingestion_database) == {("two", "received"): 5}


async def test_floors_tell_the_position_and_the_recent_counts(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a")
    await append(log, "old", hour=HOUR - 100)
    await consumer(ingestion_database, log).step(0)
    found = await books.floors(ingestion_database.sessions, TOPIC)
    epoch = (await log.counters(TOPIC, 0)).epoch
    assert found[TOPIC, 0].position == await log.head(TOPIC, 0)
    assert found[TOPIC, 0].counters == {epoch: {("received", HOUR): 1}}


async def test_counts_that_left_the_log_stay_in_the_books(ingestion_database: Database, log: RedisLog) -> None:
    await append(log, "a", "b", hour=HOUR - 100)
    await consumer(ingestion_database, log).step(0)
    await books.prune_counters(log, TOPIC, 0)
    assert (await log.counters(TOPIC, 0)).counts == {}
    assert await account(ingestion_database, log) == Account(received=2, stored=2)


async def test_an_empty_mesh_has_no_accounts(ingestion_database: Database, log: RedisLog) -> None:
    assert await books.accounts(ingestion_database.sessions, log, TOPIC, PARTITIONS) == {}
