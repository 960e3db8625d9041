"""Calls WooCommerce's REST API, version 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import stamina

from cli.errors import CommandFailed

PER_PAGE: Final = 100
"""The most that the API gives at once."""
_ANSWER_SECONDS: Final = 120.0
_PATIENCE_SECONDS: Final = 300.0
_BUSY: Final = frozenset({429, 500, 502, 503, 504, 520, 521, 522, 524})
"""Statuses after which the shop may answer if it is asked again."""

_NOT_THERE: Final = frozenset({"rest_no_route", "rest_invalid_param"})
"""Codes by which WordPress answers what an older version or another shop would know."""


class _BusyShopError(Exception):
    """The shop does not answer at the moment."""


class Listing(NamedTuple):
    """A page of the API."""

    records: Sequence[Mapping[str, Any]]
    total: int | None
    """Records of all pages; None if the shop does not say."""


class WooCommerce:
    """The API of one shop.

    Args:
        url: of the site.
        key: consumer key of the API; it may only read.
        secret: its secret.

    Raises:
        CommandFailed: the address would send the key in the clear.
    """

    def __init__(self, url: str, key: str, secret: str) -> None:
        parts = urlsplit(url)
        if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(parts.hostname or "")):
            raise CommandFailed("the shop's address has to begin with https://: anybody on the way could read the key otherwise")
        self.url = url.rstrip("/")
        self._client = httpx.AsyncClient(auth=(key, secret), timeout=_ANSWER_SECONDS)
        stamina.instrumentation.set_on_retry_hooks([])

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def list(self, path: str, **query: Any) -> Listing | None:
        """Records of a collection; None if this shop has no such collection, or not what is asked of it.

        Raises:
            CommandFailed: the shop refuses, or gives no answer that can be used.
        """
        params: dict[str, Any] = {"per_page": PER_PAGE, "dp": 6, **query}
        try:
            async for attempt in stamina.retry_context(on=(httpx.TransportError, _BusyShopError), attempts=None, timeout=_PATIENCE_SECONDS):
                with attempt:
                    return self._read(path, await self._get(path, params))
        except (httpx.TransportError, _BusyShopError) as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"{self.url} did not answer for {_PATIENCE_SECONDS:g} s ({reason})") from error
        raise AssertionError  # unreachable: the loop ends with an answer or an error

    async def _get(self, path: str, params: Mapping[str, Any]) -> httpx.Response:
        answer = await self._client.get(f"{self.url}/wp-json/wc/v3/{path}", params=params)
        if answer.status_code in _BUSY:
            raise _BusyShopError(f"status {answer.status_code}")
        return answer

    def _read(self, path: str, answer: httpx.Response) -> Listing | None:
        try:
            body: Any = answer.json()
        except ValueError:
            raise CommandFailed(f"{self.url} answers with a page instead of the REST API: {_hint(answer)}") from None
        if answer.is_success and isinstance(body, list):
            total = answer.headers.get("x-wp-total", "")
            return Listing(body, int(total) if total.isdecimal() else None)  # pyright: ignore[reportUnknownArgumentType]
        code = body.get("code", "") if isinstance(body, dict) else ""  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
        if code in _NOT_THERE:
            return None
        if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise CommandFailed(f"the shop refuses the key for {path} ({answer.status_code} {code}): it needs the permission to read")
        raise CommandFailed(f"the shop refuses {path}: {answer.status_code} {code}")


def _hint(answer: httpx.Response) -> str:
    if answer.is_redirect:
        return f"it redirects to {answer.headers.get('location', '')}; use that address"
    return f"status {answer.status_code}; permalinks have to be others than `plain`, and no security plugin may block /wp-json"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
