"""A topic whose newest messages are its history: a late reader knows the same as those that were there."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta

import grpc.aio
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1 import identity_pb2
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from pydantic import SecretStr
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.boundary import Boundary
from kit.boundary.caller import Context
from kit.database.engine import Database
from kit.database.transactions import Sessions
from kit.log.consume.consumer import Consumer
from kit.log.consume.history import remote_history
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.redis_log import RedisLog
from kit.log.streams import Delivery, Offset
from kit.settings import Settings

PARTITIONS = 2
HISTORY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


def link(name: str, user: str, seconds: int) -> tuple[str, IdentityChanged]:
    """The newest link of a name, and its key."""
    subject = f"session:{name}"
    return subject, IdentityChanged(alias=AliasChanged(subject=subject, user_id=user, linked_at=Timestamp(seconds=seconds)))


async def commit(sessions: Sessions, topic: StateTopic, *changes: tuple[str, IdentityChanged]) -> None:
    async with sessions.begin() as session:
        await topic.publish(session, changes)


class Reader:
    """A consumer that remembers the newest link of each name."""

    def __init__(self) -> None:
        self.known: dict[str, str] = {}
        self.messages = 0

    async def __call__(self, _session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        for delivery in deliveries:
            changed = IdentityChanged.FromString(delivery.record.payload).alias
            self.known[changed.subject] = changed.user_id
            self.messages += 1


class HistoryServicer(IdentityServiceServicer):
    """Streams the topic's history as a service does."""

    def __init__(self, sessions: Sessions, topic: StateTopic) -> None:
        self._sessions = sessions
        self._topic = topic

    @override
    async def ListIdentityChanges(
        self, request: identity_pb2.ListIdentityChangesRequest, context: Context
    ) -> AsyncIterator[identity_pb2.ListIdentityChangesResponse]:
        async for offset, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            changes = [IdentityChanged.FromString(payload) for payload in payloads]
            yield identity_pb2.ListIdentityChangesResponse(position=offset, changes=changes)


@asynccontextmanager
async def serving(settings: Settings, sessions: Sessions, topic: StateTopic) -> AsyncGenerator[str]:
    """Address of a publisher."""
    server = grpc.aio.server(interceptors=[Boundary(lambda: settings.mesh_tokens)])
    publisher = HistoryServicer(sessions, topic)  # pyright: ignore[reportAbstractUsage]  (it streams its history, and no more)
    add_IdentityServiceServicer_to_server(publisher, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield f"127.0.0.1:{port}"
    await server.stop(0)


async def publish(database: Database, log: RedisLog) -> None:
    relay = Relay(database.sessions, log, "identity", keep=timedelta(hours=1))
    for partition in range(PARTITIONS):
        while await relay.step(partition):
            pass


async def test_the_history_is_the_newest_message_of_each_key(ingestion_database: Database) -> None:
    topic = StateTopic("identity", 1)
    await commit(ingestion_database.sessions, topic, link("a", "u1", 1), link("b", "u1", 1), link("a", "u2", 2))
    await commit(ingestion_database.sessions, topic, link("c", "u1", 3), link("b", "u3", 3))
    found = [
        (offset, [IdentityChanged.FromString(payload).alias.user_id for payload in payloads])
        async for offset, payloads in topic.history(ingestion_database.sessions, 0, 0)
    ]
    assert found == [(1, ["u2"]), (2, ["u1", "u3"])]
    assert [offset async for offset, _ in topic.history(ingestion_database.sessions, 0, 1)] == [2]
    assert [offset async for offset, _ in topic.history(ingestion_database.sessions, 0, 2)] == []


async def test_a_long_history_is_read_page_by_page(ingestion_database: Database) -> None:
    topic = StateTopic("identity", 1)
    for start in range(0, 1200, 300):
        await commit(ingestion_database.sessions, topic, *(link(f"{number}", "u", number) for number in range(start, start + 300)))
    pages = [len(payloads) async for _, payloads in topic.history(ingestion_database.sessions, 0, 0)]
    assert pages == [128, 128, 44] * 4


async def test_who_comes_late_knows_what_the_others_know(settings: Settings, ingestion_database: Database, log: RedisLog) -> None:
    sessions, topic = ingestion_database.sessions, StateTopic("identity", PARTITIONS)
    await prepare_heads(sessions, "identity", PARTITIONS)
    truth: dict[str, str] = {}
    for number in range(60):
        name, user = f"s{number % 23}", f"u{number}"
        await commit(sessions, topic, link(name, user, number))
        truth[f"session:{name}"] = user
    await publish(ingestion_database, log)
    for partition in range(PARTITIONS):
        head = await log.head("identity", partition)
        await log.trim("identity", partition, Offset(head.ms - 3, 0))
    late = Reader()
    async with serving(settings, sessions, topic) as address:
        history = remote_history(settings.model_copy(update={"service_address": address}), HISTORY)
        consumer = Consumer(sessions, log, "identity", late, history=history)
        for partition in range(PARTITIONS):
            while await consumer.step(partition):
                pass
    assert late.known == truth
    assert late.messages < 60, "the history leaves out what was overtaken"


async def test_a_publisher_that_is_down_is_waited_for(settings: Settings, ingestion_database: Database, log: RedisLog) -> None:
    sessions, topic = ingestion_database.sessions, StateTopic("identity", 1)
    for number in range(5):
        await commit(sessions, topic, link(f"s{number}", "u", number))
    await publish(ingestion_database, log)
    await log.trim("identity", 0, Offset(4, 0))
    history = remote_history(settings.model_copy(update={"service_address": "127.0.0.1:1"}), HISTORY)
    consumer = Consumer(sessions, log, "identity", Reader(), history=history)
    with pytest.raises(ConnectionError, match=r"^/pmp.identity.v1.IdentityService/ListIdentityChanges answers UNAVAILABLE$"):
        await consumer.step(0)


async def test_the_histories_of_others_are_not_for_everybody(settings: Settings, ingestion_database: Database) -> None:
    async with serving(settings, ingestion_database.sessions, StateTopic("identity", 1)) as address:
        others = settings.model_copy(update={"service_address": address, "mesh_token": SecretStr("not the mesh's own")})
        with pytest.raises(ConnectionError, match="UNAUTHENTICATED"):
            await remote_history(others, HISTORY)(0, 0)
