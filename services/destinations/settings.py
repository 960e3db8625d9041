"""The settings of destinations alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from pydantic import Field, HttpUrl

from kit.credentials.signing import SITE_SECRET
from services.destinations.received.settings import WebhookSettings

SERVICE: Final = "destinations"
"""The name of the service."""


SITE: Final = "wordpress"
"""The name of the destination that is the shop's site, and its kind."""


def site_table(url: str) -> Mapping[str, Any]:
    """Returns the table of the destination that is the shop's site, given its route to accounts."""
    return {"kind": SITE, "url": url, "secret": SITE_SECRET}


class DestinationsSettings(WebhookSettings):
    """The settings that destinations reads beside those of all services."""

    destinations: Path | None = None
    """The file that configures the destinations (docs/destinations.md); without it, nothing is delivered anywhere."""

    site_users_url: HttpUrl | None = None
    """The plugin's route to accounts, by https or in a private network: adds the destination `wordpress`, which brings what the mesh
    derives of persons into the shop's site (docs/synchronisation.md). `PMP_SITE_ERASURE_SECRET` signs its calls. Not needed for a site
    that was connected by a code, whose address is known."""

    log_disk: Path | None = None
    """A folder on the disk of the mesh, for an alarm when it is nearly full: of a mesh on one machine that of its Redis."""
    notices_seconds: float = Field(default=60.0, gt=0)
    """Interval of looking for what the owner is to be sent, and for changed content."""

    @property
    def connected(self) -> Mapping[str, Mapping[str, Any]]:
        """Tables of the destinations that other settings add to the file's."""
        return {SITE: site_table(str(self.site_users_url))} if self.site_users_url is not None else {}
