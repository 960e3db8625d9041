"""How a property of Google Analytics is configured."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from services.destinations.configuration import Secret
from services.destinations.kind import Options

EventName: TypeAlias = Literal["page_view", "generate_lead", "sign_up", "begin_checkout", "purchase", "refund"]
"""What can be sent, in the words of Google Analytics."""


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
