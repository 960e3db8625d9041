"""Identity through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub, add_IdentityServiceServicer_to_server
from pmp.log.v1 import log_pb2

from kit.database import Database
from kit.interceptors import Boundary
from kit.log.redis_log import RedisLog
from kit.log.streams import START
from kit.outbox import Relay, StateTopic, prepare_heads
from kit.settings import Settings
from kit.vault import Vault
from services.identity.servicer import IdentityServicer
from tests.conftest import newest_database

PAYLOADS = Path(__file__).parent.parent / "payloads"


class Identity:
    """The service, and its feeds step by step."""

    def __init__(self, settings: Settings, database: Database, log: RedisLog, topic: StateTopic, channel: grpc.aio.Channel) -> None:
        self.database = database
        self.log = log
        self.topic = topic
        self.vault = Vault.from_settings(settings)
        self.partitions = settings.log_partitions
        self.token = settings.mesh_token.get_secret_value()
        self._stub: Any = IdentityServiceStub(channel)

    def _metadata(self, scope: str) -> tuple[tuple[str, str], ...]:
        return (("x-pmp-mesh-token", self.token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope), ("x-pmp-address", "198.51.100.9"))

    async def register(self, *, scope: str = "site", **user: Any) -> pb.RegisterUserResponse:
        return await self._stub.RegisterUser(ParseDict({"user": user}, pb.RegisterUserRequest()), metadata=self._metadata(scope))

    async def identify(self, *, scope: str = "site", **fields: Any) -> pb.IdentifyUserResponse:
        return await self._stub.IdentifyUser(ParseDict(fields, pb.IdentifyUserRequest()), metadata=self._metadata(scope))

    async def get(self, user_id: str, *, scope: str = "site") -> pb.User:
        return (await self._stub.GetUser(pb.GetUserRequest(id=user_id), metadata=self._metadata(scope))).user

    async def update(self, user_id: str, *, scope: str = "site", **user: Any) -> pb.User:
        request = ParseDict({"id": user_id, "user": user}, pb.UpdateUserRequest())
        return (await self._stub.UpdateUser(request, metadata=self._metadata(scope))).user

    async def merge(self, user_id: str, merged: str, *, scope: str = "admin", reason: str = "") -> pb.MergeUsersResponse:
        request = pb.MergeUsersRequest(id=user_id, merged_user_id=merged, reason=reason)
        return await self._stub.MergeUsers(request, metadata=self._metadata(scope))

    async def unmerge(self, user_id: str, merged: str, *, scope: str = "admin") -> pb.UnmergeUsersResponse:
        request = pb.UnmergeUsersRequest(id=user_id, merged_user_id=merged)
        return await self._stub.UnmergeUsers(request, metadata=self._metadata(scope))

    async def history(self) -> list[IdentityChanged]:
        metadata = (("x-pmp-mesh-token", self.token),)
        calls = [self._stub.ListIdentityChanges(pb.ListIdentityChangesRequest(partition=p), metadata=metadata) for p in range(self.partitions)]
        return [change for call in calls for answer in [each async for each in call] for change in answer.changes]

    async def relay(self) -> None:
        """Lets a new process publish what is committed."""
        relay = Relay(self.database.sessions, self.log, "identity", keep=timedelta(hours=1))
        for partition in range(self.partitions):
            while await relay.step(partition):
                pass

    async def published(self) -> list[IdentityChanged]:
        entries = [entry for p in range(self.partitions) for entry in await self.log.read("identity", p, START, limit=1000, block_ms=1)]
        records = [record for entry in entries for record in log_pb2.Pack.FromString(entry.pack).records]
        assert {record.type for record in records} <= {IdentityChanged.DESCRIPTOR.full_name}
        return [IdentityChanged.FromString(record.payload) for record in records]


@pytest.fixture
async def identity(settings: Settings, log: RedisLog) -> AsyncIterator[Identity]:
    async with newest_database(settings, "identity") as database:
        topic = StateTopic("identity", settings.log_partitions)
        await prepare_heads(database.sessions, "identity", settings.log_partitions)
        servicer = IdentityServicer(settings, database.sessions, topic, Vault.from_settings(settings))
        server = grpc.aio.server(interceptors=[Boundary(settings.mesh_token.get_secret_value())])
        add_IdentityServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Identity(settings, database, log, topic, channel)
        await server.stop(0)


def payload(method: str) -> dict[str, Any]:
    return json.loads((PAYLOADS / f"identity.{method}.json").read_text())


def refusal(error: grpc.aio.AioRpcError) -> dict[str, str]:
    """The violations of a refused request, by field."""
    metadata = dict(error.trailing_metadata() or ())
    bad = BadRequest()
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(bad)  # pyright: ignore[reportArgumentType]
    return {violation.field: violation.description for violation in bad.field_violations}


async def test_a_registration_is_kept_with_every_field(identity: Identity) -> None:
    answer = await identity.register(**payload("RegisterUser"))
    assert (answer.success, answer.created) == (True, True)
    user = await identity.get("42")
    told = ParseDict(payload("RegisterUser"), pb.Registration())
    assert user.user_id == answer.user_id
    for field in ("wordpress_id", "email", "first_name", "last_name", "registration_date", "preferences", "email_subscriptions"):
        assert getattr(user, field) == getattr(told, field), field
    assert user.utm_attribution == told.utm_parameters
    assert (user.user_type, user.lifetime_value, user.currency) == ("prospect", 0, "USD")
    assert user.created_at == user.updated_at
    links = {(link.kind, link.value): link for link in user.links}
    email = identity.vault.fingerprint("ada@example.org").hex()
    assert links.keys() == {("wordpress", "42"), ("email", email), ("session", "s-9f8e7d6c"), ("anonymous", "a-1b2c3d4e")}
    assert {link.evidence for link in user.links} == {"registration"}
    assert all(link.leads_here and link.linked_at == told.timestamp for link in user.links)


async def test_200_registrations_of_one_person_at_once_are_one_user(identity: Identity) -> None:
    both = {"wordpress_id": "7", "email": "Ada@example.org"}
    answers = await asyncio.gather(*(identity.register(**(both if n % 2 else {"email": "ada@Example.org"})) for n in range(200)))
    assert len({answer.user_id for answer in answers}) == 1
    assert sum(answer.created for answer in answers) == 1
    assert (await identity.get("7")).user_id == answers[0].user_id
    await identity.relay()
    assert {change.user.user_id for change in await identity.published() if change.HasField("user")} == {answers[0].user_id}
