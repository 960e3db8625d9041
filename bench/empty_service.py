"""A service that does nothing: ingestion's contract, answered at once. `python -m bench.empty_service HOST:PORT`.

What the mesh is measured against: grpc.aio under uvloop, without interceptors and without a log. It reads JSON, but
makes no events of it.
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from typing import Any, TypeAlias, cast

import grpc
import orjson
import uvloop
from grpc_health.v1 import health, health_pb2_grpc
from grpc_health.v1.health_pb2 import HealthCheckResponse
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceServicer, add_IngestionServiceServicer_to_server
from typing_extensions import override

_Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"


class EmptyServicer(IngestionServiceServicer):
    """Answers as the real service does when it accepts everything."""

    @override
    async def TrackEvent(self, request: pb.TrackEventRequest, context: _Context) -> pb.TrackEventResponse:
        event = orjson.loads(request.json_body.data)
        return pb.TrackEventResponse(success=True, event_id=event["id"])

    @override
    async def TrackEvents(self, request: pb.TrackEventsRequest, context: _Context) -> pb.TrackEventsResponse:
        events = orjson.loads(request.json_body.data)["events"]
        verdicts = [pb.EventVerdict(success=True, event_id=event["id"]) for event in events]
        return pb.TrackEventsResponse(success=True, accepted=len(verdicts), results=verdicts)

    @override
    async def GetAccounting(self, request: pb.GetAccountingRequest, context: _Context) -> pb.GetAccountingResponse:
        return pb.GetAccountingResponse()

    @override
    async def ListEvents(self, request: pb.ListEventsRequest, context: _Context) -> AsyncIterator[pb.ListEventsResponse]:
        return
        yield


async def serve(address: str) -> None:
    """Serves until the process is ended."""
    server = grpc.aio.server()
    add_IngestionServiceServicer_to_server(EmptyServicer(), server)
    state: Any = cast("Any", health).aio.HealthServicer()  # its stubs lack the asyncio part
    await state.set("", HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(state, server)
    server.add_insecure_port(address)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    uvloop.run(serve(sys.argv[1]))
