"""Names of persons who were erased: what a service knows of them from the topic `gdpr`, in its own database.

A suppression does not say whose it is: it keeps a keyed digest, which whoever comes with the name can make again. It holds
for ever, but for an e-mail address under which somebody registered anew: that one holds for what happened before.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from pmp.gdpr.v1 import change_pb2 as pb
from sqlalchemy import Column, MetaData, Table, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id, UtcDateTime
from kit.database.transactions import upsert
from kit.people.persons import aliases
from kit.people.vault import Vault

suppressions = Table("suppressions", MetaData(), Column("digest", Id(32), primary_key=True), Column("erased_at", UtcDateTime))
"""Digests of names, in hex, and when their person was erased the last time."""

_FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_RETURNING: Final = "email:"


class Suppression(NamedTuple):
    """What holds of a name."""

    erased_at: datetime
    until: datetime = _FOREVER
    """Since when the name leads to somebody who came afterwards."""


class Suppressed:
    """Those of some names that are suppressed."""

    def __init__(self, names: Mapping[str, Suppression] | None = None) -> None:
        self._names = names or {}

    def __bool__(self) -> bool:
        """True when there is one."""
        return bool(self._names)

    def holds(self, name: str, at: datetime) -> bool:
        """True when what happened under a name at a time must not be stored."""
        held = self._names.get(name)
        return held is not None and at < held.until

    def precedes(self, name: str, at: datetime) -> bool:
        """True when a time is not behind the erasure of whoever had this name."""
        held = self._names.get(name)
        return held is not None and at <= held.erased_at


def digest(vault: Vault, name: str) -> bytes:
    """What stands for a name among the suppressions."""
    return vault.digest(name.encode(), purpose="suppression")


class Suppressions:
    """Suppressed names, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def of(self, vault: Vault, names: Collection[str]) -> Suppressed:
        """Which of these names are suppressed. One query; another one when there is an e-mail address among them."""
        digests = {digest(vault, name).hex(): name for name in names if name}
        if not digests:
            return Suppressed()
        query = select(suppressions.c.digest, suppressions.c.erased_at).where(suppressions.c.digest.in_(sorted(digests)))
        erased = {digests[row.digest]: row.erased_at for row in await self._session.execute(query)}
        returned = await self._returned({name: at for name, at in erased.items() if name.startswith(_RETURNING)})
        return Suppressed({name: Suppression(at, returned.get(name, _FOREVER)) for name, at in erased.items()})

    async def learn(self, changes: Iterable[pb.SuppressionChanged]) -> None:
        """Takes in what the topic tells. Applying something again, or something older, changes nothing."""
        told: dict[str, datetime] = {}
        for change in changes:
            name, at = change.digest.hex(), change.erased_at.ToDatetime(UTC)
            told[name] = max(at, told.get(name, at))
        await upsert(self._session, suppressions, [{"digest": name} for name in sorted(told)])
        query = select(suppressions).where(suppressions.c.digest.in_(sorted(told)), suppressions.c.erased_at.is_not(None))
        known = {row.digest: row.erased_at for row in await self._session.execute(query)}
        rows = [{"digest": name, "erased_at": max(at, known.get(name, at))} for name, at in sorted(told.items())]
        await upsert(self._session, suppressions, rows)

    async def _returned(self, erased: Mapping[str, datetime]) -> Mapping[str, datetime]:
        """Since when names lead to somebody who came after they were erased."""
        if not erased:
            return {}
        query = select(aliases.c.subject, func.min(aliases.c.linked_at).label("since")).where(aliases.c.subject.in_(sorted(erased)))
        rows = await self._session.execute(query.group_by(aliases.c.subject))
        return {row.subject: row.since for row in rows if row.since > erased[row.subject]}
