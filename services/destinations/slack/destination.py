"""The kind `slack`: what the owner is sent, as a message in a channel. Mattermost, Rocket.Chat and others take the same requests."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, ClassVar, Final

import httpx
from pmp.destinations.v1.notice_pb2 import PeriodEnded
from pydantic import SecretStr
from typing_extensions import override

from services.destinations.answers import retry_after
from services.destinations.configuration import named_secret
from services.destinations.kind import Outcome, Outgoing, Result
from services.destinations.owner.kind import OwnerDestination
from services.destinations.owner.wishes import OwnerOptions, rendered

_GONE: Final = frozenset({401, 403, 404, 410})
"""Statuses of a webhook that was revoked, or whose channel is archived."""
_REJECTED: Final = frozenset({400, 413})


def _is_url(secret: str) -> None:
    url = httpx.URL(secret)
    if url.scheme not in {"https", "http"} or not url.host:
        message = "is no https address"
        raise ValueError(message)


class SlackOptions(OwnerOptions):
    """How a destination of the kind `slack` is configured."""

    webhook: Annotated[SecretStr, named_secret(_is_url)]
    """The environment variable with the address of the incoming webhook: who knows it may write to the channel."""


class SlackDestination(OwnerDestination[SlackOptions]):
    """Messages in a channel. A repetition is shown again: nothing in a request identifies it."""

    options_type: ClassVar[type[SlackOptions]] = SlackOptions

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        (delivery,) = deliveries
        content = rendered(self.options, delivery.message)
        text = f"```{content.text}```" if isinstance(delivery.message, PeriodEnded) else content.text
        message = {"text": f"*{_escaped(content.subject)}*\n{_escaped(text)}"}
        response = await self.http.post(self.options.webhook.get_secret_value(), json=message)
        status = response.status_code
        if response.is_success:
            return [Result(Outcome.DELIVERED, f"HTTP {status}")]
        if status in _GONE:
            return [Result(Outcome.UNAUTHORIZED, f"HTTP {status}: the webhook is gone")]
        if status in _REJECTED:
            return [Result(Outcome.REJECTED, f"HTTP {status}")]
        return [Result(Outcome.RETRY, f"HTTP {status}", retry_after(response.headers, datetime.now(UTC)))]

    @override
    async def test(self) -> Result:
        # An empty request is refused without a trace in the channel, by a webhook that exists.
        response = await self.http.post(self.options.webhook.get_secret_value(), json={})
        if response.status_code in _GONE:
            return Result(Outcome.UNAUTHORIZED, f"HTTP {response.status_code}: the webhook is gone")
        return Result(Outcome.DELIVERED if response.status_code in _REJECTED else Outcome.RETRY, f"HTTP {response.status_code}")


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


KIND = SlackDestination
