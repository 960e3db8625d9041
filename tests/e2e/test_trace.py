"""One event's way through the mesh is one trace, seen in the spans that the processes really export."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent import futures
from datetime import UTC, datetime
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse

from tests.e2e.mesh import running
from tests.servers import until

PERSONAL = ("ada@example.org", "203.0.113.77", "visitor-42", "secret-session")


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps what it is sent, as (service, name, trace, span, parent) and as text."""

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


@pytest.fixture
def receiver() -> Iterator[tuple[Receiver, str]]:
    received = Receiver()
    server: Any = grpc.server(futures.ThreadPoolExecutor(2))
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(received, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield received, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_one_event_is_one_trace_from_the_gateway_to_the_topic(
    receiver: tuple[Receiver, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    received, endpoint = receiver
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "200"}
    with running(tmp_path_factory.mktemp("traced"), environment=environment) as mesh:
        event = {
            "event_type": "page_view",
            "timestamp": datetime.now(UTC).isoformat(),
            "email": "ada@example.org",
            "ip_address": "203.0.113.77",
            "user_id": "visitor-42",
            "session_id": "secret-session",
            "page_url": "https://shop.example/?email=ada@example.org",
        }
        headers = {**mesh.credentials("site", "visitor-42"), "traceparent": f"00-{trace}-00f067aa0ba902b7-01"}
        assert mesh.client.post(f"{mesh.url}/api/v1/events/track", headers=headers, json=event).status_code == 200

        def found() -> set[str]:
            return {name for _, name, of, _, _ in received.spans if of.hex() == trace}

        def services() -> set[str]:
            return {service for service, _, of, _, _ in received.spans if of.hex() == trace}

        until(lambda: {"log append", "log consume", "outbox publish"} <= found() and any("INSERT" in name.upper() for name in found()), 30)

        def whole() -> bool:
            own = [span for span in received.spans if span[2].hex() == trace]
            known = {span[3] for span in own}
            return {span[4] for span in own} - known == {bytes.fromhex("00f067aa0ba902b7")}

        # Those that follow the topic go on in the same trace.
        until(lambda: services() == {"gateway", "ingestion", "ingestion-worker", "identity", "journeys"}, 30)
        # Every span hangs on another one of the trace, and the first on the caller's.
        until(whole, 30)
        assert any("TrackEvent" in name for name in found()), found()
        logs = "".join(path.read_text(errors="replace") for path in (mesh.data / "logs").iterdir())
    for personal in PERSONAL:
        assert personal not in received.text
        assert personal not in logs
