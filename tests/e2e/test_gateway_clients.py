"""Requests of unusual clients: the gateway serves them, or refuses them with a clear message that repeats none of their data."""

from __future__ import annotations

import gzip
import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse

import grpc
import pytest
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub
from pmp.purchases.v1.purchases_pb2 import ListPurchasesRequest

from tests.gateway_probe.everything import Everything, running_everything
from tests.gateway_probe.processes import API_KEYS, EVENT, Gateway, headers, running_gateway, running_probe, token

ACCOUNTING = "/api/v1/events/accounting"
BATCH = "/api/v1/events/batch"
TRACK = "/api/v1/events/track"
PERSON = "max@mustermann.example"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with running_probe(folder) as port, running_gateway(folder, port) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def purchases(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Gateway, Everything]]:
    with running_everything() as everything, running_gateway(tmp_path_factory.mktemp("purchases"), everything.port) as gateway:
        yield gateway, everything


def sent(gateway: Gateway, request_line: str, *more: str, body: bytes = b"") -> tuple[HTTPResponse, bytes]:
    """The answer to a raw request, which no HTTP library would send."""
    host, port = gateway.address.split(":")
    lines = [request_line, *(f"{name}: {value}" for name, value in headers().items()), f"content-length: {len(body)}", *more, "", ""]
    with socket.create_connection((host, int(port)), timeout=20) as connection:
        connection.sendall("\r\n".join(lines).encode("latin-1") + body)
        answer = HTTPResponse(connection)
        answer.begin()
        return answer, answer.read()


def assert_refused(answered: tuple[HTTPResponse, bytes], status: int, message: str) -> None:
    answer, body = answered
    assert answer.status == status
    assert answer.headers["content-type"] == "application/json"
    assert json.loads(body) == {"code": 3, "message": message, "details": []}


POST = f"POST {TRACK} HTTP/1.1"
UPGRADE = ("connection: upgrade", "upgrade: websocket", "sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==")


@pytest.mark.parametrize(
    ("request_line", "more", "status", "message"),
    [
        (POST, ["x_pmp_scope: admin"], 400, "A header has an underscore in its name, which is not taken: write `-`"),
        (POST, [f"x-{number}: a" for number in range(70)], 431, "There are more than 64 headers"),
        (POST, ["x-large: " + "x" * 9000], 431, "The headers are larger than 8 KiB"),
        (f"POST {TRACK}%00 HTTP/1.1", [], 400, "The path holds a character that is not allowed there, such as %00"),
        (f"POST {TRACK}\0 HTTP/1.1", [], 400, "The request line or a header holds a character that is not allowed there"),
        (f"GET {ACCOUNTING} HTTP/1.1", UPGRADE, 400, "This path does not take an upgrade of the connection, such as to WebSocket"),
        ("CONNECT shop.example:80 HTTP/1.1", [], 400, "This path does not take an upgrade of the connection, such as to WebSocket"),
        (POST, ["transfer-encoding: chunked"], 400, "The request has a content-length and is chunked, too"),
        ("NONSENSE", [], 400, "This is not HTTP as the gateway speaks it: HTTP/1.0, 1.1 or 2, without TLS"),
    ],
    ids=["underscore", "70 headers", "9000 bytes", "%00", "NUL", "WebSocket", "CONNECT", "two lengths", "no HTTP"],
)
def test_what_is_not_accepted_is_refused_with_a_clear_message(
    gateway: Gateway, request_line: str, more: list[str], status: int, message: str
) -> None:
    assert_refused(sent(gateway, request_line, "host: gateway", *more), status, message)


def test_a_request_without_a_host_is_refused_with_the_reason(gateway: Gateway) -> None:
    assert_refused(sent(gateway, POST), 400, "The request has no host header")


def test_an_old_proxy_speaks_http_1_0(gateway: Gateway) -> None:
    body = json.dumps(EVENT).encode()
    for host in (["host: gateway"], []):
        answer, _ = sent(gateway, f"POST {TRACK} HTTP/1.0", *host, body=body)
        assert (answer.status, answer.headers["connection"]) == (200, "close")


def seen_by_the_service(gateway: Gateway, **more: str) -> dict[str, str]:
    response = gateway.client.post(TRACK, json=EVENT, headers={**headers(), **more})
    assert response.status_code == 200, response.text
    return json.loads(response.json()["event_id"])


@pytest.mark.parametrize(
    ("name", "value"),
    [("grpc-timeout", "1n"), ("grpc-timeout", "x"), ("grpc-encoding", "x"), ("grpc-trace-bin", "%%%"), ("anything-bin", "%%%")],
)
def test_a_rest_caller_does_not_speak_grpc_to_the_service(gateway: Gateway, name: str, value: str) -> None:
    assert name not in seen_by_the_service(gateway, **{name: value})


@pytest.mark.parametrize(("name", "value"), [("grpc-timeout", "1n"), ("grpc-timeout", "x"), ("anything-bin", "%%%")])
def test_a_native_caller_breaks_no_call_in_the_service(gateway: Gateway, name: str, value: str) -> None:
    native = {**headers(), "content-type": "application/grpc", "te": "trailers", name: value}
    response = gateway.client.post("/pmp.ingestion.v1.IngestionService/TrackEvent", content=bytes(5), headers=native)
    assert "grpc-status" not in response.headers  # which is in the trailers of an answered call
    assert b"x-request-id" in response.content
    assert name.encode() not in response.content


@pytest.mark.parametrize("character", ["\r", "\n", "\0", "\x1b"], ids=["CR", "LF", "NUL", "ESC"])
async def test_a_control_character_in_a_claim_is_unauthenticated(gateway: Gateway, character: str) -> None:
    caller = {"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(user=f'4{character}2')}"}
    response = gateway.client.post(TRACK, json=EVENT, headers=caller)
    assert response.status_code == 401
    assert response.json() == {"code": 16, "message": "A claim of the token holds a control character", "details": []}
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        request = pb.TrackEventRequest(event=event_pb2.Event(event_type="page_view"))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await IngestionServiceStub(channel).TrackEvent(request, metadata=tuple(caller.items()))
    assert raised.value.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.parametrize("encoding", ["gzip", "br", "gzip, gzip"])
def test_an_encoded_body_is_refused_with_the_reason(gateway: Gateway, encoding: str) -> None:
    body = gzip.compress(json.dumps(EVENT).encode())
    response = gateway.client.post(TRACK, content=body, headers={**headers(), "content-encoding": encoding})
    assert response.status_code == 415
    assert response.json() == {"code": 3, "message": "The body has a content-encoding, such as gzip: send it without one", "details": []}


def test_a_body_may_say_that_it_has_no_encoding(gateway: Gateway) -> None:
    assert gateway.client.post(TRACK, json=EVENT, headers={**headers(), "content-encoding": "identity"}).status_code == 200


def event(**fields: object) -> str:
    return json.dumps({**EVENT, **fields})


TIME = "a time of RFC 3339 with its zone, such as 2026-11-22T10:00:00Z"


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (f"not json {PERSON}", "the body is not JSON"),
        (f'{{"user_id": {PERSON}}}', "the body is not JSON"),
        (f'{{"page_title": "a" "{PERSON}"}}', "the body is not JSON"),
        (event(timestamp=PERSON), "timestamp: is in no timestamp format: RFC 3339 with zone, or seconds or milliseconds since 1970"),
        (event(user_id={"a": PERSON}), "user_id: is not a text"),
        (f'"{PERSON}"', "is not an object"),
        (f'["{PERSON}"]', "is not an object"),
    ],
)
def test_a_refusal_names_the_field_and_the_rule_and_never_the_value(gateway: Gateway, body: str, message: str) -> None:
    response = gateway.client.post(TRACK, content=body, headers=headers())
    assert response.status_code == 400
    assert response.json() == {"code": 3, "message": message, "details": []}


@pytest.mark.parametrize(
    "body",
    [
        f'{{"metadata": {{"x": "\\ud800 {PERSON}"}}}}',
        '{"metadata":' + f'{{"{PERSON}":' * 200 + "1" + "}" * 201,
        event(timestamp=1764300000000),
        event(user_id=4711),
        event(metadata=PERSON),
        event(metadata=f'" for type {PERSON}'),
        event(metadata=[PERSON]),
        event(utm_parameters=PERSON),
        f'{{"metadata": {{"{PERSON}": 1, "{PERSON}": 2}}}}',
    ],
)
def test_what_can_not_be_read_of_a_body_reaches_the_service_and_is_not_repeated(gateway: Gateway, body: str) -> None:
    response = gateway.client.post(TRACK, content=body, headers=headers())
    assert response.status_code == 200
    assert PERSON not in response.text


def test_bytes_that_are_no_text_are_not_repeated(gateway: Gateway) -> None:
    response = gateway.client.post(TRACK, content=f'{{"metadata": "{PERSON}'.encode() + b'\xff"}', headers=headers())
    assert PERSON not in response.text


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"from={PERSON}", f"from: expected {TIME}"),
        (f"from.seconds={PERSON}", "from.seconds: expected a whole number"),
        ("form=2026-11-22T10:00:00Z", "there is no parameter form"),
        (f"{PERSON}=1", "there is no such parameter"),
    ],
)
def test_a_refused_query_is_not_repeated(gateway: Gateway, query: str, message: str) -> None:
    response = gateway.client.get(f"{ACCOUNTING}?{query}", headers=headers("read"))
    assert response.status_code == 400
    assert response.json() == {"code": 3, "message": message, "details": []}


@pytest.mark.parametrize(
    ("query", "product", "since"),
    [
        ("product_id=Exam+prep+7", "Exam prep 7", ""),
        ("product_id=Exam%20prep%2B7", "Exam prep+7", ""),
        ("from=2026-01-01T05:45:00+05:45", "", "2026-01-01T00:00:00Z"),
        ("from=2026-01-01T05:45:00.5+05:45", "", "2026-01-01T00:00:00.500Z"),
        ("from=2026-01-01T05%3A45%3A00+05%3A45", "", "2026-01-01T00:00:00Z"),
        ("from=2026-01-01T05:45:00%2B05:45&product_id=a+b", "a b", "2026-01-01T00:00:00Z"),
    ],
)
def test_a_plus_is_a_space_but_in_the_zone_of_a_time(purchases: tuple[Gateway, Everything], query: str, product: str, since: str) -> None:
    gateway, service = purchases
    response = gateway.client.get(f"/api/v1/purchases?{query}", headers=headers("admin"))
    assert response.status_code == 200, response.text
    asked = ListPurchasesRequest.FromString(service.requests["/pmp.purchases.v1.PurchasesService/ListPurchases"])
    since_time = asked.__getattribute__("from")  # a keyword of Python
    assert (asked.product_id, since_time.ToJsonString() if asked.HasField("from") else "") == (product, since)
