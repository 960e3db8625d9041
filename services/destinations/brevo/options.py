"""How a Brevo account is configured."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

from pydantic import AnyHttpUrl, Field

from services.destinations.configuration import Secret
from services.destinations.email_marketing import ProfileField
from services.destinations.kind import Options

_ListId = Annotated[int, Field(gt=0)]


class BrevoOptions(Options):
    """A list of a Brevo account."""

    api_key: Secret
    """An API key of the account."""
    list_id: _ListId
    """The list that persons are subscribed to, by the number that Brevo shows."""
    attributes: Mapping[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,49}$")], ProfileField] = {
        "FIRSTNAME": "first_name",
        "LASTNAME": "last_name",
    }
    """The attributes of contacts, by their names in the account, and what each is filled with."""
    course_lists: Mapping[str, _ListId] = {}
    """Lists of those who have a course, by the course's id."""
    orders: bool = False
    """Whether orders are sent. The account needs Brevo's eCommerce app."""
    url: AnyHttpUrl = AnyHttpUrl("https://api.brevo.com")
    """The address of the API."""

    @property
    def address(self) -> str:
        """The address of the API's version 3, without a slash at its end."""
        return f"{str(self.url).rstrip('/')}/v3"
