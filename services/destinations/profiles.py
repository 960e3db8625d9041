"""Profiles of persons, from the service identity, and where they first came from, from analytics."""

from __future__ import annotations

import asyncio
from typing import Any, Final

import grpc
import grpc.aio
from pmp.analytics.v1.analytics_pb2 import GetFirstSourceRequest, GetFirstSourceResponse
from pmp.analytics.v1.analytics_pb2_grpc import AnalyticsServiceStub
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub

from kit.credentials.channels import open_channel
from kit.errors import Unavailable
from kit.settings import MeshSettings

_CALL_SECONDS: Final = 3.0
_MOST_AT_ONCE: Final = 16
"""Most calls in progress at once, for all destinations together."""


class Profiles:
    """Asks identity and analytics.

    Args:
        settings: the addresses of both, and the mesh's credential.
    """

    def __init__(self, settings: MeshSettings) -> None:
        self._settings = settings
        self._free = asyncio.Semaphore(_MOST_AT_ONCE)

    async def of(self, user_ids: frozenset[str]) -> dict[str, pb.User]:
        """Returns persons by the ids that were asked for; those that identity does not know are missing.

        Raises:
            Unavailable: identity does not answer.
        """
        async with open_channel(self._settings, "identity") as channel:
            stub: Any = IdentityServiceStub(channel)
            found = await asyncio.gather(*(self._user(stub, user_id) for user_id in user_ids))
        return {user_id: user for user_id, user in zip(user_ids, found, strict=True) if user is not None}

    async def first_sources(self, user_ids: frozenset[str]) -> dict[str, GetFirstSourceResponse]:
        """Returns where persons first came from, by the ids that were asked for.

        Raises:
            Unavailable: analytics does not answer.
        """
        async with open_channel(self._settings, "analytics") as channel:
            stub: Any = AnalyticsServiceStub(channel)
            found = await asyncio.gather(*(self._first_source(stub, user_id) for user_id in user_ids))
        return dict(zip(user_ids, found, strict=True))

    async def _first_source(self, stub: Any, user_id: str) -> GetFirstSourceResponse:
        async with self._free:
            try:
                request = GetFirstSourceRequest(user_id=user_id)
                return await stub.GetFirstSource(request, metadata=self._settings.mesh_metadata, timeout=_CALL_SECONDS)
            except grpc.aio.AioRpcError as error:
                raise Unavailable(f"analytics answers {error.code().name}: where a person came from is not known") from None

    async def _user(self, stub: Any, user_id: str) -> pb.User | None:
        async with self._free:
            try:
                answer: pb.GetUserResponse = await stub.GetUser(
                    pb.GetUserRequest(id=user_id), metadata=self._settings.mesh_metadata, timeout=_CALL_SECONDS
                )
            except grpc.aio.AioRpcError as error:
                if error.code() is grpc.StatusCode.NOT_FOUND:
                    return None
                raise Unavailable(f"identity answers {error.code().name}: a person's profile is not known") from None
        return answer.user
