"""The settings of destinations alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field, HttpUrl

from services.destinations.received.settings import WebhookSettings

SERVICE: Final = "destinations"
"""The name of the service."""


class DestinationsSettings(WebhookSettings):
    """The settings that destinations reads beside those of all services."""

    destinations: Path | None = None
    """The file that configures the destinations (docs/destinations.md); without it, nothing is delivered anywhere."""

    site_users_url: HttpUrl | None = None
    """The plugin's route to accounts, by https or in a private network: adds the destination `wordpress`, which brings what the mesh
    derives of persons into the shop's site (docs/synchronisation.md). `PMP_SITE_ERASURE_SECRET` signs its calls."""

    log_disk: Path | None = None
    """A folder on the disk of the mesh, for an alarm when it is nearly full: of a mesh on one machine that of its Redis."""
    notices_seconds: float = Field(default=60.0, gt=0)
    """Interval of looking for what the owner is to be sent, and for changed content."""

    @property
    def connected(self) -> Mapping[str, Mapping[str, Any]]:
        """Tables of the destinations that other settings add to the file's."""
        if self.site_users_url is None:
            return {}
        return {"wordpress": {"kind": "wordpress", "url": str(self.site_users_url), "secret": "PMP_SITE_ERASURE_SECRET"}}
