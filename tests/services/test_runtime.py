"""A service is composed of what it has, and nothing is made of what it has not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from functools import partial
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
from kit.people.subjects.data import SubjectData
from kit.people.subjects.servicer import SubjectDataServicer
from kit.server import serve
from kit.service.parts import Subscription
from kit.service.resources import Resources, open_resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.ingestion.composition import ROLE as INGESTION
from services.ingestion.worker import ROLE as WORKER
from services.purchases.composition import ROLE as PURCHASES
from services.purchases.personal import personal_tables
from tests.background import eventually
from tests.background import running as working
from tests.databases import newest_database
from tests.roles import settings_for
from tests.servers import free_port

IDENTITY = identity_pb2.DESCRIPTOR.services_by_name["IdentityService"].methods_by_name["ListIdentityChanges"]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"listen": f"127.0.0.1:{free_port()}", "drain_delay_seconds": 0.0})


@asynccontextmanager
async def running(runtime: ServiceRuntime) -> AsyncGenerator[grpc.aio.Channel]:
    """The service, from the moment at which it is healthy."""
    await runtime.prepare()
    async with (
        grpc.aio.insecure_channel(runtime.settings.listen) as channel,
        working(serve(runtime.settings, [runtime.part(runtime.service)])) as task,
    ):
        health: Any = HealthStub(channel)

        async def is_serving() -> bool:
            assert not task.done(), task.exception()
            with suppress(grpc.aio.AioRpcError):
                return (await health.Check(HealthCheckRequest())).status == HealthCheckResponse.SERVING
            return False

        await eventually(is_serving)
        yield channel


async def names(log: RedisLog) -> set[str]:
    redis: Any = log.redis
    return {key.decode() async for key in redis.scan_iter()}


async def named(log: RedisLog, word: str) -> list[str]:
    return [name for name in await names(log) if word in name]


async def test_a_service_without_a_database_serves_and_leaves_nothing_in_the_log(settings: Settings, resources: Resources) -> None:
    runtime = ServiceRuntime(settings, resources, "purchases", checks={"log": resources.log.check})
    async with running(runtime):
        with pytest.raises(LookupError, match="no database"):
            _ = runtime.sessions
        with pytest.raises(LookupError, match="no topic"):
            _ = runtime.topic
    assert await names(resources.log) == set()


async def test_a_service_that_publishes_nothing_makes_no_topic_relay_or_lease_of_one(settings: Settings, resources: Resources) -> None:
    log, database = resources.log, resources.database("purchases")
    data = SubjectData(database, resources.keys, None, personal_tables(resources.keys.hasher, "keep"))
    runtime = ServiceRuntime(
        settings,
        resources,
        "purchases",
        checks={"database": database.check},
        database=database,
        subject_data=SubjectDataServicer(data, database, log, None),
        subscriptions=[Subscription("identity", IDENTITY, project_identity)],
    )
    async with newest_database(settings, "purchases"), running(runtime) as channel:
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


async def test_a_service_that_publishes_makes_them(settings: Settings, resources: Resources) -> None:
    runtime = PURCHASES.compose(settings_for(PURCHASES, settings), resources)
    async with newest_database(settings, "purchases"), running(runtime):
        assert isinstance(runtime.topic, StateTopic)
        await eventually(lambda: named(resources.log, "relay"))
        assert "pmp:purchases:partitions" in await names(resources.log)
        async with runtime.sessions() as session:
            assert await session.scalar(select(func.count()).select_from(outbox_heads)) == settings.log_partitions


async def test_the_api_of_ingestion_has_a_database_and_neither_topic_nor_lease(settings: Settings, resources: Resources) -> None:
    runtime = INGESTION.compose(settings_for(INGESTION, settings), resources)
    async with newest_database(settings, "ingestion"), running(runtime):
        assert await names(resources.log) == {"pmp:intake:partitions"}
        async with runtime.sessions() as session:
            assert await session.scalar(select(func.count()).select_from(outbox_heads)) == 0
        for part in ("topic", "relay", "raw_log", "retention"):
            with pytest.raises(LookupError, match="this service has no"):
                getattr(runtime, part)


async def test_the_api_of_ingestion_is_healthy_while_its_database_is_down(settings: Settings, resources: Resources) -> None:
    down = settings.model_copy(update={"database_url": f"mysql+aiomysql://mesh:mesh@127.0.0.1:{free_port()}/{{service}}"})
    async with open_resources(down) as without_database, running(INGESTION.compose(settings_for(INGESTION, down), without_database)):
        assert await names(resources.log) == {"pmp:intake:partitions"}


async def test_the_worker_of_ingestion_has_no_rpcs_and_shares_the_raw_log_and_its_topic(settings: Settings, resources: Resources) -> None:
    runtime = WORKER.compose(settings_for(WORKER, settings), resources)
    async with newest_database(settings, "ingestion"), running(runtime):
        assert runtime.rpcs == ()
        for group in ("pmp:intake:ingestion", "pmp:events:relay", "pmp:gdpr:ingestion", "pmp:identity:ingestion"):
            await eventually(partial(named, resources.log, group))
        async with runtime.sessions() as session:
            assert await session.scalar(select(func.count()).select_from(outbox_heads)) == settings.log_partitions


async def test_two_roles_of_a_process_share_a_pool(settings: Settings, resources: Resources) -> None:
    api, worker = (role.compose(settings_for(role, settings), resources) for role in (INGESTION, WORKER))
    assert api.database is worker.database
    assert api.log is worker.log


async def test_a_subscription_needs_a_database(settings: Settings, resources: Resources) -> None:
    subscriptions = [Subscription("identity", IDENTITY, project_identity)]
    with pytest.raises(LookupError, match="no database"):
        ServiceRuntime(settings, resources, "purchases", checks={}, subscriptions=subscriptions)
    assert await names(resources.log) == set()
