"""The service of the gateway under test: the contract of ingestion, answering with the metadata it received.

`python -m tests.gateway_probe.server PORT [CERTIFICATES]`. An accepted event's id in the answer is a JSON object of the request's
metadata, of how long its caller waits and of its certificate's serial number; the event's type chooses how the call ends.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC
from pathlib import Path

import grpc
from cryptography import x509
from google.protobuf.any_pb2 import Any
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceServicer, add_IngestionServiceServicer_to_server

from kit.boundary.items import ItemsReader
from kit.credentials.channels import listen_on
from kit.errors import InvalidRequest
from services.ingestion.reading import EventReader

Context = grpc.aio.ServicerContext[object, object]

SINGLE = EventReader(UTC)
SEVERAL = ItemsReader(pb.TrackEventsRequest.DESCRIPTOR, "events", UTC)
FAILURES = {
    "fail.exhausted": grpc.StatusCode.RESOURCE_EXHAUSTED,
    "fail.internal": grpc.StatusCode.INTERNAL,
    "fail.missing": grpc.StatusCode.NOT_FOUND,
    "fail.unavailable": grpc.StatusCode.UNAVAILABLE,
}


class Probe(IngestionServiceServicer):
    """Answers with the metadata it received, or fails as asked."""

    def __init__(self) -> None:
        self._attempts: Counter[str] = Counter()

    async def TrackEvent(self, request: pb.TrackEventRequest, context: Context) -> pb.TrackEventResponse:
        """Ends according to the event's type: `slow` never, `fail.*` with a status, `large` with 2 MB, anything else successfully."""
        metadata = {**_metadata(context), "time-remaining": f"{context.time_remaining()}", "peer-serial": _peer_serial(context)}
        try:
            violations = SINGLE.read(request).violations
        except InvalidRequest as error:
            violations = error.violations
        if violations:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(InvalidRequest(violations)))
        kind = request.event.event_type
        self._attempts[metadata["x-request-id"]] += 1
        if kind == "slow":
            await asyncio.sleep(60)
        if kind == "fail.invalid":
            await _refuse(context)
        if kind in FAILURES:
            attempt = self._attempts[metadata["x-request-id"]]
            await context.abort(FAILURES[kind], f"attempt {attempt}", (("retry-after", "7"),))
        return pb.TrackEventResponse(success=True, event_id="x" * 2_000_000 if kind == "large" else json.dumps(metadata))

    async def TrackEvents(self, request: pb.TrackEventsRequest, context: Context) -> pb.TrackEventsResponse:  # noqa: ARG002
        """Accepts every event."""
        SEVERAL.read(request)
        return pb.TrackEventsResponse(success=True, accepted=len(request.events))

    async def GetAccounting(self, request: pb.GetAccountingRequest, context: Context) -> pb.GetAccountingResponse:  # noqa: ARG002
        """Is unavailable at the first attempt; returns the number of attempts as `received`."""
        request_id = _metadata(context)["x-request-id"]
        self._attempts[request_id] += 1
        if self._attempts[request_id] == 1:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "the first attempt fails")
        return pb.GetAccountingResponse(total=pb.Account(received=self._attempts[request_id]))

    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> AsyncIterator[pb.ListEventsResponse]:  # noqa: ARG002
        """Answers, so that a gateway that routes it is detected."""
        yield pb.ListEventsResponse(position=1)


class Healthy(health_pb2_grpc.HealthServicer):
    """Serves."""

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:  # noqa: ARG002
        return health_pb2.HealthCheckResponse(status=health_pb2.HealthCheckResponse.SERVING)


def _metadata(context: Context) -> dict[str, str]:
    return {key: value if isinstance(value, str) else value.decode() for key, value in context.invocation_metadata() or ()}


def _peer_serial(context: Context) -> str:
    """The serial number of the caller's certificate; empty without one."""
    shown: dict[str, list[bytes]] = context.auth_context()  # pyright: ignore[reportAssignmentType]  (the stubs know other values)
    return "".join(str(x509.load_pem_x509_certificate(each).serial_number) for each in shown.get("x509_pem_cert", []))


async def _refuse(context: Context) -> None:
    violation = BadRequest.FieldViolation(field="timestamp", description="value is required")
    details = Any()
    details.Pack(BadRequest(field_violations=[violation]))
    status = Status(code=grpc.StatusCode.INVALID_ARGUMENT.value[0], message="timestamp: value is required", details=[details])
    trailers = (("grpc-status-details-bin", status.SerializeToString()),)
    await context.abort(grpc.StatusCode.INVALID_ARGUMENT, status.message, trailers)


async def serve(port: int, certificates: Path | None) -> None:
    """Serves until the process ends."""
    # With certificates connections end soon, so that those that change are seen.
    age = [("grpc.max_connection_age_ms", 500)] if certificates else []
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *age])
    add_IngestionServiceServicer_to_server(Probe(), server)
    health_pb2_grpc.add_HealthServicer_to_server(Healthy(), server)  # pyright: ignore[reportUnknownMemberType]
    listen_on(server, f"127.0.0.1:{port}", certificates)
    await server.start()
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(serve(int(sys.argv[1]), Path(sys.argv[2]) if sys.argv[2:] else None))
