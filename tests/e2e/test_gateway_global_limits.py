"""Rate limits that several gateways share, counted by an envoyproxy/ratelimit."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceStub

from gateway.rate_limits import DOMAIN
from tests.doubles.rate_limits import RateLimits, counting
from tests.e2e.test_gateway_limits import TRACK, anonymous
from tests.gateway_probe.processes import EVENT, Gateway, headers, running_gateway, running_probe
from tests.servers import free_port

LIMIT = 6
"""Of the shared count."""
OWN_LIMIT = 12
"""Of each gateway."""


@pytest.fixture(scope="module")
def limits() -> Iterator[RateLimits]:
    with counting(LIMIT) as limits:
        yield limits


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    with running_probe(tmp_path_factory.mktemp("probe")) as port:
        yield port


@pytest.fixture(scope="module")
def gateways(tmp_path_factory: pytest.TempPathFactory, service: int, limits: RateLimits) -> Iterator[list[Gateway]]:
    folder = tmp_path_factory.mktemp("gateways")
    settings = {"PMP_RATE_LIMITS_ADDRESS": limits.address, "PMP_GATEWAY_TRUSTED_HOPS": "1"}
    with running_gateway(folder, service, **settings) as one, running_gateway(folder, service, **settings) as other:
        yield [one, other]


def test_a_users_calls_to_all_gateways_count_together(gateways: list[Gateway], limits: RateLimits) -> None:
    answers = [gateways[number % 2].track(user="7") for number in range(LIMIT + 1)]
    assert [answer.status_code for answer in answers] == [200] * LIMIT + [429]
    assert limits.asked[("caller", "person"), ("user", "7")] == LIMIT + 1
    assert [answer.headers["x-ratelimit-remaining"] for answer in answers[:2]] == [str(LIMIT - 1), str(LIMIT - 2)]
    refused = answers[-1]
    assert refused.json() == {"code": 8, "message": "Too many requests, try again later", "details": []}
    assert refused.headers["retry-after"] == str(limits.SECONDS)
    with grpc.insecure_channel(gateways[0].address) as channel, pytest.raises(grpc.RpcError) as raised:
        IngestionServiceStub(channel).TrackEvent(pb.TrackEventRequest(), metadata=tuple(headers(user="7").items()))
    call: Any = raised.value
    assert call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", str(limits.SECONDS)) in call.trailing_metadata()


def test_callers_are_counted_by_what_each_gateway_counts_them(gateways: list[Gateway], limits: RateLimits) -> None:
    limits.asked.clear()
    gateway = gateways[0]
    assert gateway.client.post(TRACK, json=EVENT, headers=anonymous("203.0.113.9")).status_code == 200
    assert gateway.track(scope="site", user="8").status_code == 200
    assert gateway.client.get("/openapi.json").status_code == 200
    assert limits.domains == {DOMAIN}
    assert limits.asked == {(("caller", "person"), ("remote_address", "203.0.113.9")): 1, (("caller", "site"),): 1}


def test_while_nobody_counts_calls_pass_up_to_the_gateways_own_limit(tmp_path_factory: pytest.TempPathFactory, service: int) -> None:
    settings = {"PMP_RATE_LIMITS_ADDRESS": f"127.0.0.1:{free_port()}", "PMP_RATE_USER_PER_HOUR": str(OWN_LIMIT)}
    with running_gateway(tmp_path_factory.mktemp("alone"), service, **settings) as gateway:
        answers = [gateway.client.post(TRACK, json=EVENT, headers=headers(user="9")) for _ in range(OWN_LIMIT + 1)]
    assert [answer.status_code for answer in answers] == [200] * OWN_LIMIT + [429]
    assert "retry-after" in answers[-1].headers
