"""The settings of identity alone."""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated

from pydantic import Field

from kit.settings import Settings


class IdentitySettings(Settings):
    """The settings that identity reads beside those of all services."""

    site_inactive_after: Annotated[timedelta, Field(ge=timedelta(days=1))] = timedelta(days=180)
    """How long after the last visit, login, registration or order a person is inactive."""
