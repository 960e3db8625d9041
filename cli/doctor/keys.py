"""Examines the keys: whether those in use open what is stored. Keys that an erasure destroyed are as they should be."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Final

from sqlalchemy import func, select

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject
from kit.errors import Unavailable
from kit.people.derivation import InvalidKey, parse_key
from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifier_of
from kit.people.keys.store import owner_of
from kit.people.keys.table import keys as table
from kit.people.keys.wrapping import EnvironmentKeys
from services.identity.models import UserRow

_SAMPLE: Final = 20
_KEPT: Final = "restore it from the copy that you keep apart from the databases' backups"


async def keys(subject: Subject) -> AsyncIterator[Finding]:
    """Finds keys that are malformed, that are not those by which data was stored, and a rotation that is not complete."""
    try:
        wrapping, hasher = EnvironmentKeys.parse(subject.key_encryption_keys), KeyedHasher(parse_key(subject.vault_key))
    except InvalidKey as error:
        yield Finding(what=str(error), action=_KEPT)
        return
    async for finding in _wrapping(subject, wrapping):
        yield finding
    if not await _is_known(subject, hasher):
        yield Finding(what="PMP_VAULT_KEY is not the key by which persons were stored: none is recognised any more", action=_KEPT)
    if "identity" in subject.denied:
        subject.mention_denied()


async def _wrapping(subject: Subject, wrapping: EnvironmentKeys) -> AsyncIterator[Finding]:
    """Tries to unwrap one key of those that each key encryption key wraps."""
    query = select(table.c.wrapped_by, func.count().label("count"), func.max(table.c.wrapped).label("sample"))
    async with subject.keys.sessions.reading() as session:
        rows = (await session.execute(query.where(table.c.wrapped.is_not(None)).group_by(table.c.wrapped_by))).all()
    for row in rows:
        try:
            await wrapping.unwrap(row.sample, row.wrapped_by)
        except Unavailable:
            what = f"{row[1]:,} keys of persons are wrapped by a key that is not among PMP_KEY_ENCRYPTION_KEYS"
            yield Finding(what=what, action=f"{_KEPT}, and append it with a comma")
            continue
        if row.wrapped_by != wrapping.current:
            action = "`pmp keys rotate` wraps them by the newest key; only then may the older one be removed"
            yield Finding(what=f"{row[1]:,} keys of persons are wrapped by an older key", action=action)


async def _is_known(subject: Subject, hasher: KeyedHasher) -> bool:
    """Whether some of the newest users' addresses have keys under the digests that the key makes; true if nobody has an address."""
    identity = subject.databases.get("identity")
    if identity is None:
        return True
    query = select(UserRow.email_hash).where(UserRow.email.is_not(None), UserRow.email_hash.is_not(None))
    async with identity.sessions.reading() as session:
        hashes = (await session.scalars(query.order_by(UserRow.created_at.desc()).limit(_SAMPLE))).all()
    owners = {owner_of(identifier_of(email_hash=each), hasher).hex() for each in hashes if each}
    async with subject.keys.sessions.reading() as session:
        known = await session.scalar(select(func.count()).select_from(table).where(table.c.owner.in_(owners)))
    return not owners or bool(known)
