"""The kind `webhook`: each delivery is a signed request to an address that the shop names."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from hashlib import blake2b
from typing import Annotated, ClassVar, Final, Literal, Self

import httpx
import orjson
from pmp.ingestion.v1.event_pb2 import EventStored
from pydantic import AfterValidator, Field, HttpUrl, StringConstraints, model_validator
from typing_extensions import override

from kit.credentials.signing import SigningSecrets
from services.destinations.answers import retry_after
from services.destinations.configuration import SigningSecret
from services.destinations.kind import Destination, Erasure, Message, Options, Outcome, Outgoing, Result, Wanted
from services.destinations.webhook.addresses import AddressRefused, resolved
from services.destinations.webhook.payloads import ERASED, EVENT, ORDER_TYPES, OTHER_TYPES, body, happened

_TEST: Final = "webhook.test"
_MOST_READ: Final = 2**16
"""Bytes of an answer that are read, so that its connection can be used again; what it says is of no interest."""
_GONE: Final = 410
_UNAUTHORIZED: Final = 401
_REJECTED: Final = frozenset({400, 413, 422})
"""Statuses by which a receiver says that it will never take this webhook."""


def _is_known(pattern: str) -> str:
    types = (*ORDER_TYPES, *OTHER_TYPES, ERASED)
    if not pattern.startswith(EVENT) and not any(fnmatchcase(each, pattern) for each in types):
        message = f"no type of webhook; there are {', '.join(types)} and event. with the type of an event"
        raise ValueError(message)
    return pattern


def _may_be_event(pattern: str) -> bool:
    """Whether the type of an event may match a pattern, by what stands before its first wildcard."""
    fixed, *wild = re.split(r"[*?[]", pattern, maxsplit=1)
    return fixed.startswith(EVENT) or (bool(wild) and EVENT.startswith(fixed))


class WebhookOptions(Options):
    """How a destination of the kind `webhook` is configured."""

    url: HttpUrl
    """Where webhooks are sent: by https, unless private networks are allowed."""
    secrets: Annotated[list[SigningSecret], Field(min_length=1, max_length=3)]
    """Environment variables with the secrets that sign: `whsec_` and 24 to 64 bytes in base64. Each of several signs."""
    types: Annotated[list[Annotated[str, StringConstraints(max_length=120), AfterValidator(_is_known)]], Field(min_length=1)]
    """What is sent: `order.paid`, `event.page_view`, or `order.*` for several."""
    consent: Literal["analytics_tracking", "marketing_emails", "third_party_sharing", "none"] = "third_party_sharing"
    """What a person has to agree to. `none` is for systems of the shop itself."""
    allow_private_networks: bool = False
    """Whether the address may be in a private network or on this machine."""

    @model_validator(mode="after")
    def _is_private_on_the_way(self) -> Self:
        if self.url.scheme != "https" and not self.allow_private_networks:
            message = "url: not https, though it may be in a public network"
            raise ValueError(message)
        return self


class WebhookDestination(Destination[WebhookOptions]):
    """A system that receives webhooks. It recognises a repetition by its `webhook-id`."""

    options_type: ClassVar[type[WebhookOptions]] = WebhookOptions
    most_requests: ClassVar[int] = 16

    def __init__(self, name: str, options: WebhookOptions, http: httpx.AsyncClient) -> None:
        super().__init__(name, options, http)
        self.consent = None if options.consent == "none" else options.consent
        self._url = httpx.URL(str(options.url))
        self._exact = frozenset(options.types)
        self._takes_events = any(_may_be_event(each) for each in options.types)
        self._patterns = [each for each in options.types if "*" in each or "?" in each or "[" in each]

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        if isinstance(message, EventStored) and not self._takes_events:
            return ()  # most messages are events, and most webhooks want none
        return [each for each in happened(message) if self._wants(each.name)]

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        (delivery,) = deliveries
        return [await self._post(delivery.id, body(delivery.wanted, delivery.message))]

    @override
    async def test(self) -> Result:
        now = datetime.now(UTC)
        return await self._post(f"test_{int(now.timestamp())}", orjson.dumps({"type": _TEST, "timestamp": now.isoformat(), "data": {}}))

    @override
    async def erase(self, person: Erasure) -> Result | None:
        if not self._wants(ERASED):
            return None
        now, data = datetime.now(UTC), {"identifiers": list(person.identifiers), "emails": list(person.emails)}
        id_ = blake2b(orjson.dumps(data), digest_size=16).hexdigest()
        return await self._post(f"erase_{id_}", orjson.dumps({"type": ERASED, "timestamp": now.isoformat(), "data": data}))

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return True

    def _wants(self, type_: str) -> bool:
        return type_ in self._exact or any(fnmatchcase(type_, pattern) for pattern in self._patterns)

    async def _post(self, id_: str, content: bytes) -> Result:
        """Sends a webhook to the address that its host has at this moment."""
        host, port = self._url.host, self._url.port or (443 if self._url.scheme == "https" else 80)
        try:
            address = await resolved(host, port, allow_private=self.options.allow_private_networks)
        except AddressRefused as error:
            return Result(Outcome.RETRY, str(error))
        except OSError as error:
            return Result(Outcome.RETRY, f"its name does not resolve: {type(error).__name__}")
        now = datetime.now(UTC)
        headers = {
            "host": self._url.netloc.decode(),
            "content-type": "application/json",
            "webhook-id": id_,
            "webhook-timestamp": str(int(now.timestamp())),
            "webhook-signature": " ".join(
                SigningSecrets(secret.get_secret_value()).signature(id_, now, content) for secret in self.options.secrets
            ),
        }
        async with self.http.stream(
            "POST", self._url.copy_with(host=address), content=content, headers=headers, extensions={"sni_hostname": host}
        ) as response:
            read = 0
            async for part in response.aiter_raw():
                read += len(part)
                if read > _MOST_READ:
                    break
        return _result(response, datetime.now(UTC))


def _result(response: httpx.Response, now: datetime) -> Result:
    status = response.status_code
    if response.is_success:
        return Result(Outcome.DELIVERED, f"HTTP {status}")
    if status == _GONE:
        return Result(Outcome.UNAUTHORIZED, "HTTP 410: the receiver is gone")
    if status == _UNAUTHORIZED:
        return Result(Outcome.UNAUTHORIZED, "HTTP 401: the receiver does not accept the signature")
    if status in _REJECTED:
        return Result(Outcome.REJECTED, f"HTTP {status}")
    detail = f"HTTP {status}: redirects are not followed" if response.is_redirect else f"HTTP {status}"
    return Result(Outcome.RETRY, detail, retry_after(response.headers, now))


KIND = WebhookDestination
