"""The settings of destinations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from services.destinations.received.settings import WebhookSettings

SERVICE: Final = "destinations"
"""The name of the service."""


class DestinationsSettings(WebhookSettings):
    """The settings that destinations reads beside those of all services."""

    destinations: Path | None = None
    """The file that configures the destinations (docs/destinations.md); without it, nothing is delivered anywhere."""
