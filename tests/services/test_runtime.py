"""A service is composed of what it has, and nothing is made of what it has not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub
from pmp.identity.v1 import identity_pb2
from pmp.privacy.v1.privacy_pb2 import EraseRequest
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceStub
from sqlalchemy import func, select

from kit.log.publish.state_topic import StateTopic
from kit.log.redis_log import RedisLog
from kit.log.tables import outbox_heads
from kit.people.persons import project_identity
from kit.server import Registration
from kit.service import ServiceRuntime, Subscription, open_runtime
from kit.settings import Settings
from services.purchases.personal import holdings
from tests.conftest import newest_database
from tests.servers import free_port

IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"listen": f"127.0.0.1:{free_port()}", "drain_delay_seconds": 0.0})


@asynccontextmanager
async def serving(
    runtime: ServiceRuntime, settings: Settings, subscriptions: Sequence[Subscription] = (), services: Sequence[Registration] = ()
) -> AsyncGenerator[grpc.aio.Channel]:
    """The service, from the moment at which it is healthy."""
    task = asyncio.create_task(runtime.serve(services, subscriptions))
    async with grpc.aio.insecure_channel(settings.listen) as channel:
        health: Any = HealthStub(channel)

        async def is_serving() -> bool:
            assert not task.done(), task.exception()
            with suppress(grpc.aio.AioRpcError):
                return (await health.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
            return False

        try:
            await eventually(is_serving)
            yield channel
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


async def eventually(holds: Callable[[], Awaitable[object]]) -> None:
    for _ in range(200):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError


async def names(log: RedisLog) -> set[str]:
    redis: Any = log.redis
    return {key.decode() async for key in redis.scan_iter()}


async def named(log: RedisLog, word: str) -> list[str]:
    return [name for name in await names(log) if word in name]


async def test_a_service_without_a_database_serves_and_leaves_nothing_in_the_log(settings: Settings, log: RedisLog) -> None:
    async with open_runtime(settings, "purchases", has_database=False) as runtime, serving(runtime, settings):
        with pytest.raises(LookupError, match="no database"):
            _ = runtime.sessions
        with pytest.raises(LookupError, match="no topic"):
            _ = runtime.topic
    assert await names(log) == set()


async def test_a_service_that_publishes_nothing_makes_no_topic_relay_or_lease_of_one(settings: Settings, log: RedisLog) -> None:
    async with (
        newest_database(settings, "purchases") as database,
        open_runtime(settings, "purchases", publishes=False) as runtime,
        serving(
            runtime,
            settings,
            [Subscription("identity", IDENTITY, project_identity)],
            [runtime.subject_data(holdings(runtime.keys.vault, "keep"))],
        ) as channel,
    ):
        await eventually(lambda: named(log, "identity"))
        assert not await named(log, "{purchases")
        assert not await named(log, "pmp:purchases:partitions")
        assert not await named(log, "relay")
        with pytest.raises(LookupError, match="no topic"):
            _ = runtime.relay
        stub: Any = SubjectDataServiceStub(channel)
        metadata = (("x-pmp-mesh-token", settings.mesh_token.get_secret_value()),)
        erased = await stub.Erase(EraseRequest(names=["user:nobody"], pseudonym=f"erased:{0:032}"), metadata=metadata)
        assert {place.topic for place in (*erased.read, *erased.written)} <= {"identity"}
        assert not any(table.rows for table in erased.tables)
        async with database.sessions() as session:
            assert await session.scalar(select(func.count()).select_from(outbox_heads)) == 0


async def test_a_service_that_publishes_makes_them(settings: Settings, log: RedisLog) -> None:
    async with (
        newest_database(settings, "purchases") as database,
        open_runtime(settings, "purchases") as runtime,
        serving(runtime, settings),
    ):
        assert isinstance(runtime.topic, StateTopic)
        await eventually(lambda: named(log, "relay"))
        assert "pmp:purchases:partitions" in await names(log)
        async with database.sessions() as session:
            assert await session.scalar(select(func.count()).select_from(outbox_heads)) == settings.log_partitions


async def test_a_subscription_needs_a_database(settings: Settings, log: RedisLog) -> None:
    async with open_runtime(settings, "purchases", has_database=False) as runtime:
        with pytest.raises(LookupError, match="no database"):
            await runtime.serve(subscriptions=[Subscription("identity", IDENTITY, project_identity)])
    assert await names(log) == set()
