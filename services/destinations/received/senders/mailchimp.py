"""Mailchimp: who unsubscribes, complains or can't be reached.

https://mailchimp.com/developer/marketing/guides/sync-audience-data-webhooks/
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Final
from urllib.parse import parse_qs

from typing_extensions import override

from services.destinations.received.sender import Sender
from services.destinations.received.signatures import check_timestamped
from services.destinations.received.statement import Nothing, Statement, Unreadable
from services.destinations.received.subscriptions import subscription

_SIGNATURE: Final = "x-mailchimp-signature"
_LIST: Final = re.compile(r"[A-Za-z0-9._:-]{1,80}")
_SUBSCRIBED: Final = {"subscribe": True, "unsubscribe": False, "cleaned": False}
"""Types of webhooks about one person, and whether the person is subscribed after it."""


class Mailchimp(Sender):
    """Webhooks of Mailchimp."""

    @property
    @override
    def is_configured(self) -> bool:
        return bool(self.settings.secrets_of("mailchimp"))

    @override
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        check_timestamped(self.settings.secrets_of("mailchimp"), body, headers, _SIGNATURE, now)

    @override
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Statement | Nothing:
        fields = _fields(body)
        kind = fields.get("type", "")
        if kind not in _SUBSCRIBED:
            return Nothing(kind)
        email, audience, at = fields.get("data[email]", "").strip(), fields.get("data[list_id]", ""), _time(fields.get("fired_at", ""))
        if "@" not in email or _LIST.fullmatch(audience) is None:
            raise Unreadable("these fields are missing or of another type: data.email, data.list_id")
        return subscription(sha256(body).hexdigest(), kind, at, f"mailchimp:{audience}", email, subscribed=_SUBSCRIBED[kind])


def _fields(body: bytes) -> Mapping[str, str]:
    try:
        return {name: values[-1] for name, values in parse_qs(body.decode(), max_num_fields=200, errors="strict").items()}
    except ValueError:
        raise Unreadable("the body is not a form in UTF-8") from None


def _time(text: str) -> datetime:
    try:
        return datetime.strptime(text, "%Y-%m-%d %H:%M:%S").replace(tzinfo=UTC)
    except ValueError:
        raise Unreadable("these fields are missing or of another type: fired_at") from None


SENDER: Final = Mailchimp
