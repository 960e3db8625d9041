"""The settings of destinations alone."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from kit.settings import Settings

SERVICE: Final = "destinations"
"""The name of the service."""


class DestinationsSettings(Settings):
    """The settings that destinations reads beside those of all services."""

    destinations: Path | None = None
    """The file that configures the destinations (docs/destinations.md); without it, nothing is delivered anywhere."""
