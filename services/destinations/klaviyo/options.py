"""How a Klaviyo account is configured."""

from __future__ import annotations

from typing import Annotated

from pydantic import AnyHttpUrl, Field

from services.destinations.configuration import Secret
from services.destinations.kind import Options


class KlaviyoOptions(Options):
    """A Klaviyo account."""

    api_key: Secret
    """A private API key, with the scopes `events:write`, `lists:write`, `profiles:read`, `profiles:write`, `subscriptions:write` and
    `data-privacy:write`."""
    list_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{0,20}$")] = ""
    """The list that persons are subscribed to, whose double opt-in applies; empty: they are subscribed to the account."""
    url: AnyHttpUrl = AnyHttpUrl("https://a.klaviyo.com")
    """The address of the API."""

    @property
    def address(self) -> str:
        """The address of the API, without a slash at its end."""
        return str(self.url).rstrip("/")
