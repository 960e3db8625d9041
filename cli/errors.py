"""The one error a person at the terminal is told about."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command could not do its work. `str()` says why and what to do about it; the exit status is 1."""
