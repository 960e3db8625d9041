"""How a property of Google Analytics is configured."""

from __future__ import annotations

from typing import Annotated, Literal, Self, TypeAlias

from pydantic import Field, SecretStr, StringConstraints, ValidationError, model_validator

from services.destinations.configuration import Secret, named_secret
from services.destinations.ga4.deletion import ServiceAccount
from services.destinations.kind import Options

EventName: TypeAlias = Literal["page_view", "generate_lead", "sign_up", "begin_checkout", "purchase", "refund"]
"""What can be sent, in the words of Google Analytics."""


def _account(secret: str) -> ServiceAccount:
    try:
        return ServiceAccount.model_validate_json(secret)
    except ValidationError:
        # Its text would show parts of the key.
        message = "the variable does not have the JSON of a key file"
        raise ValueError(message) from None


class Ga4Options(Options):
    """A web stream of a property."""

    measurement_id: Annotated[str, StringConstraints(pattern=r"^G-[A-Z0-9]{4,20}$")]
    """The stream, `G-…`: Admin > Data streams."""
    api_secret: Secret
    """The name of an environment variable with a Measurement Protocol API secret of that stream."""
    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#]+$")] = "https://www.google-analytics.com"
    """The server; `https://region1.google-analytics.com` collects in the European Union."""
    events: Annotated[frozenset[EventName], Field(min_length=1)] = frozenset({"purchase", "refund"})
    """What is sent. Google Analytics counts everything but purchases twice that the site's own tag sends, too."""
    pseudonyms: bool = False
    """Whether a visitor whom Google's tag gave no client id is sent under one that is derived from the session."""
    user_ids: bool = False
    """Whether the shop's user id is sent as `user_id`."""
    property_id: Annotated[str, StringConstraints(pattern=r"^\d{0,20}$")] = ""
    """The property, for deletions: Admin > Property details."""
    service_account: Annotated[SecretStr, named_secret(_account)] | None = None
    """The name of an environment variable with the JSON key of a service account that may edit the property, for deletions."""
    admin_endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#]+$")] = "https://analyticsadmin.googleapis.com"
    """The server of the Admin API."""

    @property
    def account(self) -> ServiceAccount | None:
        """The service account of this moment; None if no one is deleted."""
        return _account(self.service_account.get_secret_value()) if self.service_account else None

    @model_validator(mode="after")
    def _deletes_by_user_id(self) -> Self:
        if self.service_account is not None and not (self.user_ids and self.property_id):
            message = "service_account: deletes by user id, and needs user_ids and property_id"
            raise ValueError(message)
        return self
