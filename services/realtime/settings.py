"""The settings of realtime alone."""

from __future__ import annotations

from typing import Final

from pydantic import Field

from kit.settings import Settings

SERVICE: Final = "realtime"
"""The name of the service."""


class RealtimeSettings(Settings):
    """The settings that realtime reads beside those of all services."""

    realtime_streams: int = Field(default=4000, ge=1)
    """Most streams of this process at once; further ones are refused with `retry-after`."""

    realtime_streams_per_caller: int = Field(default=20, ge=1)
    """Most streams of one caller at once: of one API key's owner, scope and user."""

    realtime_window_bytes: int = Field(default=16_777_216, ge=262_144)
    """Memory of the newest responses, which are kept for readers that are slow; of what they miss beyond it they are given the number."""
