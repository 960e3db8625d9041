"""Who may call what: every rpc and every REST path of the contracts, by every credential."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import grpc
import httpx
import jwt
import pytest
from google.api import annotations_pb2
from pmp.options.v1 import options_pb2

from gateway.contracts import read_descriptors
from tests.gateway_probe.everything import running_everything
from tests.gateway_probe.processes import API_KEYS, BROWSER_KEY, JWT_SECRETS, Gateway, running_gateway, token

ACCESS = options_pb2.Access
OPENED = {
    "track": {ACCESS.ACCESS_TRACK},
    "site": {ACCESS.ACCESS_TRACK, ACCESS.ACCESS_SITE},
    "read": {ACCESS.ACCESS_READ},
    "admin": {ACCESS.ACCESS_TRACK, ACCESS.ACCESS_SITE, ACCESS.ACCESS_READ, ACCESS.ACCESS_ADMIN},
    "link": {ACCESS.ACCESS_LINK},
    "signed": set[int](),  # no token opens what is signed
}
"""The access that each scope includes, according to options.proto."""
NOW = int(time.time())
Metadata = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Rpc:
    """An rpc of the contracts."""

    path: str
    access: options_pb2.Access.ValueType
    streams: bool
    rest: tuple[tuple[str, str], ...]
    """HTTP methods and paths, with a value for each variable; also the path of a stream."""


@dataclass(frozen=True)
class Credential:
    """A caller's credentials, and the scope they should have."""

    key: str | None
    token: str | None
    scope: str | None
    """The effective scope; None if key or token are invalid."""

    @property
    def headers(self) -> dict[str, str]:
        shown = {"x-api-key": self.key, "authorization": self.token and f"Bearer {self.token}"}
        return {name: value for name, value in shown.items() if value}

    def status(self, rpc: Rpc) -> grpc.StatusCode:
        """The expected status of a call."""
        if self.key not in {*API_KEYS, BROWSER_KEY}:
            return grpc.StatusCode.UNAUTHENTICATED
        if rpc.access == ACCESS.ACCESS_INTERNAL:
            return grpc.StatusCode.UNIMPLEMENTED
        if self.scope is None:
            return grpc.StatusCode.UNAUTHENTICATED
        allowed = rpc.access in OPENED.get(self.scope, set()) and (self.key != BROWSER_KEY or self.scope == "track")
        return grpc.StatusCode.OK if allowed else grpc.StatusCode.PERMISSION_DENIED

    def rest_status(self, rpc: Rpc) -> grpc.StatusCode:
        """The expected status of a call over REST, where a link needs no key, and what is signed no token either."""
        if rpc.access == ACCESS.ACCESS_SIGNED:
            return grpc.StatusCode.OK
        if rpc.access != ACCESS.ACCESS_LINK:
            return self.status(rpc)
        scopes = [found for secret in JWT_SECRETS if (found := _scope(self.token, secret)) is not None]
        if not scopes:
            return grpc.StatusCode.UNAUTHENTICATED
        return grpc.StatusCode.OK if scopes == ["link"] else grpc.StatusCode.PERMISSION_DENIED


def _scope(token: str | None, secret: str) -> str | None:
    """The scope of a token; None if it is invalid."""
    try:
        claims = jwt.decode(token or "", secret, algorithms=["HS256"], issuer="pmp-wordpress-integration", options={"require": ["exp"]})
    except jwt.InvalidTokenError:
        return None
    return str(claims.get("scope", ""))


def _unsigned(scope: str) -> str:
    return jwt.encode({"iss": "pmp-wordpress-integration", "scope": scope, "id": "42", "exp": NOW + 600}, "", algorithm="none")


CREDENTIALS = {
    "none": Credential(None, None, None),
    "token alone": Credential(None, token("admin"), None),
    "link alone": Credential(None, token("link"), None),
    "wrong key": Credential("a-key-that-nobody-has", token("admin"), None),
    "key alone": Credential(API_KEYS[0], None, None),
    "browser key alone": Credential(BROWSER_KEY, None, None),
    "JWT secret as key": Credential(JWT_SECRETS[0], token("admin"), None),
    "garbage": Credential(API_KEYS[0], "garbage", None),
    "expired": Credential(API_KEYS[0], token("admin", iat=NOW - 7200, exp=NOW - 120), None),
    "not yet valid": Credential(API_KEYS[0], token("admin", nbf=NOW + 3500), None),
    "without an end": Credential(API_KEYS[0], token("admin", exp=None), None),
    "signed with another secret": Credential(API_KEYS[0], token("admin", secret="a-secret-that-the-gateway-does-not-know"), None),
    "of another issuer": Credential(API_KEYS[0], token("admin", iss="somebody-else"), None),
    "not signed": Credential(API_KEYS[0], _unsigned("admin"), None),
    "no scope": Credential(API_KEYS[0], token(None), ""),
    "unknown scope": Credential(API_KEYS[0], token("root"), "root"),
    "two scopes": Credential(API_KEYS[0], token("track admin"), "track admin"),
    **{f"server key, {scope}": Credential(API_KEYS[0], token(scope), scope) for scope in OPENED},
    **{f"new server key and secret, {scope}": Credential(API_KEYS[1], token(scope, secret=JWT_SECRETS[1]), scope) for scope in OPENED},
    **{f"browser key, {scope}": Credential(BROWSER_KEY, token(scope), scope) for scope in OPENED},
}
HTTP_STATUS = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
}


def _contracts() -> Iterator[Rpc]:
    http = cast("Any", annotations_pb2.http)  # its stub does not declare what it extends
    for file in read_descriptors().file:
        for service in file.service if file.package.startswith("pmp.") else ():
            for method in service.method:
                rule = method.options.Extensions[http]
                bound = [(one.WhichOneof("pattern"), one) for one in (rule, *rule.additional_bindings) if one.WhichOneof("pattern")]
                stream = method.options.Extensions[options_pb2.stream]
                yield Rpc(
                    path=f"/{file.package}.{service.name}/{method.name}",
                    access=method.options.Extensions[options_pb2.access],
                    streams=method.server_streaming,
                    rest=(
                        *((verb.upper(), re.sub(r"\{[^}]+\}", "some-id", getattr(one, verb))) for verb, one in bound),
                        *([("GET", stream)] if stream else []),
                    ),
                )


RPCS = list(_contracts())


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    folder = tmp_path_factory.mktemp("gateway")
    with running_everything() as services:
        settings = {"PMP_RATE_SITE_PER_SECOND": "1000000", "PMP_STREAM_ADDRESS": f"127.0.0.1:{services.stream_port}"}
        with running_gateway(folder, services.port, **settings) as gateway:
            yield gateway


async def _ended(channel: grpc.aio.Channel, rpc: Rpc, metadata: Metadata) -> grpc.StatusCode:
    try:
        if rpc.streams:
            await cast("Any", channel.unary_stream)(rpc.path)(b"", metadata=metadata, timeout=60).read()
        else:
            await cast("Any", channel.unary_unary)(rpc.path)(b"", metadata=metadata, timeout=60)
    except grpc.aio.AioRpcError as error:
        return error.code()
    return grpc.StatusCode.OK


async def test_every_rpc_is_open_to_its_callers_alone(gateway: Gateway) -> None:
    assert {rpc.access for rpc in RPCS} == set(ACCESS.values()) - {ACCESS.ACCESS_UNSPECIFIED}
    asked = [(rpc, name) for rpc in RPCS for name in CREDENTIALS]
    async with grpc.aio.insecure_channel(gateway.address) as channel:
        ended = await asyncio.gather(*(_ended(channel, rpc, tuple(CREDENTIALS[name].headers.items())) for rpc, name in asked))
    wrong = [
        (rpc.path, name, status) for (rpc, name), status in zip(asked, ended, strict=True) if status is not CREDENTIALS[name].status(rpc)
    ]
    assert wrong == []


async def test_every_rest_path_is_open_to_its_callers_alone(gateway: Gateway) -> None:
    assert {rpc.path for rpc in RPCS if rpc.rest} == {rpc.path for rpc in RPCS if rpc.access != ACCESS.ACCESS_INTERNAL}
    asked = [(rpc, verb, path, name) for rpc in RPCS for verb, path in rpc.rest for name in CREDENTIALS]
    at_once = asyncio.Semaphore(16)
    async with httpx.AsyncClient(base_url=f"http://{gateway.address}", timeout=60) as client:

        async def ask(_rpc: Rpc, verb: str, path: str, name: str) -> int:
            body = b"{}" if verb in {"POST", "PUT", "PATCH"} else None
            async with at_once:
                return (await client.request(verb, path, headers=CREDENTIALS[name].headers, content=body)).status_code

        statuses = await asyncio.gather(*(ask(*one) for one in asked))
    wrong = [
        (verb, path, name, status)
        for (rpc, verb, path, name), status in zip(asked, statuses, strict=True)
        if status != HTTP_STATUS[CREDENTIALS[name].rest_status(rpc)]
    ]
    assert wrong == []


SESSION = f"pmp_dashboard={token('read', None, iss='pmp-dashboard', exp=NOW + 86_000)}"
STREAMS = [path for rpc in RPCS for verb, path in rpc.rest if rpc.streams and verb == "GET" and rpc.access == ACCESS.ACCESS_READ]


def test_a_session_of_the_dashboard_opens_what_reads_reports_and_nothing_else(gateway: Gateway) -> None:
    opened = {
        (verb, path): gateway.client.request(verb, path, headers={"cookie": SESSION}).status_code for rpc in RPCS for verb, path in rpc.rest
    }
    expected = {(verb, path): 200 if rpc.access == ACCESS.ACCESS_READ and verb == "GET" else 403 for rpc in RPCS for verb, path in rpc.rest}
    assert opened == expected
    assert 200 in expected.values()
    assert {path for verb, path in expected if expected[verb, path] == 200} >= set(STREAMS) != set()


FOREIGN = "Pages of this origin may not open a stream"


@pytest.mark.parametrize("path", STREAMS)
@pytest.mark.parametrize("is_upgrade", [False, True], ids=["events", "websocket"])
@pytest.mark.parametrize(
    ("headers", "is_own"),
    [
        ({}, True),
        ({"sec-fetch-site": "same-origin"}, True),
        ({"origin": "http://{address}"}, True),
        ({"origin": "https://{address}"}, False),
        ({"origin": "http://{address}.other.example"}, False),
        ({"origin": "http://127.0.0.1"}, False),
        ({"origin": "https://shop.example"}, False),
        ({"origin": "null"}, False),
        ({"origin": ""}, False),
        ({"sec-fetch-site": "same-site", "origin": "http://{address}"}, False),
        ({"sec-fetch-site": "cross-site"}, False),
    ],
)
def test_a_session_opens_streams_for_the_gateways_own_page_only(
    gateway: Gateway, path: str, is_upgrade: bool, headers: dict[str, str], is_own: bool
) -> None:
    upgrade = {"connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13", "sec-websocket-key": "bm9uY2Ugb2YgMTYgYi4="}
    named = {name: value.format(address=gateway.address) for name, value in headers.items()}
    answer = gateway.client.get(path, headers={"cookie": SESSION, **named, **(upgrade if is_upgrade else {})})
    assert answer.status_code == (200 if is_own else 403)
    if not is_own:
        assert answer.json() == {"code": 7, "message": FOREIGN, "details": []}


def test_a_token_among_the_sub_protocols_counts_and_not_the_session_beside_it(gateway: Gateway) -> None:
    for scope, status in (("read", 200), ("track", 403)):
        protocols = f"pmp.v1, pmp.key.{API_KEYS[0]}, pmp.bearer.{token(scope)}"
        answer = gateway.client.get(STREAMS[0], headers={"cookie": SESSION, "sec-websocket-protocol": protocols})
        assert answer.status_code == status
