"""Calls WooCommerce's REST API, version 3."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any, Final, NamedTuple, cast
from urllib.parse import urlsplit

import httpx
import stamina

from cli.errors import CommandFailed
from cli.importing.woocommerce_records import DECIMALS

PER_PAGE: Final = 100
"""The most that the API gives at once."""
_ANSWER_SECONDS: Final = 120.0
_PATIENCE_SECONDS: Final = 300.0
_BUSY: Final = frozenset({429, 500, 502, 503, 504, 520, 521, 522, 524})
"""Statuses after which the shop may answer if it is asked again."""
_NO_SUCH_ID: Final = "_invalid_id"
"""How the codes of answers end by which WooCommerce knows no record of an id."""
_NOT_THERE: Final = frozenset({"rest_no_route", "rest_invalid_param"})
"""Codes by which WordPress answers what an older version or another shop would know."""


class _BusyShopError(Exception):
    """The shop does not answer at the moment."""


class Listing(NamedTuple):
    """A page of the API."""

    records: Sequence[Mapping[str, Any]]
    total: int | None
    """Records of all pages; None if the shop does not say."""
    read_at: datetime
    """When the shop read them at the earliest, by its own clock."""


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
        answer, body = await self._ask(path, {"per_page": PER_PAGE, "dp": DECIMALS, **query})
        if answer.is_success and isinstance(body, list):
            total = answer.headers.get("x-wp-total", "")
            return Listing(cast("list[Mapping[str, Any]]", body), int(total) if total.isdecimal() else None, _read_at(answer))
        if _code(body) in _NOT_THERE:
            return None
        raise _refusal(path, answer, body)

    async def one(self, path: str) -> Mapping[str, Any] | None:
        """A record; None if the shop has none of that id.

        Raises:
            CommandFailed: the shop refuses, or gives no answer that can be used.
        """
        answer, body = await self._ask(path, {"dp": DECIMALS})
        if answer.is_success and isinstance(body, dict):
            return cast("Mapping[str, Any]", body)
        if answer.status_code == HTTPStatus.NOT_FOUND and _code(body).endswith(_NO_SUCH_ID):
            return None
        raise _refusal(path, answer, body)

    async def _ask(self, path: str, params: Mapping[str, Any]) -> tuple[httpx.Response, object]:
        """An answer of the API with its JSON."""
        try:
            async for attempt in stamina.retry_context(on=(httpx.TransportError, _BusyShopError), attempts=None, timeout=_PATIENCE_SECONDS):
                with attempt:
                    return self._read(await self._get(path, params))
        except (httpx.TransportError, _BusyShopError) as error:
            reason = str(error) or type(error).__name__
            raise CommandFailed(f"{self.url} did not answer for {_PATIENCE_SECONDS:g} s ({reason})") from error
        raise AssertionError  # unreachable: the loop ends with an answer or an error

    async def _get(self, path: str, params: Mapping[str, Any]) -> httpx.Response:
        answer = await self._client.get(f"{self.url}/wp-json/wc/v3/{path}", params=params)
        if answer.status_code in _BUSY:
            raise _BusyShopError(f"status {answer.status_code}")
        return answer

    def _read(self, answer: httpx.Response) -> tuple[httpx.Response, object]:
        try:
            return answer, answer.json()
        except ValueError:
            raise CommandFailed(f"{self.url} answers with a page instead of the REST API: {_hint(answer)}") from None


def _code(body: object) -> str:
    """The code of an error."""
    return str(cast("dict[str, Any]", body).get("code", "")) if isinstance(body, dict) else ""


def _refusal(path: str, answer: httpx.Response, body: object) -> CommandFailed:
    code = _code(body)
    if answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return CommandFailed(f"the shop refuses the key for {path} ({answer.status_code} {code}): it needs the permission to read")
    return CommandFailed(f"the shop refuses {path}: {answer.status_code} {code}")


def _read_at(answer: httpx.Response) -> datetime:
    """When the shop began to answer, by its own clock, which states whole seconds; by ours if it states no time."""
    try:
        at = parsedate_to_datetime(answer.headers["date"])
    except (KeyError, ValueError):
        at = datetime.now(UTC)
    return at.replace(tzinfo=at.tzinfo or UTC) - answer.elapsed


def _hint(answer: httpx.Response) -> str:
    if answer.is_redirect:
        return f"it redirects to {answer.headers.get('location', '')}; use that address"
    return f"status {answer.status_code}; permalinks have to be others than `plain`, and no security plugin may block /wp-json"


def _is_loopback(host: str) -> bool:
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False
