"""Examines the disk of the log: when it is full, intake stops."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from cli.doctor.findings import Finding
from cli.doctor.subject import NotExamined, Subject

_ENOUGH: Final = 2
"""Times the space below which intake stops."""


async def disk(subject: Subject) -> AsyncIterator[Finding]:
    """Finds a disk that is nearly full."""
    if subject.local is None:
        raise NotExamined("the cluster's monitoring watches its volumes")
    found = subject.local.state.disk
    if found is None:
        raise NotExamined("the log is in a Redis of your own: watch the disk of its server")
    if found.free_bytes() < _ENOUGH * found.least_bytes:
        action = f"free some space: `du --summarize --human-readable {subject.local.folder.path}/*` says what the mesh takes of it"
        yield Finding(what=found.describe(), action=action)
