"""Connecting a site, through a real channel, and calls of real sites."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import grpc
import pytest
from pmp.destinations.v1.destinations_pb2 import ConnectSiteRequest, ConnectSiteResponse
from pmp.destinations.v1.destinations_pb2_grpc import DestinationsServiceServicer, add_DestinationsServiceServicer_to_server
from pmp.gdpr.v1 import connection_pb2 as pb
from pmp.gdpr.v1.connection_pb2_grpc import ConnectionServiceStub, add_ConnectionServiceServicer_to_server
from typing_extensions import override

from kit.errors import Unavailable
from kit.log.redis_log import RedisLog
from kit.registry import Part
from kit.server import Server
from kit.settings import Settings
from services.gdpr.calls import OTHER, REACHED, REFUSED, UNREACHABLE
from services.gdpr.composition import ROLE
from services.gdpr.connection import ConnectionServicer
from services.gdpr.settings import GdprSettings
from tests.receiver import SECRET
from tests.roles import settings_for
from tests.servers import free_port

ID = "x" * 43
SEALED = "c2VhbGVkIHNldHRpbmdzIG9mIGEgc2l0ZSwgb2YgbW9yZSB0aGFuIDI4IGJ5dGVz"
ANSWER = "fedcba9876543210"
USED = "the code was used before, or is older than 10 minutes: `pmp connect wordpress` prints a new one"


class Connections:
    """The service, as the gateway calls it."""

    def __init__(self, channel: grpc.aio.Channel, token: str) -> None:
        self._stub: Any = ConnectionServiceStub(channel)
        self._token = token

    def _metadata(self, scope: str, user: str = "") -> list[tuple[str, str]]:
        return [("x-pmp-mesh-token", self._token), ("x-pmp-scope", scope), ("x-pmp-user", user)]

    async def add(self, connection: str = ID, sealed: str = SEALED, *, scope: str = "admin") -> None:
        request = pb.AddConnectionRequest(connection_id=connection, sealed=sealed)
        await self._stub.AddConnection(request, metadata=self._metadata(scope))

    async def take(self, connection: str = ID, *, scope: str = "link") -> str:
        answer = await self._stub.TakeConnection(pb.TakeConnectionRequest(), metadata=self._metadata(scope, connection))
        return answer.sealed

    async def check(self, url: str, answer: str = ANSWER, *, scope: str = "site") -> pb.CheckSiteResponse:
        return await self._stub.CheckSite(pb.CheckSiteRequest(url=url, answer=answer), metadata=self._metadata(scope))


@dataclass
class Site:
    """A site, with what it answers."""

    url: str
    status: int = 200
    body: str = json.dumps({"answer": ANSWER})
    calls: int = 0


@contextmanager
def listening() -> Generator[Site]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            site.calls += 1
            self.send_response(site.status)
            self.send_header("content-length", str(len(site.body)))
            self.send_header("location", site.url)
            self.end_headers()
            self.wfile.write(site.body.encode())

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        site = Site(f"http://127.0.0.1:{server.server_port}/wp-json/pmp/v1/connection/1")
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield site
        server.shutdown()
        thread.join()


@pytest.fixture
def site() -> Iterator[Site]:
    with listening() as site:
        yield site


@pytest.fixture
def database_url() -> str:
    """Of a database that does not exist: nothing of a connection is stored in one."""
    return "sqlite+aiosqlite:///nowhere/{service}.db"


class Destinations(DestinationsServiceServicer):
    """The service that synchronises with a site."""

    def __init__(self) -> None:
        self.connected: list[str] = []
        self.is_down = False

    @override
    async def ConnectSite(self, request: ConnectSiteRequest, context: Any) -> ConnectSiteResponse:
        if self.is_down:
            raise Unavailable("it is down")
        self.connected.append(request.url)
        return ConnectSiteResponse(connected=True)


@pytest.fixture
def destinations() -> Destinations:
    return Destinations()  # pyright: ignore[reportAbstractUsage]


@pytest.fixture
def own(settings: Settings) -> GdprSettings:
    """The settings of a mesh that calls the site on this machine after an erasure."""
    calls = {"wordpress": "http://127.0.0.1/wp-json/pmp/v1/erasures"}
    hosts = frozenset({"127.0.0.1", "*.shop.example"})
    address = f"127.0.0.1:{free_port()}"
    site = {"site_hosts": hosts, "site_erasure_calls": calls, "site_erasure_secret": SECRET}
    return settings_for(ROLE, settings, listen=address, service_address=address, **site)


@pytest.fixture
async def connections(own: GdprSettings, log: RedisLog, destinations: Destinations) -> AsyncIterator[Connections]:
    parts = [
        Part("gdpr", [(add_ConnectionServiceServicer_to_server, ConnectionServicer(log.redis, own))]),
        Part("destinations", [(add_DestinationsServiceServicer_to_server, destinations)]),
    ]
    server = Server(own, parts)
    port = server.listen(own.listen)
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield Connections(channel, own.mesh_token.get_secret_value())
    await server.drain(0, 0)


async def test_settings_are_taken_by_one_of_many(connections: Connections) -> None:
    await connections.add()
    answers = await asyncio.gather(*(connections.take() for _ in range(10)), return_exceptions=True)
    assert [each for each in answers if isinstance(each, str)] == [SEALED]
    refused = [each for each in answers if isinstance(each, grpc.aio.AioRpcError)]
    assert {(each.code(), each.details()) for each in refused} == {(grpc.StatusCode.UNAUTHENTICATED, USED)}


async def test_settings_are_forgotten_after_ten_minutes_or_when_they_were_taken(connections: Connections, log: RedisLog) -> None:
    await connections.add()
    (key,) = await log.redis.keys("pmp:connection:*")
    assert 599_000 < await log.redis.pttl(key) <= 600_000
    await connections.take()
    assert await log.redis.keys("pmp:connection:*") == [b"pmp:connection:stated"], "that a site may state its address"
    assert 599_000 < await log.redis.pttl("pmp:connection:stated") <= 600_000


@pytest.mark.parametrize("scope", ["read", "track", "site"])
async def test_each_call_has_its_own_scope(connections: Connections, site: Site, scope: str) -> None:
    await connections.add()
    for call in (connections.add(scope=scope), connections.take(scope=scope), connections.check(site.url, scope="link")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED
    assert (await connections.take(), site.calls) == (SEALED, 0)


@pytest.mark.parametrize(("connection", "sealed"), [("short", SEALED), (ID, "not base64!"), (ID, "x"), (ID + "\r\n", SEALED)])
async def test_settings_that_are_not_sealed_are_refused(connections: Connections, connection: str, sealed: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await connections.add(connection, sealed)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize(
    ("status", "body", "finding"),
    [
        (200, json.dumps({"answer": ANSWER}), REACHED),
        (200, json.dumps({"answer": "another"}), OTHER),
        (200, "<html>Please log in</html>", OTHER),
        (200, json.dumps({"answer": ANSWER, "padding": "x" * 100_000}), OTHER),
        (200, "", OTHER),
        (403, json.dumps({"answer": ANSWER}), REFUSED),
        (302, json.dumps({"answer": ANSWER}), REFUSED),
    ],
)
async def test_the_mesh_says_what_a_site_answers(connections: Connections, site: Site, status: int, body: str, finding: str) -> None:
    site.status, site.body = status, body
    answer = await connections.check(site.url)
    assert (answer.finding, answer.status) == (finding, status if finding == REFUSED else 0)
    assert answer.is_called_on_erasure
    assert site.calls == 1, "a redirect is not followed"


async def test_the_site_that_took_its_settings_is_connected_at_its_address_once(
    connections: Connections, site: Site, destinations: Destinations
) -> None:
    site.url = site.url.removesuffix("1") + "0" * 32
    users = site.url.removesuffix(f"connection/{'0' * 32}") + "users"
    await connections.check(site.url)
    assert destinations.connected == [], "no code was used"
    await connections.add()
    await connections.take()
    await connections.check(site.url.replace("/connection/", "/else/"))
    await connections.check(f"http://127.0.0.1:{free_port()}/")
    assert destinations.connected == [], "it is another address, and nothing answers there"
    destinations.is_down = True
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await connections.check(site.url)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    destinations.is_down = False
    for _ in range(2):
        await connections.check(site.url)
    assert destinations.connected == [users]


async def test_a_site_that_nothing_reaches_is_said_to_be_so(connections: Connections) -> None:
    answer = await connections.check(f"http://127.0.0.1:{free_port()}/")
    assert answer.finding == UNREACHABLE


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://www.shop.example/", "is neither https nor in a private network"),
        ("https://shop.example.net/", "is of none of the shop's hosts"),
        ("http://10.0.0.1/", "is of none of the shop's hosts"),
        ("https://127.0.0.1:port/", "is no URL"),
        ("ftp://127.0.0.1/", "pattern"),
        ("http://127.0.0.1/?delete=all", "pattern"),
        ("http://ada@127.0.0.1/", "pattern"),
    ],
)
async def test_an_address_that_is_not_the_shops_is_not_called(connections: Connections, url: str, why: str) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await connections.check(url)
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
    assert why in (refused.value.details() or "")
