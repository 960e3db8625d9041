"""Profiles are asked for several at once, so that those of a whole batch are there in time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import grpc
import grpc.aio
import pytest
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceServicer, add_IdentityServiceServicer_to_server
from pydantic import SecretStr
from typing_extensions import override

from kit.errors import Unavailable
from kit.settings import MeshSettings
from services.destinations.profiles import Profiles


class Identity(IdentityServiceServicer):
    """Knows everybody except `nobody`, and takes its time."""

    def __init__(self) -> None:
        self.fails = False
        self.asked = self.in_progress = self.most = 0

    @override
    async def GetUser(self, request: pb.GetUserRequest, context: Any) -> pb.GetUserResponse:
        self.asked, self.in_progress = self.asked + 1, self.in_progress + 1
        self.most = max(self.most, self.in_progress)
        try:
            await asyncio.sleep(0.02)
        finally:
            self.in_progress -= 1
        if self.fails:
            await context.abort(grpc.StatusCode.UNAVAILABLE)
        if request.id == "nobody":
            await context.abort(grpc.StatusCode.NOT_FOUND)
        return pb.GetUserResponse(user=pb.User(user_id=request.id))


@pytest.fixture
async def identity() -> AsyncGenerator[tuple[Identity, Profiles]]:
    double = Identity()  # pyright: ignore[reportAbstractUsage]  (the other rpcs are not called)
    server = grpc.aio.server()
    add_IdentityServiceServicer_to_server(double, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    settings = MeshSettings(mesh_token=SecretStr("the mesh's own"), service_addresses={"identity": f"127.0.0.1:{port}"})
    yield double, Profiles(settings)
    await server.stop(0)


async def test_sixteen_are_asked_for_at_once_over_all_destinations(identity: tuple[Identity, Profiles]) -> None:
    double, profiles = identity
    batches = [frozenset({f"u{batch}-{number}" for number in range(20)}) for batch in range(3)]
    found = await asyncio.gather(*(profiles.of(batch) for batch in batches))
    assert [{id_: user.user_id for id_, user in each.items()} for each in found] == [{id_: id_ for id_ in batch} for batch in batches]
    assert (double.asked, double.most) == (60, 16)


async def test_who_is_not_known_is_missing_and_who_can_not_be_asked_for_is_an_error(identity: tuple[Identity, Profiles]) -> None:
    double, profiles = identity
    assert (await profiles.of(frozenset({"u1", "nobody"}))).keys() == {"u1"}
    double.fails = True
    with pytest.raises(Unavailable, match="identity answers UNAVAILABLE: a person's profile is not known"):
        await profiles.of(frozenset({"u1", "u2"}))
