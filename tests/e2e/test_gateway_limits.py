"""Rate limits."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count

import grpc
import httpx
import pytest
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from tests.gateway_probe.processes import API_KEYS, EVENT, Gateway, headers, running_gateway, running_probe, token
from tests.shape.test_deploy_rendered import settings_of

PER_HOUR = 20
PER_SECOND = 30
TRACK = "/api/v1/events/track"
_numbers = count(1000)


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    limits = {"PMP_RATE_USER_PER_HOUR": str(PER_HOUR), "PMP_RATE_SITE_PER_SECOND": str(PER_SECOND), "PMP_GATEWAY_TRUSTED_HOPS": "1"}
    with running_probe(folder) as port, running_gateway(folder, port, **limits) as gateway:
        yield gateway


@pytest.fixture(scope="module")
def in_production(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """A gateway with the settings that the production overlay renders."""
    folder = tmp_path_factory.mktemp("production")
    settings = {**settings_of("production"), "PMP_RATE_USER_PER_HOUR": str(PER_HOUR), "PMP_CORS_ORIGINS": ""}
    with running_probe(folder) as port, running_gateway(folder, port, **settings) as gateway:
        yield gateway


@pytest.fixture
def user() -> str:
    """A user who has never called."""
    return str(next(_numbers))


def exhaust(gateway: Gateway, caller: dict[str, str]) -> None:
    for _ in range(PER_HOUR):
        assert gateway.client.post(TRACK, json=EVENT, headers=caller).status_code == 200


def anonymous(address: str) -> dict[str, str]:
    return {"x-api-key": API_KEYS[0], "authorization": f"Bearer {token(user=None)}", "x-forwarded-for": address}


def test_call_over_the_limit_of_a_user_is_refused(gateway: Gateway, user: str) -> None:
    exhaust(gateway, headers(user=user))
    response = gateway.client.post(TRACK, json=EVENT, headers=headers(user=user))
    assert response.status_code == 429
    assert response.headers["content-type"] == "application/json"
    assert response.json() == {"code": 8, "message": "Too many requests, try again later", "details": []}
    assert 0 < int(response.headers["retry-after"]) <= 3600 / PER_HOUR
    assert response.headers["x-ratelimit-limit"] == str(PER_HOUR)
    assert response.headers["x-ratelimit-remaining"] == "0"


def test_another_user_goes_on(gateway: Gateway, user: str) -> None:
    exhaust(gateway, headers(user=user))
    response = gateway.client.post(TRACK, json=EVENT, headers=headers(user=f"{user}-another"))
    assert response.status_code == 200
    assert response.headers["x-ratelimit-remaining"] == str(PER_HOUR - 1)


def test_track_and_read_tokens_of_a_user_share_a_limit(gateway: Gateway, user: str) -> None:
    exhaust(gateway, headers(user=user))
    assert gateway.client.get("/api/v1/events/accounting", headers=headers("read", user)).status_code == 429


async def test_limit_holds_for_native_calls(gateway: Gateway, user: str) -> None:
    exhaust(gateway, headers(user=user))
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest(), metadata=tuple(headers(user=user).items()))
    assert raised.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert any(key == "retry-after" for key, _ in raised.value.trailing_metadata() or ())


def test_without_an_id_the_address_is_limited(gateway: Gateway) -> None:
    exhaust(gateway, anonymous("203.0.113.9"))
    assert gateway.client.post(TRACK, json=EVENT, headers=anonymous("203.0.113.9")).status_code == 429
    assert gateway.client.post(TRACK, json=EVENT, headers=anonymous("203.0.113.10")).status_code == 200


def test_visitors_of_the_load_balancer_of_production_have_a_limit_each(in_production: Gateway) -> None:
    for visitor in range(1, 6):
        exhaust(in_production, anonymous(f"203.0.113.{visitor}"))
    assert in_production.client.post(TRACK, json=EVENT, headers=anonymous("203.0.113.1")).status_code == 429


def test_no_address_that_a_visitor_claims_is_another_limit(in_production: Gateway) -> None:
    """The load balancer appends the visitor's own address to the header that the visitor sent."""
    exhaust(in_production, anonymous("203.0.113.20"))
    for claimed in ("198.51.100.1", "198.51.100.2", "203.0.113.1, 10.0.0.1"):
        response = in_production.client.post(TRACK, json=EVENT, headers=anonymous(f"{claimed}, 203.0.113.20"))
        assert response.status_code == 429


@pytest.mark.parametrize(
    ("origin", "open_"), [("https://shop.example", True), ("https://www.shop.example", True), ("https://evil.example", False)]
)
def test_the_pages_of_the_shop_alone_may_call_production(in_production: Gateway, origin: str, *, open_: bool) -> None:
    asked = {"origin": origin, "access-control-request-method": "POST", "access-control-request-headers": "x-api-key"}
    response = in_production.client.options(TRACK, headers=asked)
    assert response.headers.get("access-control-allow-origin") == (origin if open_ else None)


def test_claimed_user_escapes_no_limit(gateway: Gateway) -> None:
    exhaust(gateway, anonymous("203.0.113.11"))
    response = gateway.client.post(TRACK, json=EVENT, headers={**anonymous("203.0.113.11"), "x-pmp-user": "somebody"})
    assert response.status_code == 429


@pytest.mark.parametrize("scope", ["site", "admin"])
def test_servers_are_not_limited_as_users(gateway: Gateway, scope: str, user: str) -> None:
    exhaust(gateway, headers(user=user))
    response = ask_until(gateway, 200, lambda: headers(scope, user))
    assert response.headers["x-ratelimit-limit"] == str(PER_SECOND)


def test_servers_are_limited_together_by_the_second(gateway: Gateway) -> None:
    users = count()
    response = ask_until(gateway, 429, lambda: headers("site", user=str(next(users))))
    assert response.headers["retry-after"] == "1"
    assert ask_until(gateway, 200, lambda: headers("site"))


def ask_until(gateway: Gateway, status: int, caller: Callable[[], dict[str, str]]) -> httpx.Response:
    """The first answer with this status, of at most 600."""
    for _ in range(600):
        response = gateway.client.post(TRACK, json=EVENT, headers=caller())
        if response.status_code == status:
            return response
    raise AssertionError(f"never answered {status}")
