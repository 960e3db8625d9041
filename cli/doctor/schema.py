"""Examines the revisions of the databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable

from sqlalchemy import text

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject
from kit.database.revisions import is_of_later_release, newest
from kit.settings import KEYS_DATABASE


async def revisions(subject: Subject) -> AsyncIterator[Finding]:
    """Finds databases with pending migrations. One that a later release has migrated is none: this release works with it as it is."""
    for name, database in {**subject.databases, KEYS_DATABASE: subject.keys}.items():
        async with database.sessions.reading() as session:
            known = set(await session.scalars(text("SELECT version_num FROM alembic_version")))
        wanted = set(newest(name))
        if known != wanted and not is_of_later_release(name, known):
            what = f"the database of {name} has the revisions {_words(known)}, this version {_words(wanted)}"
            yield Finding(what=what, action="`pmp migrate` migrates it, and so does the start of the mesh")
    subject.mention_denied()


def _words(revisions: Iterable[str]) -> str:
    return ", ".join(sorted(revisions)) or "none"
