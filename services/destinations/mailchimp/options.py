"""How a Mailchimp account is configured."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Final, Self

from pydantic import AnyHttpUrl, Field, model_validator

from services.destinations.configuration import Secret
from services.destinations.email_marketing import ProfileField
from services.destinations.kind import Options

_DATA_CENTRE: Final = re.compile(r"-([a-z]{2,4}[0-9]{1,4})$")


class MailchimpOptions(Options):
    """An audience of a Mailchimp account, and the store that its orders belong to."""

    api_key: Secret
    """An API key of the account."""
    list_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9]{1,50}$")]
    """The audience, by the id that its settings show."""
    double_opt_in: bool = False
    """Ask new members by e-mail to confirm."""
    merge_fields: Mapping[Annotated[str, Field(pattern=r"^[A-Z][A-Z0-9_]{0,9}$")], ProfileField] = {
        "FNAME": "first_name",
        "LNAME": "last_name",
    }
    """The merge fields of the audience, by their tags, and what each is filled with."""
    store_id: Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{0,50}$")] = ""
    """The store that orders belong to, which is created if Mailchimp has none of this id; empty: no orders are sent."""
    store_name: Annotated[str, Field(min_length=1, max_length=100)] = "Shop"
    """The name of the store, where it is created."""
    abandoned_cart_minutes: Annotated[int, Field(ge=0, le=10080)] = 60
    """How long after a cart was filled, if no order follows, the event `abandoned_cart` is sent; 0 for never. It needs `store_id`."""
    url: AnyHttpUrl | None = None
    """The address of the API, if it is not that of the key's data centre."""

    @model_validator(mode="after")
    def _has_address(self) -> Self:
        if self.url is None and _DATA_CENTRE.search(self.api_key.get_secret_value()) is None:
            message = "the API key has to end with its data centre, such as -us21"
            raise ValueError(message)
        return self

    @property
    def address(self) -> str:
        """The address of the API, without a slash at its end."""
        data_centre = _DATA_CENTRE.search(self.api_key.get_secret_value())
        return str(self.url).rstrip("/") if self.url or not data_centre else f"https://{data_centre[1]}.api.mailchimp.com/3.0"
