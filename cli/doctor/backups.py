"""Examines the age of the last backup."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final

from cli.doctor.findings import Finding
from cli.doctor.subject import NotExamined, Subject, backend_of
from kit.log.ages import backup_seconds

_OLD: Final = timedelta(days=2)
_ACTION: Final = "`pmp backup FOLDER --keep 7`, every night by cron (docs/backup.md)"


async def backups(subject: Subject, now: datetime | None = None) -> AsyncIterator[Finding]:
    """Finds that the last backup is old, or that a mesh of some days has none."""
    if subject.local is None or subject.local.state.disk is None or backend_of(subject.keys) != "sqlite":
        raise NotExamined("databases on servers are backed up by their own tools (docs/backup.md)")
    now = now or datetime.now(UTC)
    folder = subject.local.folder
    age = await backup_seconds(subject.log)
    if age is not None:
        if timedelta(seconds=age) > _OLD:
            yield Finding(what=f"the last backup is of {now - timedelta(seconds=age):%Y-%m-%d %H:%M} UTC", action=_ACTION)
    elif now - datetime.fromtimestamp(folder.secrets.stat().st_mtime, UTC) > _OLD:
        yield Finding(what="there has never been a backup of this mesh", action=_ACTION)
