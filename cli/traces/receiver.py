"""Receives the spans of a local mesh and keeps them in files: `python -m cli.traces.receiver FOLDER HOST:PORT`."""

from __future__ import annotations

import asyncio
import signal
import sys
from pathlib import Path
from typing import Any, Final, cast

import grpc.aio
from grpc_health.v1 import health, health_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from typing_extensions import override

from cli.traces.files import SpanFiles, line_of

_GRACE_SECONDS: Final = 1.0


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Appends every export to the files."""

    def __init__(self, files: SpanFiles) -> None:
        self._files = files

    @override
    async def Export(self, request: ExportTraceServiceRequest, context: Any) -> ExportTraceServiceResponse:
        """Keeps spans; while the disk is full they are refused."""
        try:
            self._files.append(line_of(request))
        except OSError as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, f"the spans can't be written: {error.strerror}")
        return ExportTraceServiceResponse()


async def receive(folder: Path, address: str) -> None:
    """Receives until SIGTERM."""
    server = grpc.aio.server()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(Receiver(SpanFiles(folder)), server)
    health_pb2_grpc.add_HealthServicer_to_server(cast("Any", health).aio.HealthServicer(), server)
    server.add_insecure_port(address)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await server.start()
    await stop.wait()
    await server.stop(_GRACE_SECONDS)


if __name__ == "__main__":
    asyncio.run(receive(Path(sys.argv[1]), sys.argv[2]))
