"""Streams of events on a real Redis: where they begin, how they continue, and that nothing is read while nobody listens."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import pytest
from pmp.ingestion.v1.event_pb2 import Event, EventStored
from pmp.log.v1 import log_pb2
from pmp.realtime.v1 import realtime_pb2 as pb
from pmp.realtime.v1.realtime_pb2_grpc import RealtimeServiceStub

from kit.log.redis_log import RedisLog
from kit.log.streams import Offset
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.realtime.composition import ROLE
from services.realtime.cursor import Partition, cursor_of
from services.realtime.topics import TOPICS
from tests.background import eventually
from tests.roles import serving, settings_for

PARTITIONS = 4


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """The service has no database; persons' keys have one."""
    return f"sqlite+aiosqlite:///{tmp_path}/{{service}}.db"


@pytest.fixture
def runtime(settings: Settings, resources: Resources) -> ServiceRuntime:
    return ROLE.compose(settings_for(ROLE, settings, realtime_streams_per_caller=100), resources)


@pytest.fixture
async def channel(runtime: ServiceRuntime) -> AsyncIterator[grpc.aio.Channel]:
    async with serving(runtime) as channel:
        yield channel


class Events:
    """Publishes the topic `events`, as its relay does."""

    def __init__(self, log: RedisLog) -> None:
        self._log = log
        self._heads = dict.fromkeys(range(PARTITIONS), 0)
        self.ids: list[str] = []

    async def publish(self, partition: int, *ids: str) -> None:
        """Publishes events in one entry."""
        records = [
            log_pb2.Record(type=EventStored.DESCRIPTOR.full_name, payload=EventStored(event=Event(id=each)).SerializeToString())
            for each in ids
        ]
        head = self._heads[partition]
        pack = (head + 1, log_pb2.Pack(records=records).SerializeToString(), len(records))
        assert await self._log.publish("events", partition, head=Offset(head, 0), packs=[pack])
        self._heads[partition] += 1
        self.ids += ids


@pytest.fixture
def events(log: RedisLog) -> Events:
    return Events(log)


def at(positions: Mapping[int, int]) -> str:
    """The cursor at these offsets of `events`, by partition."""
    offsets = {Partition(topic, number): 0 for topic in TOPICS for number in range(PARTITIONS)}
    return cursor_of(offsets | {Partition("events", number): offset for number, offset in positions.items()})


@asynccontextmanager
async def opened(channel: grpc.aio.Channel, settings: Settings, since: str = "") -> AsyncGenerator[Any]:
    """The responses of a stream."""
    stub: Any = RealtimeServiceStub(channel)
    caller = {"x-pmp-mesh-token": settings.mesh_token.get_secret_value(), "x-pmp-client": "shop", "x-pmp-scope": "read"}
    call = stub.StreamEvents(pb.StreamEventsRequest(since=since), metadata=tuple(caller.items()))
    try:
        yield aiter(call)
    finally:
        call.cancel()


def ids_of(response: pb.StreamEventsResponse) -> list[str]:
    return [message.event.id for message in response.messages]


async def read(responses: Any, number: int) -> tuple[list[str], str, bool]:
    """So many events, the cursor after them, and whether some before them were trimmed."""
    ids: list[str] = []
    cursor, trimmed = "", False
    async with asyncio.timeout(20):
        while len(ids) < number:
            response = await anext(responses)
            ids += ids_of(response)
            cursor, trimmed = response.cursor, trimmed or response.trimmed
    return ids, cursor, trimmed


async def test_a_stream_begins_with_what_comes_next(channel: grpc.aio.Channel, settings: Settings, events: Events) -> None:
    await events.publish(0, "before")
    async with opened(channel, settings) as responses:
        assert (await anext(responses)).cursor == at({0: 1})
        await events.publish(0, "after")
        assert await read(responses, 1) == (["after"], at({0: 2}), False)


async def test_a_stream_continues_after_its_cursor_in_every_partition(
    channel: grpc.aio.Channel, settings: Settings, events: Events
) -> None:
    for number in range(6):
        await events.publish(number % 2, f"{number}-a", f"{number}-b")
    async with opened(channel, settings, at({0: 1, 1: 2})) as responses:
        assert (await anext(responses)).cursor == at({0: 1, 1: 2})
        ids, cursor, trimmed = await read(responses, 6)
        assert sorted(ids) == ["2-a", "2-b", "4-a", "4-b", "5-a", "5-b"]
        assert (cursor, trimmed) == (at({0: 3, 1: 3}), False)
        await events.publish(3, "next")
        assert (await read(responses, 1))[0] == ["next"]


async def test_a_stream_says_that_what_it_asks_for_was_trimmed(
    channel: grpc.aio.Channel, settings: Settings, events: Events, log: RedisLog
) -> None:
    for number in range(6):
        await events.publish(0, f"{number}")
    await log.trim("events", 0, Offset(3, 0))
    async with opened(channel, settings, at({0: 1})) as responses:
        assert await read(responses, 3) == (["3", "4", "5"], at({0: 6}), True)
    async with opened(channel, settings, at({0: 3})) as responses:
        assert await read(responses, 3) == (["3", "4", "5"], at({0: 6}), False)


@pytest.mark.parametrize(
    ("since", "complaint"),
    [
        (at({0: 2}), "since lies after the newest message"),
        ("AA", "since is not the cursor"),
        ("A", "since is not the cursor"),
        ("äö", "since is not the cursor"),
        (cursor_of({Partition("events", 0): 1}), "since is not the cursor"),
    ],
    ids=["ahead", "version", "not base64", "not ASCII", "other partitions"],
)
async def test_what_is_no_cursor_of_this_log_is_refused(
    channel: grpc.aio.Channel, settings: Settings, events: Events, since: str, complaint: str
) -> None:
    await events.publish(0, "only")
    async with opened(channel, settings, since) as responses:
        with pytest.raises(grpc.aio.AioRpcError, match=complaint) as refused:
            await anext(responses)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_that_are_opened_again_and_again_meanwhile_miss_and_repeat_nothing(
    channel: grpc.aio.Channel, settings: Settings, events: Events
) -> None:
    async def publish() -> None:
        for number in range(400):
            await events.publish(number % PARTITIONS, *(f"{number}-{each}" for each in range(10)))
            await asyncio.sleep(0.005)

    async def follow(portion: int) -> list[str]:
        ids: list[str] = []
        cursor = at({})
        while len(ids) < 4000:
            async with opened(channel, settings, cursor) as responses:
                some, cursor, trimmed = await read(responses, min(portion, 4000 - len(ids)))
                assert not trimmed
                ids += some
            await asyncio.sleep(0.13)  # what was published meanwhile is in the topic alone
        return ids

    publishing = asyncio.create_task(publish())
    read_by = await asyncio.gather(*(follow(portion) for portion in (1, 7, 300, 900, 4000)))
    await publishing
    for ids in read_by:
        assert sorted(ids) == sorted(events.ids)


async def reads(log: RedisLog) -> int:
    """How often the log was read."""
    redis: Any = log.redis
    return (await redis.info("commandstats")).get("cmdstat_xread", {}).get("calls", 0)


async def test_readers_that_come_back_together_share_what_is_read(
    channel: grpc.aio.Channel, settings: Settings, events: Events, log: RedisLog
) -> None:
    for number in range(60):
        await events.publish(number % PARTITIONS, *(f"{number}-{each}" for each in range(50)))
    before = await reads(log)

    async def follow() -> list[str]:
        async with opened(channel, settings, at({0: 1})) as responses:
            return (await read(responses, 2950))[0]

    for ids in await asyncio.gather(*(follow() for _ in range(40))):
        assert sorted(ids) == sorted(events.ids[50:])
    assert await reads(log) - before < 40


async def are_reading(log: RedisLog, connections: int) -> bool:
    """Whether so many connections of the log wait for messages."""
    redis: Any = log.redis
    return connections == sum(client["cmd"] == "xread" and "b" in client["flags"] for client in await redis.client_list())


async def test_nothing_is_read_while_nobody_listens(channel: grpc.aio.Channel, settings: Settings, events: Events, log: RedisLog) -> None:
    assert await are_reading(log, 0)
    async with opened(channel, settings) as one, opened(channel, settings) as other:
        await anext(one)
        await anext(other)
        await eventually(partial(are_reading, log, len(TOPICS)))
    await eventually(partial(are_reading, log, 0))
    await events.publish(0, "unheard")
    async with opened(channel, settings) as again:
        assert (await anext(again)).cursor == at({0: 1})
