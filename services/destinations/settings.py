"""The settings of destinations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from pydantic import Field

from services.destinations.received.settings import WebhookSettings

SERVICE: Final = "destinations"
"""The name of the service."""


class DestinationsSettings(WebhookSettings):
    """The settings that destinations reads beside those of all services."""

    destinations: Path | None = None
    """The file that configures the destinations (docs/destinations.md); without it, nothing is delivered anywhere."""

    log_disk: Path | None = None
    """A folder on the disk of the mesh, for an alarm when it is nearly full: of a mesh on one machine that of its Redis."""
    notices_seconds: float = Field(default=60.0, gt=0)
    """Interval of looking for what the owner is to be sent, and for changed content."""
