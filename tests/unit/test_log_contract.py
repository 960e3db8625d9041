"""What `StreamLog` promises, asked of Redis and of the log in memory on which the simulation rests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.streams import (
    APPENDS,
    START,
    Append,
    Count,
    Offset,
    OutOfTurnError,
    StreamLog,
    TopicPartition,
    Turn,
    partition_of,
    reconcile,
)
from kit.outages import LogFullError, is_outage
from tests.servers import PrivateRedis, PrivateRedisCluster
from tests.simulation.memory_log import MemoryLog, MemoryRedis
from tests.unit.mesh_log import group

TOPIC = "intake"
FILL = b"x" * 65_536


@pytest.fixture(scope="module")
def small_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRedis]:
    server = PrivateRedis(tmp_path_factory.mktemp("small-redis"), maxmemory="6mb")
    server.start()
    yield server
    server.kill()


def _memory(max_bytes: int | None = None) -> MemoryLog:
    clock = iter(range(1_000, 1_000_000))
    return MemoryLog(MemoryRedis(lambda: next(clock), max_bytes=max_bytes))


@pytest.fixture(params=["redis_server", "redis_cluster", "memory"])
async def any_log(request: pytest.FixtureRequest) -> AsyncIterator[StreamLog]:
    if request.param == "memory":
        yield _memory()
        return
    server: PrivateRedis | PrivateRedisCluster = request.getfixturevalue(request.param)
    async with open_log(server.url) as log:
        await log.redis.flushall()
        yield log


@pytest.fixture(params=["redis", "memory"])
async def small_log(request: pytest.FixtureRequest) -> AsyncIterator[StreamLog]:
    """A log that takes a few packs of `FILL`, and no more."""
    if request.param == "memory":
        yield _memory(max_bytes=10 * len(FILL))
        return
    server: PrivateRedis = request.getfixturevalue("small_redis")
    async with open_log(server.url) as log:
        await log.redis.flushall()
        yield log


def one(pack: bytes, partition: int = 0, hour: int = 7, **counters: int) -> Append:
    return group(partition, [(pack, 1)], hour, counters or {"received": 1})


async def appended(log: StreamLog, *packs: bytes, partition: int = 0) -> list[Offset]:
    """Offsets of packs appended one by one."""
    before = await log.head(TOPIC, partition)
    for pack in packs:
        assert await log.append(TOPIC, [one(pack, partition)]) == [None]
    return [entry.offset for entry in await log.read(TOPIC, partition, before, limit=100, block_ms=0)]


async def _answered(call: Callable[[], Awaitable[Any]]) -> Any:
    """What a call answers once the connections of the server's last life are found broken."""
    for _ in range(5):
        with suppress(ConnectionError, RedisConnectionError):
            return await call()
    raise AssertionError("the connections stayed broken")


async def fill_up(log: StreamLog) -> None:
    for _ in range(200):
        [verdict] = await log.append(TOPIC, [one(FILL)])
        if verdict is not None:
            assert isinstance(verdict, LogFullError)
            return
    raise AssertionError("the log never became full")


async def test_an_empty_log_has_nothing_and_says_so(any_log: StreamLog) -> None:
    assert await any_log.head(TOPIC, 0) == START
    assert await any_log.trimmed(TOPIC, 0) == START
    assert list(await any_log.read(TOPIC, 0, START, limit=10, block_ms=0)) == []
    assert (await any_log.counters(TOPIC, 0)).of_writers == {}
    assert (await any_log.backlog(TOPIC, 0, START)).pending == {}


async def test_an_entry_comes_back_as_it_was_appended(any_log: StreamLog) -> None:
    await any_log.append(TOPIC, [group(3, [(b"\x00pack\xff", 5)], 490_000, {"received": 5})])
    [entry] = await any_log.read(TOPIC, 3, START, limit=10, block_ms=0)
    assert (entry.pack, entry.messages, entry.hour) == (b"\x00pack\xff", 5, 490_000)
    assert await any_log.head(TOPIC, 3) == entry.offset


async def test_positions_ascend_also_within_a_millisecond(any_log: StreamLog) -> None:
    offsets = await appended(any_log, *[b"%d" % number for number in range(50)])
    assert len(offsets) == 50
    assert offsets == sorted(set(offsets))


async def test_reading_goes_on_after_an_offset_and_stops_at_the_limit(any_log: StreamLog) -> None:
    offsets = await appended(any_log, b"a", b"b", b"c", b"d")
    found = await any_log.read(TOPIC, 0, offsets[0], limit=2, block_ms=0)
    assert [entry.pack for entry in found] == [b"b", b"c"]


async def test_several_partitions_are_appended_at_once_each_with_its_counters(any_log: StreamLog) -> None:
    verdicts = await any_log.append(TOPIC, [one(b"a", 0, received=2, rejected=1), one(b"b", 1, received=1)])
    assert list(verdicts) == [None, None]
    assert (await any_log.counters(TOPIC, 0)).counts == {("received", 7): 2, ("rejected", 7): 1}
    assert (await any_log.counters(TOPIC, 1)).counts == {("received", 7): 1}


async def test_counters_alone_make_no_entry(any_log: StreamLog) -> None:
    await any_log.append(TOPIC, [group(0, [], 7, {"received": 1, "rejected": 1})])
    assert await any_log.head(TOPIC, 0) == START
    assert (await any_log.counters(TOPIC, 0)).counts == {("received", 7): 1, ("rejected", 7): 1}


def turn(after: int, number: int, received: int, writer: str = "one") -> Append:
    return Append(0, [(b"%d" % number, 1)], 7, {"received": received}, Turn(writer, after, number))


async def packs(log: StreamLog) -> list[bytes]:
    return [entry.pack for entry in await log.read(TOPIC, 0, START, limit=100, block_ms=0)]


async def test_each_writer_has_its_counters_and_says_itself_how_far_they_are(any_log: StreamLog) -> None:
    for item in (turn(0, 1, 5), turn(0, 7, 2, "two"), turn(1, 2, 6)):
        assert await any_log.append(TOPIC, [item]) == [None]
    found = await any_log.counters(TOPIC, 0)
    assert found.of_writers == {
        Count("one", "received", 7): 6,
        Count("one", APPENDS, 0): 2,
        Count("two", "received", 7): 2,
        Count("two", APPENDS, 0): 7,
    }
    assert found.counts == {("received", 7): 8}


async def test_an_append_takes_place_once_and_only_after_the_one_it_follows(any_log: StreamLog) -> None:
    await any_log.append(TOPIC, [turn(0, 1, 1)])
    for late in (turn(0, 1, 1), turn(0, 2, 1), turn(2, 3, 3)):
        [verdict] = await any_log.append(TOPIC, [late])
        assert isinstance(verdict, OutOfTurnError)
        assert verdict.found == 1
        assert is_outage(verdict)
    assert await any_log.append(TOPIC, [turn(1, 4, 2)]) == [None]
    assert await packs(any_log) == [b"1", b"4"]
    assert (await any_log.counters(TOPIC, 0)).counts == {("received", 7): 2}


async def test_the_head_stays_when_all_is_trimmed(any_log: StreamLog) -> None:
    offsets = await appended(any_log, b"a", b"b")
    await any_log.trim(TOPIC, 0, offsets[-1])
    assert list(await any_log.read(TOPIC, 0, START, limit=10, block_ms=0)) == []
    assert await any_log.head(TOPIC, 0) == offsets[-1]
    assert await any_log.trimmed(TOPIC, 0) == offsets[-1]
    [later] = await appended(any_log, b"c")
    assert later > offsets[-1]


async def test_trimming_drops_what_is_up_to_the_position_and_nothing_else(any_log: StreamLog) -> None:
    offsets = await appended(any_log, b"a", b"b", b"c")
    await any_log.trim(TOPIC, 0, offsets[1])
    assert [entry.pack for entry in await any_log.read(TOPIC, 0, START, limit=10, block_ms=0)] == [b"c"]


async def test_a_late_trim_does_not_take_back_what_another_one_said(any_log: StreamLog) -> None:
    offsets = await appended(any_log, b"a", b"b", b"c")
    await any_log.trim(TOPIC, 0, offsets[1])
    await any_log.trim(TOPIC, 0, offsets[0])
    assert await any_log.trimmed(TOPIC, 0) == offsets[1]


async def test_entries_are_published_at_their_positions(any_log: StreamLog) -> None:
    assert await any_log.publish(TOPIC, 0, head=START, packs=[(1, b"a", 1), (2, b"b", 2)])
    assert await any_log.publish(TOPIC, 0, head=Offset(2, 0), packs=[(3, b"c", 1)])
    found = await any_log.read(TOPIC, 0, START, limit=10, block_ms=0)
    assert [(entry.offset, entry.pack, entry.messages) for entry in found] == [
        (Offset(1, 0), b"a", 1),
        (Offset(2, 0), b"b", 2),
        (Offset(3, 0), b"c", 1),
    ]
    assert await any_log.trimmed(TOPIC, 0) == START


async def test_nothing_is_published_when_the_head_is_another(any_log: StreamLog) -> None:
    await any_log.publish(TOPIC, 0, head=START, packs=[(1, b"a", 1)])
    assert not await any_log.publish(TOPIC, 0, head=START, packs=[(1, b"again", 1), (2, b"b", 1)])
    assert not await any_log.publish(TOPIC, 0, head=Offset(5, 0), packs=[(6, b"f", 1)])
    assert [entry.pack for entry in await any_log.read(TOPIC, 0, START, limit=10, block_ms=0)] == [b"a"]
    assert await any_log.trimmed(TOPIC, 0) == START


async def test_a_gap_left_by_publishing_is_marked_as_trimmed(any_log: StreamLog) -> None:
    await any_log.publish(TOPIC, 0, head=START, packs=[(1, b"a", 1)])
    assert await any_log.publish(TOPIC, 0, head=Offset(1, 0), packs=[(5, b"e", 1)])
    assert await any_log.trimmed(TOPIC, 0) == Offset(4, 0)
    assert await any_log.head(TOPIC, 0) == Offset(5, 0)


async def test_the_head_is_raised_and_never_lowered(any_log: StreamLog) -> None:
    far = Offset(9_999_999_999_999, 3)
    await any_log.raise_head(TOPIC, 0, far)
    assert await any_log.head(TOPIC, 0) == far
    await any_log.raise_head(TOPIC, 0, Offset(5, 0))
    assert await any_log.head(TOPIC, 0) == far
    [later] = await appended(any_log, b"a")
    assert later > far


async def test_positions_of_many_digits_compare_as_numbers(any_log: StreamLog) -> None:
    await any_log.raise_head(TOPIC, 0, Offset(999, 20))
    await any_log.raise_head(TOPIC, 0, Offset(1000, 3))
    assert await any_log.head(TOPIC, 0) == Offset(1000, 3)
    await any_log.raise_head(TOPIC, 0, Offset(1000, 12))
    assert await any_log.head(TOPIC, 0) == Offset(1000, 12)


async def test_the_backlog_counts_what_follows_an_offset_by_hour(any_log: StreamLog) -> None:
    await any_log.append(TOPIC, [group(0, [(b"a", 2)], 7, {"received": 2})])
    done = await any_log.head(TOPIC, 0)
    await any_log.append(TOPIC, [group(0, [(b"b", 3), (b"c", 1)], 7, {"received": 4})])
    await any_log.append(TOPIC, [group(0, [(b"d", 5)], 8, {"received": 5})])
    backlog = await any_log.backlog(TOPIC, 0, done)
    assert backlog.pending == {7: 4, 8: 5}
    assert backlog.counters.counts == {("received", 7): 6, ("received", 8): 5}
    assert backlog.trimmed == START
    await any_log.trim(TOPIC, 0, done)
    assert (await any_log.backlog(TOPIC, 0, done)).trimmed == done


async def test_the_backlog_is_exact_over_more_entries_than_it_reads_at_once(any_log: StreamLog) -> None:
    await any_log.append(TOPIC, [group(0, [(b"p", 1)] * 200, 7, {"received": 200})])
    assert (await any_log.backlog(TOPIC, 0, START)).pending == {7: 200}


async def test_the_backlog_is_of_one_instant_while_others_append(any_log: StreamLog) -> None:
    async def append() -> None:
        for _ in range(60):
            await any_log.append(TOPIC, [one(b"p")])

    appending = asyncio.create_task(append())
    while not appending.done():
        backlog = await any_log.backlog(TOPIC, 0, START)
        assert sum(backlog.pending.values()) == backlog.counters.counts.get(("received", 7), 0)
        await asyncio.sleep(0)
    await appending


async def test_entries_and_counters_are_read_of_one_instant_while_others_append(any_log: StreamLog) -> None:
    async def append() -> None:
        for _ in range(60):
            await any_log.append(TOPIC, [one(b"a"), one(b"b", 1)])

    appending = asyncio.create_task(append())
    after, counted = {0: START, 1: START}, {0: 0, 1: 0}
    while not appending.done() or any(count < 60 for count in counted.values()):
        for partition, (entries, counters) in (await any_log.read_counted(TOPIC, after, limit=500)).items():
            after[partition] = entries[-1].offset
            counted[partition] += sum(entry.messages for entry in entries)
            assert counters.counts == {("received", 7): counted[partition]}
        await asyncio.sleep(0)
    assert await any_log.read_counted(TOPIC, after, limit=500) == {}


async def test_several_partitions_are_waited_for_at_once(any_log: StreamLog) -> None:
    await appended(any_log, b"a", b"b", b"c", partition=2)
    found = await any_log.read_several(TOPIC, {0: START, 1: START, 2: START}, limit=2, block_ms=1000)
    assert {partition: [entry.pack for entry in entries] for partition, entries in found.items()} == {2: [b"a", b"b"]}


async def test_a_full_log_takes_nothing_of_an_append(small_log: StreamLog) -> None:
    await fill_up(small_log)
    before, entries = await small_log.counters(TOPIC, 0), await small_log.read(TOPIC, 0, START, limit=500, block_ms=0)
    [verdict] = await small_log.append(TOPIC, [one(FILL)])
    assert isinstance(verdict, LogFullError)
    assert is_outage(verdict)
    assert await small_log.counters(TOPIC, 0) == before
    assert len(await small_log.read(TOPIC, 0, START, limit=500, block_ms=0)) == len(entries)


async def test_a_full_log_publishes_nothing_and_says_why(small_log: StreamLog) -> None:
    await fill_up(small_log)
    with pytest.raises(Exception) as refused:  # noqa: PT011 (what it is, is asked below)
        await small_log.publish("events", 0, head=START, packs=[(4, FILL, 1)])
    assert is_outage(refused.value)
    assert await small_log.head("events", 0) == START
    assert await small_log.trimmed("events", 0) == START


async def test_a_full_log_is_trimmed_and_takes_again(small_log: StreamLog) -> None:
    await fill_up(small_log)
    head = await small_log.head(TOPIC, 0)
    await small_log.trim(TOPIC, 0, head)
    assert await small_log.trimmed(TOPIC, 0) == head
    assert await small_log.append(TOPIC, [one(b"a")]) == [None]


async def test_a_wiped_log_assigns_offsets_after_those_that_were_read(any_log: StreamLog) -> None:
    read = Offset(9_999_999_999_000, 0)
    await reconcile(any_log, {TopicPartition(TOPIC, 0): read}, now=0)
    [offset] = await appended(any_log, b"a")
    assert offset > read


async def test_a_restored_log_whose_clock_is_slow_goes_by_the_clock_of_the_appending_process(any_log: StreamLog) -> None:
    await reconcile(any_log, {TopicPartition(TOPIC, 0): START}, now=9_999_999_999)
    [offset] = await appended(any_log, b"a")
    assert offset > Offset(9_999_999_999_000, 0)


async def test_a_log_that_is_flushed_under_a_connection_is_reconciled_before_it_takes_anything(
    log: RedisLog, redis_server: PrivateRedis
) -> None:
    read = Offset(9_999_999_999_000, 0)

    async def floors() -> dict[TopicPartition, Offset]:
        return {TopicPartition(TOPIC, 0): read}

    async with open_log(redis_server.url, floors=floors) as mine:
        await mine.append(TOPIC, [turn(0, 1, 1)])
        await log.redis.flushall()
        [verdict] = await mine.append(TOPIC, [turn(1, 2, 2)])
        assert isinstance(verdict, OutOfTurnError)
        assert await mine.append(TOPIC, [turn(verdict.found, 3, 2)]) == [None]
        assert await mine.newest(TOPIC, 0) > read
        assert (await mine.counters(TOPIC, 0)).counts == {("received", 7): 2}


async def test_a_wiped_redis_is_reconciled_before_the_first_append_of_a_new_connection(tmp_path_factory: pytest.TempPathFactory) -> None:
    server = PrivateRedis(tmp_path_factory.mktemp("wiped"))
    server.start()
    read = Offset(9_999_999_999_000, 0)

    async def floors() -> dict[TopicPartition, Offset]:
        return {TopicPartition(TOPIC, 0): read}

    try:
        async with open_log(server.url, floors=floors) as log:
            await log.append(TOPIC, [one(b"a")])
            assert await log.head(TOPIC, 0) > read
            server.kill()
            for left in server.folder.rglob("*.aof*"):
                left.unlink()
            server.start()
            assert await _answered(lambda: log.append(TOPIC, [one(b"b")])) == [None]
            assert await _answered(lambda: log.head(TOPIC, 0)) > read
    finally:
        server.kill()


async def test_nothing_is_appended_while_the_tables_can_not_be_read(redis_server: PrivateRedis) -> None:
    async def floors() -> dict[TopicPartition, Offset]:
        raise TimeoutError("the database is away")

    async with open_log(redis_server.url, floors=floors) as log:
        await log.redis.flushall()
        with pytest.raises(TimeoutError, match="the database is away"):
            await log.append(TOPIC, [one(b"a")])
        assert await log.head(TOPIC, 0) == START


async def test_another_number_of_partitions_is_refused(log: RedisLog) -> None:
    await log.fix_partitions(TOPIC, 4)
    await log.fix_partitions(TOPIC, 4)
    with pytest.raises(ValueError, match="topic 'intake' has 4 partitions, and PMP_LOG_PARTITIONS says 8"):
        await log.fix_partitions(TOPIC, 8)


def test_a_key_always_has_the_same_partition_and_keys_spread() -> None:
    assert partition_of("user-1", 4) == partition_of("user-1", 4)
    assert {partition_of(f"user-{number}", 4) for number in range(100)} == {0, 1, 2, 3}


async def test_a_call_can_be_cancelled_at_any_point(log: RedisLog) -> None:
    async def pings() -> None:
        while True:
            await log.redis.ping()

    await log.redis.ping()
    for steps in range(40):
        task = asyncio.create_task(pings())
        for _ in range(steps):
            await asyncio.sleep(0)
        task.cancel()
        done, _pending = await asyncio.wait([task], timeout=5)
        assert done, f"a cancellation after {steps} steps of the loop was swallowed"
    assert await log.redis.echo("its own answer") == b"its own answer"
