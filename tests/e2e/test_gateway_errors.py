"""All errors are {code, message, details}, whichever component refuses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Generator, Iterator
from contextlib import contextmanager

import grpc
import httpx
import pytest
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from tests.gateway_probe.processes import API_KEYS, EVENT, Gateway, headers, running_gateway, running_probe
from tests.servers import free_port

BATCH = "/api/v1/events/batch"
TRACK = "/api/v1/events/track"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with running_probe(folder) as port, running_gateway(folder, port, PMP_GATEWAY_TIMEOUT_SECONDS="1") as gateway:
        yield gateway


@contextmanager
def a_service_that_hangs_up() -> Generator[int]:
    """A port that closes connections as soon as data arrives."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hang_up() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.recv(1)

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


@pytest.fixture(scope="module")
def without_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with running_gateway(tmp_path_factory.mktemp("down"), free_port()) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def with_broken_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    with a_service_that_hangs_up() as port, running_gateway(tmp_path_factory.mktemp("broken"), port) as gateway:
        yield gateway


def assert_error(response: httpx.Response, status: int, code: int) -> str:
    """The message of an error in the one shape."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == code
    assert isinstance(body["details"], list)
    assert body["message"]
    return body["message"]


def event_of(size: int) -> bytes:
    """An event with JSON of exactly this many bytes."""
    empty = json.dumps({**EVENT, "page_title": ""}).encode()
    return json.dumps({**EVENT, "page_title": "x" * (size - len(empty))}).encode()


@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/api/v2/events/track", "/api/v1/events/track/more", "/favicon.ico"])
def test_unknown_path_is_not_found(gateway: Gateway, path: str) -> None:
    assert_error(gateway.client.get(path, headers=headers()), 404, 5)


def test_unknown_path_needs_no_token(gateway: Gateway) -> None:
    assert_error(gateway.client.post("/api/v1/nothing", headers={"x-api-key": API_KEYS[0]}), 404, 5)


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "HEAD"])
def test_unknown_method_is_not_found(gateway: Gateway, method: str) -> None:
    assert gateway.client.request(method, TRACK, headers=headers()).status_code == 404


def test_rpc_path_takes_no_json(gateway: Gateway) -> None:
    assert_error(gateway.client.post("/pmp.ingestion.v1.IngestionService/TrackEvent", json=EVENT, headers=headers()), 404, 5)


def test_escaped_slash_is_part_of_a_name(gateway: Gateway) -> None:
    assert_error(gateway.client.post("/api/v1/events%2Ftrack", json=EVENT, headers=headers()), 404, 5)


@pytest.mark.parametrize(
    ("body", "named"),
    [
        (b'{"timestamp": ', "not JSON"),
        (b"not json", "not JSON"),
        (b'{"timestamp": "yesterday"}', "timestamp"),
        (b'{"event_type": 7}', "event_type"),
        (b'{"event_type": {"a": 1}}', "event_type"),
        (b"[1]", "object"),
    ],
)
def test_malformed_body_is_refused_with_the_reason(gateway: Gateway, body: bytes, named: str) -> None:
    assert named in assert_error(gateway.client.post(TRACK, content=body, headers=headers()), 400, 3)


def test_unknown_query_parameter_is_named(gateway: Gateway) -> None:
    response = gateway.client.get("/api/v1/events/accounting?form=2026-11-22T10:00:00Z", headers=headers("read"))
    assert "form" in assert_error(response, 400, 3)


def test_a_refusal_is_worded_without_an_error_of_the_script(gateway: Gateway) -> None:
    answer = gateway.client.post(f"{TRACK}?strict=perhaps", json=EVENT, headers=headers())
    assert (answer.status_code, answer.json()["message"]) == (400, "strict: expected true or false")
    assert len(answer.content) == int(answer.headers["content-length"])
    assert "[lua]" not in gateway.log.read_text()


def test_a_header_whose_name_grpc_does_not_allow_is_left_out(gateway: Gateway) -> None:
    for name in ("a!b", "x#", "$&'*+^`|~%"):
        answer = gateway.client.post(TRACK, json=EVENT, headers={**headers(), name: "x"})
        assert answer.status_code == 200, answer.text
        assert name not in json.loads(answer.json()["event_id"])


def test_body_up_to_the_bound_of_its_rpc_passes(gateway: Gateway) -> None:
    assert gateway.client.post(TRACK, content=event_of(32_768), headers=headers()).status_code == 200


@pytest.mark.parametrize("path", [TRACK, f"{TRACK}/", "/api/v1/./events/track"])
def test_body_over_the_bound_of_its_rpc_is_too_large(gateway: Gateway, path: str) -> None:
    assert_error(gateway.client.post(path, content=event_of(32_769), headers=headers()), 413, 3)


def test_body_of_unknown_length_is_measured_too(gateway: Gateway) -> None:
    def chunks() -> Iterator[bytes]:
        body = event_of(32_769)
        yield body[:1000]
        yield body[1000:]

    assert_error(gateway.client.post(TRACK, content=chunks(), headers=headers()), 413, 3)


def test_batch_takes_a_mebibyte(gateway: Gateway) -> None:
    body = b'{"events": [' + event_of(1_048_576 - 14) + b"]}"
    assert len(body) == 1_048_576
    assert gateway.client.post(BATCH, content=body, headers=headers()).json()["accepted"] == 1
    assert_error(gateway.client.post(BATCH, content=body + b" ", headers=headers()), 413, 3)


def test_headers_of_ten_thousand_bytes_are_too_large(gateway: Gateway) -> None:
    assert_error(gateway.client.post(TRACK, json=EVENT, headers={**headers(), "x-large": "x" * 10_000}), 431, 3)


def test_answer_of_two_megabytes_arrives(gateway: Gateway) -> None:
    assert len(gateway.track({**EVENT, "event_type": "large"}).json()["event_id"]) == 2_000_000


@pytest.mark.parametrize(
    ("kind", "status", "code"),
    [("exhausted", 429, 8), ("internal", 500, 13), ("missing", 404, 5), ("unavailable", 503, 14)],
)
def test_status_of_the_service_becomes_one_of_http(gateway: Gateway, kind: str, status: int, code: int) -> None:
    response = gateway.track({**EVENT, "event_type": f"fail.{kind}"})
    assert assert_error(response, status, code) == "attempt 1"
    assert response.headers["retry-after"] == "7"


def test_violations_arrive_as_details(gateway: Gateway) -> None:
    response = gateway.track({**EVENT, "event_type": "fail.invalid"})
    assert_error(response, 400, 3)
    (details,) = response.json()["details"]
    assert details["@type"] == "type.googleapis.com/google.rpc.BadRequest"
    assert details["field_violations"][0]["field"] == "timestamp"
    assert details["field_violations"][0]["description"] == "value is required"


def test_slow_service_is_a_gateway_timeout(gateway: Gateway) -> None:
    assert_error(gateway.track({**EVENT, "event_type": "slow"}), 504, 4)


def test_service_that_is_down_is_unavailable(without_service: Gateway) -> None:
    assert "127.0.0.1" not in assert_error(without_service.track(), 503, 14)


def test_service_that_hangs_up_is_unavailable(with_broken_service: Gateway) -> None:
    assert "reset" not in assert_error(with_broken_service.track(), 503, 14)


async def failure(gateway: Gateway, kind: str = "page_view", **more: str) -> grpc.aio.AioRpcError:
    """The error of a native call."""
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        request = pb.TrackEventRequest(event=event_pb2.Event(event_type=kind))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await IngestionServiceStub(channel).TrackEvent(request, metadata=tuple({**headers(), **more}.items()))
    return raised.value


async def test_native_caller_gets_the_status_of_the_service(gateway: Gateway) -> None:
    error = await failure(gateway, "fail.exhausted")
    assert (error.code(), error.details()) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "attempt 1")


async def test_native_caller_gets_a_message_that_a_service_is_down(without_service: Gateway) -> None:
    error = await failure(without_service)
    assert error.code() is grpc.StatusCode.UNAVAILABLE
    assert error.details() == "The service is not available, try again later"


async def test_native_caller_is_not_kept_waiting(gateway: Gateway) -> None:
    # The service knows the gateway's time limit: whichever of the two notices first ends the call.
    assert (await failure(gateway, "slow")).code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_internal_rpc_is_not_routed(gateway: Gateway) -> None:
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        stream = IngestionServiceStub(channel).ListEvents(pb.ListEventsRequest(), metadata=tuple(headers("admin").items()))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stream.read()
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED


@pytest.mark.parametrize("path", ["/grpc.health.v1.Health/Check", "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo"])
async def test_services_own_interfaces_are_not_routed(gateway: Gateway, path: str) -> None:
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await channel.unary_unary(path)(b"", metadata=tuple(headers("admin").items()))
    assert raised.value.code() is grpc.StatusCode.UNIMPLEMENTED
