"""Brevo: who unsubscribes, complains or can't be reached.

Brevo does not sign webhooks: it sends the bearer token that it was given for them.
https://developers.brevo.com/docs/marketing-webhooks, https://developers.brevo.com/docs/secured-webhooks
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Annotated, Final

from pydantic import BaseModel, Field
from typing_extensions import override

from services.destinations.received.sender import Sender, parsed
from services.destinations.received.signatures import check_bearer
from services.destinations.received.statement import Nothing, Statement
from services.destinations.received.subscriptions import subscription

_LEAVING: Final = frozenset({"unsubscribe", "unsubscribed", "spam", "hard_bounce"})
"""Events after which a person is not subscribed: the documentation has both spellings of the first."""


class _Event(BaseModel):
    event: str = Field(max_length=100)


class _Left(BaseModel):
    email: Annotated[str, Field(pattern="@")]
    ts_event: Annotated[int, Field(ge=0, lt=10**10)]
    """When it happened, in seconds since 1970. `ts` and dates are in zones that the account decides."""


class Brevo(Sender):
    """Webhooks of Brevo."""

    @property
    @override
    def is_configured(self) -> bool:
        return bool(self.settings.secrets_of("brevo"))

    @override
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        check_bearer(self.settings.secrets_of("brevo"), headers)

    @override
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Statement | Nothing:
        kind = parsed(_Event, body).event
        if kind not in _LEAVING:
            return Nothing(kind)
        left = parsed(_Left, body)
        # A choice of the future would be newer than any that the person makes until then.
        at = min(datetime.fromtimestamp(left.ts_event, UTC), now)
        # Whoever leaves gets no campaign of the account's, of whichever list.
        return subscription(sha256(body).hexdigest(), kind, at, "brevo", left.email.strip(), subscribed=False)


SENDER: Final = Brevo
