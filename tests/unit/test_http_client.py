"""The HTTP client of destinations against servers that behave badly: what its errors say about whether a request was sent."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import httpx
import pytest

from services.destinations.http_client import open_client
from tests.servers import free_port
from tests.services.test_destinations import certified

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nset-cookie: who=me\r\n\r\nok"


class Server:
    """A server on loopback that gives each request the same answer."""

    def __init__(self, answer: bytes) -> None:
        self.answer = answer
        self.url = ""
        self.requests: list[bytes] = []
        self.connections = 0

    @asynccontextmanager
    async def listening(self, tls: ssl.SSLContext | None = None) -> AsyncGenerator[Server]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=tls)
        self.url = f"http{'s' if tls else ''}://127.0.0.1:{server.sockets[0].getsockname()[1]}/path?a=%2F"
        async with server:
            yield self

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with suppress(asyncio.IncompleteReadError):
            while True:
                self.requests.append(await reader.readuntil(b"\r\n\r\n") + await reader.readexactly(4))
                writer.write(self.answer)
                if not self.answer.endswith(b"ok"):
                    break
        writer.close()


@pytest.fixture
async def client() -> AsyncGenerator[httpx.AsyncClient]:
    async with open_client() as client:
        yield client


async def test_requests_share_connections_and_no_cookies(client: httpx.AsyncClient) -> None:
    async with Server(OK).listening() as server:
        for _ in range(3):
            response = await client.post(server.url, content=b"body", headers={"x-own": "1"})
            assert (response.status_code, response.content) == (200, b"ok")
        assert server.connections == 1
        first = server.requests[0]
        assert first.startswith(b"POST /path?a=%2F HTTP/1.1\r\n")
        assert first.endswith(b"\r\n\r\nbody")
        assert {b"x-own: 1", b"user-agent: pmp-mesh", b"content-length: 4"} <= set(first.lower().split(b"\r\n"))
        client.cookies.clear()  # httpx has its own
        await client.post(server.url, content=b"body")
        assert b"cookie" not in server.requests[-1].lower()


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", httpx.ReadError),
        (b"HTTP/1.1 20", httpx.HTTPError),
        (b"no HTTP\r\n\r\n", httpx.RemoteProtocolError),
        (b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nshort", httpx.RemoteProtocolError),
    ],
    ids=["closed", "cut off", "not HTTP", "cut off in its body"],
)
async def test_a_lost_answer_is_not_taken_for_a_request_that_was_not_sent(
    client: httpx.AsyncClient, answer: bytes, error: type[httpx.HTTPError]
) -> None:
    async with Server(answer).listening() as server:
        with pytest.raises(error) as caught:
            await client.post(server.url, content=b"body")
        assert not isinstance(caught.value, httpx.ConnectError | httpx.ConnectTimeout)
        assert len(server.requests) == 1, "a request that may have had its effect is not repeated"


async def test_an_answer_that_takes_too_long_is_a_timeout_of_reading(client: httpx.AsyncClient) -> None:
    hangs = asyncio.Event()

    async def serve(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await hangs.wait()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        with pytest.raises(httpx.ReadTimeout):
            await client.post(url, content=b"body", timeout=0.2)
        hangs.set()


async def test_nothing_is_sent_where_nobody_listens(client: httpx.AsyncClient) -> None:
    with pytest.raises(httpx.ConnectError):
        await client.post(f"http://127.0.0.1:{free_port()}/", content=b"body")


async def test_a_certificate_that_nobody_signed_is_refused(client: httpx.AsyncClient, tmp_path: Path) -> None:
    async with Server(OK).listening(certified("shop.example", tmp_path)) as server:
        with pytest.raises(httpx.ConnectError):
            await client.post(server.url, content=b"body")
        assert server.requests == []


async def test_a_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Server(OK).listening() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url.partition("/path")[0])
        async with open_client() as client:
            await client.post("http://shop.example/hook", content=b"body")
        assert proxy.requests[0].startswith(b"POST http://shop.example/hook HTTP/1.1\r\n")
