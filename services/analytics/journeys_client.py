"""Attribution, from the service journeys: it knows the paths of persons, which figures by day do not."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import grpc.aio
from pmp.journeys.v1 import journeys_pb2 as pb
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub

from kit.credentials.channels import open_channel
from kit.errors import Unavailable
from kit.settings import Settings

_CALL_SECONDS: Final = 10.0


class JourneysClient:
    """Asks journeys.

    Args:
        settings: the address of journeys, and the mesh's credential.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def attribution(self, model: str, group_by: str, since: datetime, until: datetime) -> pb.GetAttributionResponse:
        """Returns the revenue of a period by source, medium or campaign.

        Raises:
            Unavailable: journeys does not answer.
        """
        request = pb.GetAttributionRequest(model=model, group_by=group_by)
        getattr(request, "from").FromDatetime(since)
        request.to.FromDatetime(until)
        try:
            async with open_channel(self._settings, "journeys") as channel:
                stub: Any = JourneysServiceStub(channel)
                return await stub.GetAttribution(request, metadata=self._settings.mesh_metadata, timeout=_CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"journeys answers {error.code().name}: attribution is not known") from None
