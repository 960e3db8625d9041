"""Suppressed identifiers, those of erased persons: each service projects them from the topic `gdpr` into its own database.

A suppression holds a keyed digest instead of the identifier, so that it reveals nobody and can still be looked up. It never
expires. Only an e-mail address that is registered anew after the erasure is suppressed for what happened before the registration.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple, TypeAlias

from pmp.gdpr.v1 import change_pb2 as pb
from sqlalchemy import Column, MetaData, Table, bindparam, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id, UtcDateTime
from kit.database.transactions import upsert
from kit.people.hashing import KeyedHasher
from kit.people.persons import person_links

suppressions = Table("suppressions", MetaData(), Column("digest", Id(32), primary_key=True), Column("erased_at", UtcDateTime))
"""Digests of identifiers, in hex, and when their person was last erased."""

_ERASED: Final = select(suppressions.c.digest, suppressions.c.erased_at).where(
    suppressions.c.digest.in_(bindparam("digests", expanding=True))
)
_FOREVER: Final = datetime.max.replace(tzinfo=UTC)
_RETURNING: Final = "email:"


class Suppression(NamedTuple):
    """The suppression of an identifier."""

    erased_at: datetime
    until: datetime = _FOREVER
    """From then on the identifier belongs to a person who registered after the erasure."""


Suppressed: TypeAlias = Mapping[str, Suppression]
"""The identifiers that are suppressed, out of those that were asked for."""


@dataclass(frozen=True, slots=True)
class Screening:
    """Whether a record may be stored, and without which of its identifiers."""

    is_dropped: bool = False
    """The record is an erased person's: it is not stored, or only without its person."""
    stripped: frozenset[str] = frozenset()
    """Identifiers of erased persons in a record of another person. Nothing may be stored of them."""


_KEPT: Final = Screening()
_DROPPED: Final = Screening(is_dropped=True)


def screen(identifiers: Iterable[str], at: datetime, suppressed: Suppressed) -> Screening:
    """Screens a record: it is dropped if its strongest identifier is suppressed, and stripped of weaker ones that are.

    Args:
        identifiers: Those of the record, the strongest first; empty ones are passed over.
        at: When it happened.
        suppressed: Suppressions of these identifiers.
    """
    if not suppressed:
        return _KEPT
    present = [identifier for identifier in identifiers if identifier]
    held = frozenset(each for each in present if each in suppressed and at < suppressed[each].until)
    if not held:
        return _KEPT
    return _DROPPED if present[0] in held else Screening(stripped=held)


def for_registration(suppressed: Suppressed) -> Suppressed:
    """Suppressions as a registration meets them: an e-mail address can be registered anew after its erasure, other identifiers never."""
    return {
        identifier: suppression._replace(until=suppression.erased_at + timedelta.resolution)
        if identifier.startswith(_RETURNING)
        else suppression
        for identifier, suppression in suppressed.items()
    }


def digest(hasher: KeyedHasher, identifier: str) -> bytes:
    """Returns what the suppressions hold in place of an identifier."""
    return hasher.digest(identifier.encode(), purpose="suppression")


class Suppressions:
    """The suppressions that a service knows, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def of(self, hasher: KeyedHasher, identifiers: Collection[str]) -> Suppressed:
        """Returns those identifiers that are suppressed. One query; a second one if an e-mail address is among them."""
        digests = {digest(hasher, each).hex(): each for each in identifiers if each}
        if not digests:
            return {}
        found = await self._session.execute(_ERASED, {"digests": sorted(digests)})
        erased = {digests[row.digest]: row.erased_at for row in found}
        returned = await self._returned({each: at for each, at in erased.items() if each.startswith(_RETURNING)})
        return {each: Suppression(at, returned.get(each, _FOREVER)) for each, at in erased.items()}

    async def apply(self, changes: Iterable[pb.SuppressionChanged]) -> None:
        """Applies changes of the topic. Applying one again, or an older one, changes nothing."""
        newest: dict[str, datetime] = {}
        for change in changes:
            key, at = change.digest.hex(), change.erased_at.ToDatetime(UTC)
            newest[key] = max(at, newest.get(key, at))
        await upsert(self._session, suppressions, [{"digest": key} for key in sorted(newest)])
        query = select(suppressions).where(suppressions.c.digest.in_(sorted(newest)), suppressions.c.erased_at.is_not(None))
        known = {row.digest: row.erased_at for row in await self._session.execute(query)}
        rows = [{"digest": key, "erased_at": max(at, known.get(key, at))} for key, at in sorted(newest.items())]
        await upsert(self._session, suppressions, rows)

    async def _returned(self, erased: Mapping[str, datetime]) -> Mapping[str, datetime]:
        """Returns when identifiers were linked to a person again, of those that were after their erasure."""
        if not erased:
            return {}
        query = select(person_links.c.subject, func.min(person_links.c.linked_at).label("since")).where(
            person_links.c.subject.in_(sorted(erased))
        )
        rows = await self._session.execute(query.group_by(person_links.c.subject))
        return {row.subject: row.since for row in rows if row.since > erased[row.subject]}
