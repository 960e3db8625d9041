"""Profiles of persons, from the service identity."""

from __future__ import annotations

from typing import Any, Final

import grpc
import grpc.aio
from pmp.identity.v1 import identity_pb2 as pb
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub

from kit.errors import Unavailable
from kit.settings import Settings

_CALL_SECONDS: Final = 3.0


class Profiles:
    """Asks identity.

    Args:
        settings: the address of identity, and the mesh's credential.
    """

    def __init__(self, settings: Settings) -> None:
        self._address = settings.address("identity")
        self._metadata = settings.mesh_metadata

    async def of(self, user_ids: frozenset[str]) -> dict[str, pb.User]:
        """Returns persons by the ids that were asked for; those that identity does not know are missing.

        Raises:
            Unavailable: identity does not answer.
        """
        found: dict[str, pb.User] = {}
        async with grpc.aio.insecure_channel(self._address) as channel:
            stub: Any = IdentityServiceStub(channel)
            for user_id in sorted(user_ids):
                try:
                    answer: pb.GetUserResponse = await stub.GetUser(
                        pb.GetUserRequest(id=user_id), metadata=self._metadata, timeout=_CALL_SECONDS
                    )
                except grpc.aio.AioRpcError as error:
                    if error.code() is grpc.StatusCode.NOT_FOUND:
                        continue
                    raise Unavailable(f"identity answers {error.code().name}: a person's profile is not known") from None
                found[user_id] = answer.user
        return found
