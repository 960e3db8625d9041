"""How a dataset of Meta is configured."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from pydantic import Field, StringConstraints

from services.destinations.configuration import Secret
from services.destinations.kind import Options

EventName: TypeAlias = Literal["PageView", "Lead", "CompleteRegistration", "InitiateCheckout", "Purchase"]
"""What can be sent, in the words of Meta."""


class MetaOptions(Options):
    """A dataset, which was called a pixel."""

    dataset_id: Annotated[str, StringConstraints(pattern=r"^\d{5,30}$")]
    """The dataset: Events Manager > Settings."""
    access_token: Secret
    """The name of an environment variable with an access token for that dataset."""
    endpoint: Annotated[str, StringConstraints(pattern=r"^https?://[^/?#]+$")] = "https://graph.facebook.com"
    """The server."""
    version: Annotated[str, StringConstraints(pattern=r"^v\d{1,3}\.\d$")] = "v26.0"
    """The version of the Graph API."""
    events: Annotated[frozenset[EventName], Field(min_length=1)] = frozenset({"Purchase"})
    """What is sent. Meta counts twice what the site's own pixel sends under another event id."""
    data_processing_options: tuple[Literal["LDU"], ...] | None = None
    """`["LDU"]`: Limited Data Use; `[]`: explicitly none; without the option, none is sent."""
    data_processing_options_country: int = 0
    """With Limited Data Use: 1 for the United States, 0 to let Meta find out."""
    data_processing_options_state: int = 0
    """With Limited Data Use: 1000 for California, 0 to let Meta find out."""
    test_event_code: str = ""
    """The code of Events Manager > Test events: events are shown there, and count for nothing."""
