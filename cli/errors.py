"""The one error that a command prints."""

from __future__ import annotations


class CommandFailed(Exception):
    """A command failed. `str()` states the reason and what to do about it; the exit status is 1."""
