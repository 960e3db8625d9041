"""The settings of ingestion alone."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Final, Literal

from pydantic import Field

from kit.settings import Settings

SERVICE: Final = "ingestion"
"""Name of the service and of its database."""


class IngestionSettings(Settings):
    """The settings that the API and the worker of ingestion read beside those of all services."""

    log_disk: Path | None = None
    """A folder on the disk of Redis, where that is a disk of this machine: `pmp up` sets it for the Redis it runs."""

    log_disk_min_bytes: int = Field(default=536_870_912, ge=0)
    """Free bytes of that disk below which intake stops with 429: about twice `log_max_bytes`, so that a full log drains."""

    log_keep: timedelta = timedelta(hours=1)
    """How long processed entries stay in the raw log, for a database that is restored."""

    site_log_retention: timedelta = timedelta(days=90)
    """How long the outcome of each delivery of an event is kept."""

    site_consent_denied: Literal["anonymous", "drop"] = "anonymous"
    """What becomes of events whose person has denied analytics: stored without anything that leads to a person, or not at all."""

    site_consent_unknown: Literal["store", "anonymous", "drop"] = "store"
    """What becomes of events of whose person no choice about analytics is known."""
