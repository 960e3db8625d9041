"""The SQL of conflicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from sqlalchemy import insert, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from kit.people.hashing import KeyedHasher
from kit.people.keys.store import Keys
from kit.people.persons import PersonKey, persons
from kit.people.suppression import Suppressions, screen
from kit.rules import PageKey
from services.destinations.conflicts.models import ConflictRow
from services.destinations.conflicts.personal import VALUE_CONTEXT


@dataclass(frozen=True, slots=True)
class Conflict:
    """A conflict that is about to be stored."""

    id: str
    subject: str
    field: str
    kept: str
    decided_at: datetime
    site_value: bytes = b""
    """Sealed, as is the next one."""
    mesh_value: bytes = b""


async def sealed(keys: Keys, conflict: Conflict, values: tuple[str, str]) -> Conflict:
    """Returns a conflict with the values of the site and of the mesh, sealed; both are empty if its person was erased."""
    seal = (await keys.seals({conflict.subject}))[conflict.subject]
    site, mesh = (seal.seal(value, context=VALUE_CONTEXT) for value in values)
    return replace(conflict, site_value=site, mesh_value=mesh)


class Conflicts:
    """Conflicts, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, conflict: Conflict, hasher: KeyedHasher, now: datetime) -> bool:
        """Stores a conflict, unless its person was erased; returns whether it is new.

        Raises:
            IntegrityError: another transaction is storing it.
        """
        suppressed = await Suppressions(self._session).of(hasher, [conflict.subject])
        if not conflict.site_value or screen([conflict.subject], now, suppressed).is_dropped:
            return False
        if await self._session.get(ConflictRow, conflict.id) is not None:
            return False
        await self._session.execute(insert(ConflictRow), asdict(conflict))
        return True

    async def page(self, person: PersonKey | None, after: PageKey[str] | None, limit: int) -> Sequence[ConflictRow]:
        """Returns the conflicts after a page's last one, the newest first: those of a person, or all."""
        query = select(ConflictRow).order_by(ConflictRow.decided_at.desc(), ConflictRow.id.desc()).limit(limit)
        if after is not None:
            query = query.where(tuple_(ConflictRow.decided_at, ConflictRow.id) < (after.at, after.id))
        if person is not None:
            own = select(persons.c.subject).where(persons.c.person_id == person.person_id)
            is_own = ConflictRow.subject == person.identifier
            query = query.where(or_(is_own, ConflictRow.subject.in_(own)) if person.person_id else is_own)
        return (await self._session.scalars(query)).all()
