"""Which callers get through the gateway, and what services receive about them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator

import grpc
import httpx
import jwt
import pytest
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from tests.gateway_probe.processes import (
    API_KEYS,
    BROWSER_KEY,
    EVENT,
    JWT_SECRETS,
    MESH_TOKEN,
    Gateway,
    headers,
    running_gateway,
    running_probe,
    token,
)

ACCOUNTING = "/api/v1/events/accounting"
TRACK = "/api/v1/events/track"
SHOP = "https://shop.example"


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with running_probe(folder) as port, running_gateway(folder, port) as gateway:
        yield gateway


def seen_by_the_service(response: httpx.Response) -> dict[str, str]:
    assert response.status_code == 200, response.text
    return json.loads(response.json()["event_id"])


def assert_refused(response: httpx.Response, status: int, code: int) -> None:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    body = response.json()
    assert set(body) == {"code", "message", "details"}
    assert body["code"] == code
    assert body["message"]


def test_service_receives_the_caller(gateway: Gateway) -> None:
    seen = seen_by_the_service(gateway.track())
    received = {name: value for name, value in seen.items() if name.startswith("x-pmp-")}
    assert received == {
        "x-pmp-mesh-token": MESH_TOKEN,
        "x-pmp-client": "shop-of-the-tests",
        "x-pmp-scope": "track",
        "x-pmp-user": "42",
        "x-pmp-address": "127.0.0.1",
        "x-pmp-timeout": "15",
    }


def test_service_never_sees_key_and_token(gateway: Gateway) -> None:
    assert not {"x-api-key", "authorization"} & set(seen_by_the_service(gateway.track()))


def test_token_without_id_names_no_user(gateway: Gateway) -> None:
    response = gateway.client.post(TRACK, json=EVENT, headers={"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(user=None)}"})
    assert "x-pmp-user" not in seen_by_the_service(response)


def test_number_as_id_is_the_user(gateway: Gateway) -> None:
    response = gateway.client.post(TRACK, json=EVENT, headers={"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(user=4711)}"})
    assert seen_by_the_service(response)["x-pmp-user"] == "4711"


@pytest.mark.parametrize("key", API_KEYS)
@pytest.mark.parametrize("secret", JWT_SECRETS)
def test_old_and_new_credentials_are_valid_at_once(gateway: Gateway, key: str, secret: str) -> None:
    caller = {"x-api-key": key, "authorization": f"Bearer {token(secret=secret)}"}
    assert gateway.client.post(TRACK, json=EVENT, headers=caller).status_code == 200


@pytest.mark.parametrize("key", [{}, {"x-api-key": "wrong"}, {"x-api-key": ""}], ids=["missing", "wrong", "empty"])
def test_without_an_api_key_nobody_gets_in(gateway: Gateway, key: dict[str, str]) -> None:
    assert_refused(gateway.client.post(TRACK, json=EVENT, headers={"authorization": f"Bearer {token()}", **key}), 401, 16)


def test_api_key_in_the_query_is_none(gateway: Gateway) -> None:
    response = gateway.client.post(f"{TRACK}?x-api-key={API_KEYS[0]}", json=EVENT, headers={"authorization": f"Bearer {token()}"})
    assert_refused(response, 401, 16)


NOW = int(time.time())
BAD_TOKENS = {
    "garbage": "garbage",
    "expired": token(iat=NOW - 7200, exp=NOW - 120),
    "not yet valid": token(nbf=NOW + 7200),
    "of another issuer": token(iss="somebody-else"),
    "without issuer": token(iss=None),
    "without expiry": token(exp=None),
    "living for two hours": token(exp=NOW + 7200),
    "signed with another secret": token(secret="a-secret-that-the-gateway-does-not-know"),
    "signed with another algorithm": jwt.encode(
        {"iss": "pmp-wordpress-integration", "scope": "track", "exp": NOW + 600}, JWT_SECRETS[0] * 2, algorithm="HS512"
    ),
    "not signed": jwt.encode({"iss": "pmp-wordpress-integration", "scope": "admin", "exp": NOW + 600}, "", algorithm="none"),
    "changed after signing": token() + "x",
}


@pytest.mark.parametrize("bad", BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
def test_bad_token_is_unauthenticated(gateway: Gateway, bad: str) -> None:
    caller = {"x-api-key": API_KEYS[0], "authorization": f"Bearer {bad}"}
    assert_refused(gateway.client.post(TRACK, json=EVENT, headers=caller), 401, 16)


def test_missing_token_is_unauthenticated(gateway: Gateway) -> None:
    assert_refused(gateway.client.post(TRACK, json=EVENT, headers={"x-api-key": API_KEYS[0]}), 401, 16)


def test_token_in_the_query_is_not_taken(gateway: Gateway) -> None:
    response = gateway.client.get(f"{ACCOUNTING}?access_token={token('read')}", headers={"x-api-key": API_KEYS[0]})
    assert_refused(response, 400, 3)


def test_token_in_the_query_of_a_native_call_is_not_taken(gateway: Gateway) -> None:
    path = f"/pmp.ingestion.v1.IngestionService/TrackEvent?access_token={token()}"
    native = {"x-api-key": API_KEYS[0], "content-type": "application/grpc"}
    assert gateway.client.post(path, content=bytes(5), headers=native).headers["grpc-status"] == "16"


@pytest.mark.parametrize(
    ("scope", "may_track", "may_read"),
    [
        ("track", True, False),
        ("site", True, False),
        ("read", False, True),
        ("admin", True, True),
        ("", False, False),
        ("root", False, False),
        ("Track", False, False),
        (["track"], False, False),
        (None, False, False),
    ],
)
def test_scope_opens_what_it_includes(gateway: Gateway, scope: str, *, may_track: bool, may_read: bool) -> None:
    caller = {"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(scope)}"}
    answers = [
        (may_track, gateway.client.post(TRACK, json=EVENT, headers=caller)),
        (may_read, gateway.client.get(ACCOUNTING, headers=caller)),
    ]
    for allowed, response in answers:
        if allowed:
            assert response.status_code == 200
        else:
            assert_refused(response, 403, 7)


def test_browser_key_is_valid_with_a_track_token(gateway: Gateway) -> None:
    assert seen_by_the_service(gateway.track(key=BROWSER_KEY))["x-pmp-client"] == "browser"


@pytest.mark.parametrize("scope", ["site", "admin"])
def test_browser_key_is_refused_with_a_server_token(gateway: Gateway, scope: str) -> None:
    assert_refused(gateway.track(key=BROWSER_KEY, scope=scope), 403, 7)


@pytest.mark.parametrize("scope", ["read", "admin"])
def test_browser_key_reads_no_reports(gateway: Gateway, scope: str) -> None:
    assert_refused(gateway.client.get(ACCOUNTING, headers=headers(scope, key=BROWSER_KEY)), 403, 7)


def test_what_a_client_claims_is_removed(gateway: Gateway) -> None:
    claimed = {f"x-pmp-{name}": "claimed" for name in ("mesh-token", "client", "scope", "user", "address", "anything")}
    caller = {"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(user=None)}"}
    seen = seen_by_the_service(gateway.client.post(TRACK, json=EVENT, headers={**claimed, **caller}))
    assert "claimed" not in seen.values()


def test_claimed_scope_opens_nothing(gateway: Gateway) -> None:
    caller = {"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(scope=None)}", "X-PMP-Scope": "admin"}
    assert_refused(gateway.client.get(ACCOUNTING, headers=caller), 403, 7)


def test_header_with_underscores_is_refused(gateway: Gateway) -> None:
    assert_refused(gateway.client.post(TRACK, json=EVENT, headers={**headers(), "x_pmp_scope": "admin"}), 400, 3)


def test_forwarded_address_is_not_believed(gateway: Gateway) -> None:
    response = gateway.client.post(TRACK, json=EVENT, headers={**headers(), "x-forwarded-for": "203.0.113.9"})
    assert seen_by_the_service(response)["x-pmp-address"] == "127.0.0.1"


def test_preflight_needs_neither_key_nor_token(gateway: Gateway) -> None:
    asked = {"origin": SHOP, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key,authorization"}
    response = gateway.client.options(TRACK, headers=asked)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] == SHOP
    assert "POST" in response.headers["access-control-allow-methods"]
    allowed = {name.strip() for name in response.headers["access-control-allow-headers"].split(",")}
    of_traces = {"traceparent", "tracestate", "baggage", "sentry-trace"}
    assert allowed == {"x-api-key", "authorization", "content-type", *of_traces}


def test_preflight_of_a_stranger_is_not_allowed(gateway: Gateway) -> None:
    asked = {"origin": "https://stranger.example", "access-control-request-method": "POST"}
    assert "access-control-allow-origin" not in gateway.client.options(TRACK, headers=asked).headers


@pytest.mark.parametrize("key", [API_KEYS[0], "wrong"], ids=["answer", "error"])
def test_page_may_read_answers_and_errors(gateway: Gateway, key: str) -> None:
    response = gateway.client.post(TRACK, json=EVENT, headers={**headers(key=key), "origin": SHOP})
    assert response.headers["access-control-allow-origin"] == SHOP
    exposed = {name.strip() for name in response.headers["access-control-expose-headers"].split(",")}
    assert {"retry-after", "x-ratelimit-remaining", "x-request-id"} <= exposed


async def status_of(gateway: Gateway, caller: dict[str, str], *, reads: bool = False) -> grpc.StatusCode:
    """The status of a native call."""
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        ingestion = IngestionServiceStub(channel)
        try:
            if reads:
                await ingestion.GetAccounting(pb.GetAccountingRequest(), metadata=tuple(caller.items()))
            else:
                await ingestion.TrackEvent(pb.TrackEventRequest(), metadata=tuple(caller.items()))
        except grpc.aio.AioRpcError as error:
            return error.code()
        return grpc.StatusCode.OK


async def test_native_call_goes_through_the_same_port(gateway: Gateway) -> None:
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        ingestion = IngestionServiceStub(channel)
        request = pb.TrackEventRequest(event=event_pb2.Event(event_type="page_view"))
        answer = await ingestion.TrackEvent(request, metadata=tuple({**headers(), "x-pmp-user": "claimed"}.items()))
    seen = json.loads(answer.event_id)
    assert seen["x-pmp-user"] == "42"
    assert seen["x-pmp-mesh-token"] == MESH_TOKEN


@pytest.mark.parametrize(
    ("caller", "status"),
    [
        ({"authorization": f"Bearer {token()}"}, grpc.StatusCode.UNAUTHENTICATED),
        ({"x-api-key": API_KEYS[0]}, grpc.StatusCode.UNAUTHENTICATED),
        ({"x-api-key": API_KEYS[0], "authorization": f"Bearer {BAD_TOKENS['expired']}"}, grpc.StatusCode.UNAUTHENTICATED),
        (headers("read"), grpc.StatusCode.PERMISSION_DENIED),
        (headers("site", key=BROWSER_KEY), grpc.StatusCode.PERMISSION_DENIED),
        (headers("track"), grpc.StatusCode.OK),
    ],
    ids=["no key", "no token", "expired", "wrong scope", "browser with a server token", "good"],
)
async def test_native_callers_follow_the_same_rules(gateway: Gateway, caller: dict[str, str], status: grpc.StatusCode) -> None:
    assert await status_of(gateway, caller) is status


async def test_track_token_reads_no_reports_over_grpc(gateway: Gateway) -> None:
    assert await status_of(gateway, headers("track"), reads=True) is grpc.StatusCode.PERMISSION_DENIED
