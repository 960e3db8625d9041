"""The raw log keeps what is not processed, and what is for a while."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

from kit.log.redis_log import RedisLog
from kit.log.streams import START, Offset
from kit.log.trim import TopicTrimmer, Trimmer
from tests.unit.mesh_log import group

TOPIC = "intake"
HOUR = timedelta(hours=1)


def trimmer(log: RedisLog, *, keep: timedelta = HOUR, max_bytes: int = 1 << 30, clock: Callable[[], float] = time.time) -> Trimmer:
    return Trimmer(log, TOPIC, keep=keep, max_bytes=max_bytes, clock=clock)


async def appended(log: RedisLog, count: int, hour: int | None = None) -> list[Offset]:
    hour = int(time.time() // 3600) if hour is None else hour
    for number in range(count):
        await log.append(TOPIC, [group(0, [(b"pack %d" % number, 1)], hour, {"received": 1})])
    return [entry.offset for entry in await log.read(TOPIC, 0, START, limit=100, block_ms=0)]


async def left(log: RedisLog) -> list[Offset]:
    return [entry.offset for entry in await log.read(TOPIC, 0, START, limit=100, block_ms=0)]


async def test_processed_entries_stay_for_a_while(log: RedisLog) -> None:
    offsets = await appended(log, 3)
    await trimmer(log).after_commit(0, offsets[-1])
    assert await left(log) == offsets


async def test_processed_entries_go_when_their_time_is_over(log: RedisLog) -> None:
    offsets = await appended(log, 3)
    await trimmer(log, clock=lambda: time.time() + 3601).after_commit(0, offsets[-1])
    assert await left(log) == []
    assert await log.trimmed(TOPIC, 0) == offsets[-1]


async def test_what_is_not_processed_never_goes(log: RedisLog) -> None:
    offsets = await appended(log, 3)
    await trimmer(log, keep=timedelta(0), max_bytes=0, clock=lambda: time.time() + 1e6).after_commit(0, offsets[1])
    assert await left(log) == offsets[2:]


async def test_processed_entries_go_at_once_when_memory_is_short(log: RedisLog) -> None:
    offsets = await appended(log, 3)
    await trimmer(log, max_bytes=0).after_commit(0, offsets[1])
    assert await left(log) == offsets[2:]


async def test_it_looks_once_a_second_and_not_at_every_commit(log: RedisLog) -> None:
    now = time.time()
    offsets = await appended(log, 3)
    often = trimmer(log, max_bytes=0, clock=lambda: now)
    await often.after_commit(0, offsets[0])
    await often.after_commit(0, offsets[2])
    assert await left(log) == offsets[1:]
    now += 1.5
    await often.after_commit(0, offsets[2])
    assert await left(log) == []


async def test_counters_of_hours_long_past_leave_the_log(log: RedisLog) -> None:
    now = int(time.time() // 3600)
    await appended(log, 1, hour=now - 60)
    offsets = await appended(log, 1, hour=now)
    await trimmer(log).after_commit(0, offsets[-1])
    assert (await log.counters(TOPIC, 0)).counts == {("received", now): 1}


async def test_a_topic_that_is_too_large_loses_its_oldest_entries(log: RedisLog) -> None:
    assert await log.publish("events", 0, head=START, packs=[(number, b"x" * 1000, 1) for number in range(1, 101)])
    small = TopicTrimmer(log, "events", 1, max_bytes=40_000)
    await small.look(0)
    entries = await log.read("events", 0, START, limit=200, block_ms=0)
    assert 10 < len(entries) < 60
    assert entries[-1].offset == await log.head("events", 0) == Offset(100, 0)
    assert await log.trimmed("events", 0) == Offset(entries[0].offset.ms - 1, 0)
    await small.look(0)
    assert len(await log.read("events", 0, START, limit=200, block_ms=0)) == len(entries)


async def test_the_newest_entry_of_a_topic_stays_however_large_it_is(log: RedisLog) -> None:
    assert await log.publish("events", 0, head=START, packs=[(number, b"x" * 100_000, 1) for number in (1, 2, 3)])
    await TopicTrimmer(log, "events", 1, max_bytes=1000).look(0)
    assert [entry.offset.ms for entry in await log.read("events", 0, START, limit=9, block_ms=0)] == [3]
