"""What a report says of the buyer's browser: kept apart from the order's other properties, and sealed. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

VISITOR_FIELDS: Final = frozenset({"ga_client_id", "ga_session_id", "fbp", "fbc", "user_agent", "page_url", "global_privacy_control"})
"""Properties of an order that identify or describe the browser in which it was placed."""


class Properties(NamedTuple):
    """The free-form properties of an order."""

    visitor: Mapping[str, Any]
    """Those of the buyer's browser."""
    others: Mapping[str, Any]


def properties(metadata: Mapping[str, Any]) -> Properties:
    """Returns the properties of an order as reported, those of the buyer's browser apart."""
    visitor = {name: value for name, value in metadata.items() if name in VISITOR_FIELDS}
    return Properties(visitor, {name: value for name, value in metadata.items() if name not in VISITOR_FIELDS})
