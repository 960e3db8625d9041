"""Examines the revisions of the databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping

from sqlalchemy import text

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject
from kit.database.revisions import newest
from kit.settings import KEYS_DATABASE


async def revisions(subject: Subject) -> AsyncIterator[Finding]:
    """Finds databases with pending migrations, and those that a newer version has migrated."""
    for name, database in {**subject.databases, KEYS_DATABASE: subject.keys}.items():
        async with database.sessions.reading() as session:
            known = _numbers(await session.scalars(text("SELECT version_num FROM alembic_version")))
        wanted = _numbers(newest(name))
        if known == wanted:
            continue
        what = f"the database of {name} has the revisions {_words(known)}, this version {_words(wanted)}"
        if any(number > wanted.get(branch, -1) for branch, number in known.items()):
            yield Finding(what=what, action="run the version that migrated it: an older one may not understand its tables")
        else:
            yield Finding(what=what, action="`pmp migrate` migrates it, and so does the start of the mesh")
    subject.mention_denied()


def _numbers(revisions: Iterable[str]) -> dict[str, int]:
    """The number of each branch: `ingestion_0004` is the fourth revision of `ingestion`."""
    return {branch: int(number) for branch, _, number in (revision.rpartition("_") for revision in revisions)}


def _words(numbers: Mapping[str, int]) -> str:
    return ", ".join(f"{branch} {number}" for branch, number in sorted(numbers.items())) or "none"
