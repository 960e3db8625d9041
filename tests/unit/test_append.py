"""Requests that arrive together share a round trip, and each gets its own answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, Protocol

import pytest
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy.exc import OperationalError

from kit.database.engine import open_database
from kit.database.transactions import Sessions
from kit.errors import LogFull, Unavailable
from kit.log.intake.account import Account
from kit.log.intake.appender import Appender
from kit.log.intake.disk import LogDisk
from kit.log.packs import PACK_BYTES, packs
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.streams import START, StreamLog, partition_of
from kit.log.tables import log_counters
from tests.background import running
from tests.servers import PrivateRedis
from tests.simulation.memory_log import MemoryLog, MemoryRedis

TOPIC = "intake"
PARTITIONS = 4
HOUR = 490_000


def record(text: str) -> bytes:
    return pb.Record(type="pmp.Test", payload=text.encode()).SerializeToString()


async def _nothing() -> int:
    return 0


class Make(Protocol):
    def __call__(
        self, log: StreamLog, used_bytes: Callable[[], Any] = _nothing, *, linger: float = 0.002, disk: LogDisk | None = None
    ) -> Appender: ...


@pytest.fixture
async def sessions(tmp_path: Path) -> AsyncIterator[Sessions]:
    async with open_database(f"sqlite+aiosqlite:///{tmp_path}/account.db") as database:
        async with database.engine.begin() as connection:
            await connection.run_sync(log_counters.metadata.create_all)
        yield database.sessions


@pytest.fixture
def appender(sessions: Sessions) -> Make:
    def make(log: StreamLog, used_bytes: Callable[[], Any] = _nothing, *, linger: float = 0.002, disk: LogDisk | None = None) -> Appender:
        account = Account(sessions, TOPIC)
        return Appender(
            log,
            TOPIC,
            PARTITIONS,
            account,
            max_bytes=1000,
            used_bytes=used_bytes,
            disk=disk,
            linger=linger,
            clock=lambda: HOUR * 3600.0,
        )

    return make


@asynccontextmanager
async def appending(appender: Appender) -> AsyncGenerator[Appender]:
    async with running(appender.run()):
        yield appender


async def payloads(log: StreamLog) -> list[str]:
    """Everything in the log, partition by partition."""
    found: list[str] = []
    for partition in range(PARTITIONS):
        for entry in await log.read(TOPIC, partition, START, limit=1000, block_ms=0):
            found.extend(each.payload.decode() for each in pb.Pack.FromString(entry.pack).records)
    return found


async def counted(log: StreamLog) -> dict[str, int]:
    total: dict[str, int] = {}
    for partition in range(PARTITIONS):
        for (name, hour), count in (await log.counters(TOPIC, partition)).counts.items():
            assert hour == HOUR
            total[name] = total.get(name, 0) + count
    return total


def memory(pause: Callable[[str], Any] | None = None) -> MemoryLog:
    server = MemoryRedis(lambda: 1000)
    return MemoryLog(server, pause=pause) if pause else MemoryLog(server)


async def test_many_appends_at_once_share_few_round_trips(log: RedisLog, appender: Make) -> None:
    async with appending(appender(log)) as intake:
        await asyncio.gather(*(intake.append([(f"user-{n}", record(f"event-{n}"))]) for n in range(500)))
    assert sorted(await payloads(log)) == sorted(f"event-{n}" for n in range(500))
    assert await counted(log) == {"received": 500}
    entries = [len(await log.read(TOPIC, partition, START, limit=1000, block_ms=0)) for partition in range(PARTITIONS)]
    assert sum(entries) <= 3 * PARTITIONS


async def test_events_of_one_key_keep_their_order(log: RedisLog, appender: Make) -> None:
    async with appending(appender(log)) as intake:
        for n in range(0, 30, 3):
            await intake.append([("user", record(f"{n + place:02}")) for place in range(3)])
    assert await payloads(log) == [f"{n:02}" for n in range(30)]


async def test_a_caller_that_goes_away_does_not_end_its_group(log: RedisLog, appender: Make) -> None:
    async with appending(appender(log)) as intake:
        calls = [asyncio.create_task(intake.append([(f"user-{n}", record(f"event-{n}"))])) for n in range(10)]
        await asyncio.sleep(0)
        calls[3].cancel()
        await asyncio.wait(calls)
    assert calls[3].cancelled()
    assert [call.exception() for call in calls if call is not calls[3]] == [None] * 9
    assert len(await payloads(log)) == 10


async def test_rejected_events_are_counted_and_not_kept(log: RedisLog, appender: Make) -> None:
    async with appending(appender(log)) as intake:
        await intake.append([], rejected=2)
        await intake.append([("user", record("good"))], rejected=3)
    assert await counted(log) == {"received": 6, "rejected": 5}
    assert await payloads(log) == ["good"]


async def test_traces_and_types_ride_along(log: RedisLog, appender: Make) -> None:
    sent = pb.Record(type="pmp.Test", payload=b"x", traceparent="00-" + "a" * 32 + "-" + "b" * 16 + "-01")
    async with appending(appender(log)) as intake:
        await intake.append([("user", sent.SerializeToString())])
    [entry] = [e for p in range(PARTITIONS) for e in await log.read(TOPIC, p, START, limit=9, block_ms=0)]
    assert list(pb.Pack.FromString(entry.pack).records) == [sent]
    assert (entry.messages, entry.hour) == (1, HOUR)


def test_a_pack_holds_at_most_512_kib() -> None:
    records = [pb.Record(type="pmp.Test", payload=bytes(100_000)) for _ in range(13)]
    made = packs([each.SerializeToString() for each in records])
    assert sum(count for _, count in made) == 13
    assert all(len(pack) <= PACK_BYTES for pack, _ in made)
    assert [count for _, count in made] == [5, 5, 3]
    assert [each for pack, _ in made for each in pb.Pack.FromString(pack).records] == records


def test_many_small_messages_still_fit_a_pack() -> None:
    made = packs([pb.Record(type="t", payload=b"").SerializeToString()] * 40_000)
    assert all(len(pack) <= PACK_BYTES for pack, _ in made)
    assert sum(count for _, count in made) == 40_000


async def test_a_group_that_is_too_big_is_split_and_nobody_is_forgotten(appender: Make) -> None:
    log = memory()
    intake = appender(log)
    big = pb.Record(type="t", payload=bytes(1_500_000)).SerializeToString()
    calls = [asyncio.create_task(intake.append([("user", big)])) for _ in range(3)]
    await asyncio.sleep(0)
    for steps in range(1, 4):
        await intake.step()
        await asyncio.sleep(0)
        assert sum(call.done() for call in calls) == steps
    await asyncio.gather(*calls)


async def test_a_full_log_is_said_at_once_and_takes_again_later(log: RedisLog, appender: Make) -> None:
    used = 2000

    async def used_bytes() -> int:
        return used

    intake = appender(log, used_bytes)
    async with appending(intake):
        await asyncio.sleep(0.05)
        with pytest.raises(LogFull, match="the log is full; try again later"):
            await intake.append([("user", record("refused"))])
        await intake.append([], rejected=1)
        used = 10
        for _ in range(40):
            await asyncio.sleep(0.05)
            with suppress(LogFull):
                await intake.append([("user", record("taken"))])
                break
    assert await payloads(log) == ["taken"]
    assert await counted(log) == {"received": 2, "rejected": 1}


async def test_a_log_whose_disk_is_nearly_full_takes_nothing_and_can_be_read(appender: Make, log: RedisLog, tmp_path: Path) -> None:
    """Redis ends on a full disk: what it holds has to be processed before."""
    async with appending(appender(log, disk=LogDisk(tmp_path, 0))) as intake:
        await intake.append([("user", record("first"))])
    async with appending(appender(log, disk=LogDisk(tmp_path, 2**62))) as intake:
        await asyncio.sleep(0.1)
        with pytest.raises(LogFull, match="the disk of the log is nearly full; try again later"):
            await intake.append([("user", record("second"))])
        assert await payloads(log) == ["first"]


async def test_a_redis_without_memory_is_a_full_log(appender: Make) -> None:
    log = memory()
    log.server.max_bytes = 0
    intake = appender(log)
    call = asyncio.create_task(intake.append([("user", record("refused"))]))
    await asyncio.sleep(0)
    await intake.step()
    with pytest.raises(LogFull):
        await call
    assert await payloads(log) == []


async def test_without_redis_the_caller_is_asked_to_try_again(tmp_path: Path, appender: Make) -> None:
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        async with open_log(server.url) as log, appending(appender(log)) as intake:
            await intake.append([("user", record("before"))])
            server.kill()
            with pytest.raises(Unavailable, match="try again with the same id"):
                await intake.append([("user", record("lost"))])
            server.start()
            await intake.append([("user", record("after"))])
        async with open_log(server.url) as log:
            assert await payloads(log) == ["before", "after"]
    finally:
        server.kill()


async def test_a_redis_that_hangs_is_waited_for_ten_seconds(tmp_path: Path, appender: Make) -> None:
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        async with open_log(server.url) as log, appending(appender(log)) as intake:
            await intake.append([("user", record("before"))])
            server.hang()
            async with asyncio.timeout(30):
                with pytest.raises(Unavailable, match="try again with the same id"):
                    await intake.append([("user", record("lost")), ("another", record("too"))])
    finally:
        server.kill()


async def test_while_the_database_is_away_a_new_connection_takes_nothing(appender: Make) -> None:
    async def floors() -> Any:
        raise OperationalError("SELECT", {}, ConnectionRefusedError())

    log = MemoryLog(MemoryRedis(lambda: 1000), floors=floors)
    intake = appender(log)
    call = asyncio.create_task(intake.append([("user", record("refused"))]))
    await asyncio.sleep(0)
    await intake.step()
    with pytest.raises(Unavailable):
        await call


async def test_a_request_of_which_one_partition_failed_failed(appender: Make) -> None:
    async def pause(point: str) -> None:
        if point == "append to 1":
            raise ConnectionResetError

    log = memory(pause)
    intake = appender(log)
    keys = {partition: key for key in map(str, range(100)) for partition in [partition_of(key, PARTITIONS)]}
    both = asyncio.create_task(intake.append([(keys[0], record("a")), (keys[1], record("b"))]))
    await asyncio.sleep(0)
    await intake.step()
    with pytest.raises(Unavailable):
        await both


async def test_callers_that_wait_at_the_end_get_an_error(log: RedisLog, appender: Make) -> None:
    intake = appender(log, linger=30)
    async with appending(intake):
        call = asyncio.create_task(intake.append([("user", record("late"))]))
        await asyncio.sleep(0.01)
    with pytest.raises(Unavailable, match="the service is shutting down"):
        await call


async def test_a_group_under_way_is_finished_before_the_end(appender: Make) -> None:
    entered, go_on = asyncio.Event(), asyncio.Event()

    async def pause(point: str) -> None:
        if point == "append done":
            entered.set()
            await go_on.wait()

    intake = appender(memory(pause))
    run = asyncio.create_task(intake.run())
    call = asyncio.create_task(intake.append([("user", record("under way"))]))
    await entered.wait()
    run.cancel()
    await asyncio.sleep(0)
    go_on.set()
    await call
    with pytest.raises(asyncio.CancelledError):
        await run
