"""Receives the spans that the processes of a mesh export."""

from __future__ import annotations

from collections.abc import Generator
from concurrent import futures
from contextlib import contextmanager
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Stores the spans as (service, name, trace, span, parent) and as text."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, str, bytes, bytes, bytes]] = []
        self.text = ""

    def Export(self, request: ExportTraceServiceRequest, context: object) -> ExportTraceServiceResponse:  # noqa: ARG002 (as the service has it)
        self.text += str(request)
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                self.spans.extend((service, span.name, span.trace_id, span.span_id, span.parent_span_id) for span in scope.spans)
        return ExportTraceServiceResponse()


@contextmanager
def receiving() -> Generator[tuple[Receiver, dict[str, str]]]:
    """A receiver, and the environment for a mesh that exports to it."""
    received = Receiver()
    server: Any = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(received, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield received, {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}", "OTEL_BSP_SCHEDULE_DELAY": "200"}
    finally:
        server.stop(None).wait()
