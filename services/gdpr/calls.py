"""Calls of systems outside of the mesh. Those that ask them to erase persons are webhooks, signed as Standard Webhooks specifies (https://www.standardwebhooks.com)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import orjson

from kit.errors import Unavailable
from services.gdpr.settings import GdprSettings

TYPE: Final = "person.erased"
"""The type of the webhook."""

REACHED: Final = "reached"
"""A site gave the expected answer."""
UNREACHABLE: Final = "unreachable"
"""Nothing answered in time."""
REFUSED: Final = "refused"
"""Something answered with another status than success."""
OTHER: Final = "other"
"""Something else answered."""

_SECONDS: Final = 10.0
_CHECK_SECONDS: Final = 5.0
_CHECK_BYTES: Final = 4096
_AGENT: Final = "pmp-mesh"
_REST: Final = timedelta(seconds=30)
"""How long a system that did not respond is not called: other requests would wait for it, one after the other."""


class Calls:
    """Systems outside of the mesh that hold data of its persons."""

    def __init__(self, settings: GdprSettings) -> None:
        self._addresses = {name: str(url) for name, url in settings.site_erasure_calls.items()}
        self._settings = settings
        self._resting: dict[str, datetime] = {}
        self.systems = sorted(self._addresses)

    async def erase(self, system: str, request_id: str, person: Mapping[str, Any]) -> None:
        """Asks a system to erase a person. The id of the call is the idempotency key.

        Raises:
            Unavailable: it did not accept the call, or is not in the settings any more.
        """
        if system not in self._addresses or (secrets := self._settings.signing_secrets) is None:
            raise Unavailable(f"{system} is not in the settings")
        call, now = f"{request_id}-{system}", datetime.now(UTC)
        if system in self._resting and now < self._resting[system]:
            raise Unavailable(f"{system} did not answer a moment ago")
        body = orjson.dumps({"type": TYPE, "timestamp": now.isoformat(), "data": {"request": request_id, **person}})
        headers = {
            "content-type": "application/json",
            "user-agent": _AGENT,
            "webhook-id": call,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": secrets.signature(call, now, body),
        }
        try:
            async with httpx.AsyncClient(timeout=_SECONDS) as client:
                answer = await client.post(self._addresses[system], content=body, headers=headers)
        except httpx.TransportError as error:
            self._resting[system] = datetime.now(UTC) + _REST
            raise Unavailable(f"{system} does not answer: {type(error).__name__}") from None
        if not answer.is_success:
            raise Unavailable(f"{system} answers {answer.status_code}")


async def check_site(url: str, answer: str) -> tuple[str, int]:
    """Calls a site, following no redirects. Of what it answers nothing is kept but whether it is the expected answer.

    Args:
        url: an address of the site.
        answer: what it answers as `{"answer": "..."}`.

    Returns:
        What was found, and the HTTP status of a refusal, else 0.
    """
    try:
        async with (
            asyncio.timeout(_CHECK_SECONDS),
            httpx.AsyncClient(timeout=_CHECK_SECONDS) as client,
            client.stream("GET", url, headers={"user-agent": _AGENT, "accept": "application/json"}) as response,
        ):
            if not response.is_success:
                return REFUSED, response.status_code
            body = b""
            async for part in response.aiter_bytes(_CHECK_BYTES):
                body += part
                if len(body) > _CHECK_BYTES:
                    break
    except (httpx.TransportError, TimeoutError):
        return UNREACHABLE, 0
    return (REACHED if _answers(body, answer) else OTHER), 0


def _answers(body: bytes, answer: str) -> bool:
    try:
        return orjson.loads(body) == {"answer": answer}
    except orjson.JSONDecodeError:
        return False
