"""The orders of a WooCommerce shop, as the plugin of the shop answers calls that the mesh has signed."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, Final, cast
from uuid import uuid4

import httpx
import orjson
import stamina
from pmp.purchases.v1.purchases_pb2 import Purchase

from cli.errors import CommandFailed
from cli.shop_reports import PLUGIN, Read, Reports, order_of_report
from kit.credentials.signing import SigningSecrets
from kit.settings import is_private

_AT_ONCE: Final = 50
"""Orders whose reports are read with one call."""
_SECONDS: Final = 60.0
"""Timeout of a call: the plugin ends a page after eight seconds, and a slow shop takes longer for the last order."""
_ATTEMPTS: Final = 4
_BUSY: Final = frozenset({429, 500, 502, 503, 504})


class _Busy(Exception):
    """The shop may answer the next time."""


class ShopOrders:
    """The orders of a shop. Close it when done.

    Args:
        url: of the plugin's route, such as `https://shop.example/wp-json/pmp/v1/orders`.
        secret: signs the calls: `whsec_` and base64, as the plugin has it.

    Raises:
        CommandFailed: the address would reveal orders on the way, or the secret is none.
    """

    def __init__(self, url: str, secret: str) -> None:
        try:
            parsed = httpx.URL(url)
        except httpx.InvalidURL as error:
            raise CommandFailed(f"{url} is no URL: {error}") from error
        if parsed.scheme not in {"http", "https"} or (parsed.scheme == "http" and not is_private(parsed.host)):
            raise CommandFailed(f"{url} is neither https nor in a private network: orders would be read on the way")
        try:
            self._secrets = SigningSecrets(secret)
        except ValueError as error:
            raise CommandFailed(f"PMP_SITE_ERASURE_SECRET {error}; the plugin has the same") from None
        self._url = url
        self._client = httpx.AsyncClient(timeout=_SECONDS)

    async def close(self) -> None:
        """Closes the connections."""
        await self._client.aclose()

    async def pages(self, since: datetime, until: datetime) -> AsyncIterator[Sequence[Purchase]]:
        """The orders that were placed from `since` on and before `until`, as far as they decide what an order amounts to.

        Raises:
            CommandFailed: the shop does not answer, or not as the plugin does.
        """
        after: Mapping[str, Any] | None = {"after": max(0, int(since.timestamp()))}
        while after is not None:
            answer = await self._call("orders.list", {**after, "until": int(until.timestamp())})
            yield [order_of_report(each) for each in answer["orders"]]
            after = answer.get("next")

    async def read(self, order_ids: Collection[str]) -> Read:
        """The reports of orders as they are now.

        Raises:
            CommandFailed: the shop does not answer, or not as the plugin does.
        """
        numbers, found, at = sorted(order_ids), dict[str, Reports](), ""
        for start in range(0, len(numbers), _AT_ONCE):
            answer = await self._call("orders.read", {"orders": numbers[start : start + _AT_ONCE]})
            found |= {each["order_id"]: Reports(each["purchase"], each["refunds"]) for each in answer["orders"]}
            at = at or answer["read_at"]
        return Read(at, found)

    def source(self, known: Collection[str]) -> str:  # noqa: ARG002 (the plugin reports all orders)
        """The source under which the plugin reports its orders."""
        return PLUGIN

    async def _call(self, kind: str, data: Mapping[str, Any]) -> Mapping[str, Any]:
        try:
            async for attempt in stamina.retry_context(on=(httpx.TransportError, _Busy), attempts=_ATTEMPTS, timeout=None):
                with attempt:
                    return _content(await self._send(kind, data), self._url)
        except (httpx.TransportError, _Busy) as error:
            raise CommandFailed(f"{self._url} does not answer: {error or type(error).__name__}") from error
        raise AssertionError  # unreachable: the loop ends with an answer or an error

    async def _send(self, kind: str, data: Mapping[str, Any]) -> httpx.Response:
        call, now = str(uuid4()), datetime.now(UTC)
        body = orjson.dumps({"type": kind, "timestamp": now.isoformat(), "data": data})
        headers = {
            "content-type": "application/json",
            "user-agent": "pmp-mesh",
            "webhook-id": call,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": self._secrets.signature(call, now, body),
        }
        answer = await self._client.post(self._url, content=body, headers=headers)
        if answer.status_code in _BUSY:
            raise _Busy(f"HTTP {answer.status_code}")
        return answer


def _content(answer: httpx.Response, url: str) -> Mapping[str, Any]:
    if answer.status_code == HTTPStatus.UNAUTHORIZED:
        raise CommandFailed(f"{url} refuses the signature: the plugin has another PMP_SITE_ERASURE_SECRET, or another time")
    if not answer.is_success:
        raise CommandFailed(f"{url} answers HTTP {answer.status_code}: it must be the address of the plugin's route, .../pmp/v1/orders")
    try:
        content: Any = orjson.loads(answer.content)
    except orjson.JSONDecodeError:
        content = None
    if not isinstance(content, dict) or not {"orders", "read_at"} <= content.keys():
        raise CommandFailed(f"{url} answers, but not as the plugin does: is it the newest version?")
    return cast("Mapping[str, Any]", content)
