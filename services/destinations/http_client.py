"""The HTTP client of a destination: httpx with the connections of aiohttp.

The pool of httpx goes through all of its connections for each request, which costs a destination with sixteen requests in progress three
times as much processor time (docs/performance.md).
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from functools import cache
from typing import Final
from urllib.request import getproxies

import aiohttp
import httpx
from typing_extensions import override
from yarl import URL

_TIMEOUT: Final = httpx.Timeout(10.0, connect=5.0)
_AGENT: Final = "pmp-mesh"
_IDLE_SECONDS: Final = 5.0
"""How long a connection waits for its next request: servers close theirs later, so that few requests meet a closed one."""

_PROXIES: Final = {"http", "https", "all"}


def open_client() -> httpx.AsyncClient:
    """Opens a client that follows no redirects. Through a proxy that the environment names it uses the connections of httpx."""
    transport = None if getproxies().keys() & _PROXIES else _Transport()
    return httpx.AsyncClient(timeout=_TIMEOUT, follow_redirects=False, headers={"user-agent": _AGENT}, transport=transport)


class _Transport(httpx.AsyncBaseTransport):
    def __init__(self) -> None:
        self._session: aiohttp.ClientSession | None = None

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        seconds = request.extensions["timeout"]
        with _errors_of_httpx(request):
            response = await self._opened().request(
                request.method,
                URL(str(request.url), encoded=True),
                headers=request.headers.multi_items(),
                data=await request.aread(),
                allow_redirects=False,
                timeout=aiohttp.ClientTimeout(connect=seconds["pool"], sock_connect=seconds["connect"], sock_read=seconds["read"]),
                server_hostname=request.extensions.get("sni_hostname"),
            )
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(request, response))

    @override
    async def aclose(self) -> None:
        if self._session is not None:
            await self._session.close()

    def _opened(self) -> aiohttp.ClientSession:
        """Returns the session, which can't be opened before the event loop runs."""
        if self._session is None:
            # A destination limits its requests itself.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=_IDLE_SECONDS, ssl=_tls())
            self._session = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar(), auto_decompress=False)
        return self._session


class _Body(httpx.AsyncByteStream):
    def __init__(self, request: httpx.Request, response: aiohttp.ClientResponse) -> None:
        self._request = request
        self._response = response

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        with _errors_of_httpx(self._request):
            async for part in self._response.content.iter_any():
                yield part

    @override
    async def aclose(self) -> None:
        self._response.release()  # which closes the connection unless the body was read


@cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


@contextmanager
def _errors_of_httpx(request: httpx.Request) -> Generator[None]:
    """Raises the errors of aiohttp as those of httpx. Only `ConnectError` and `ConnectTimeout` say that nothing was sent."""
    try:
        yield
    except aiohttp.ConnectionTimeoutError as error:
        raise httpx.ConnectTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectorError as error:
        raise httpx.ConnectError(str(error), request=request) from error
    except aiohttp.ServerTimeoutError as error:
        raise httpx.ReadTimeout(str(error), request=request) from error
    except aiohttp.ClientConnectionError as error:
        raise httpx.ReadError(str(error), request=request) from error
    except aiohttp.ClientError as error:
        raise httpx.RemoteProtocolError(str(error), request=request) from error
