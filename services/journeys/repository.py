"""All SQL of journeys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

from sqlalchemy import ColumnElement, Row, Select, Table, and_, delete, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from kit.people.persons import persons
from kit.people.subjects.words import MEDIA, SOURCES, listed
from services.journeys.models import conversions, orders, pending, sessions, touchpoints
from services.journeys.rules import SessionFacts, earliest

_AT_ONCE: Final = 500
_Fields: TypeAlias = Mapping[str, Any]
_Row: TypeAlias = Row[*tuple[Any, ...]]
_Select: TypeAlias = Select[*tuple[Any, ...]]
BY_TIME: Final = (touchpoints.c.timestamp, touchpoints.c.id)
"""The order of touchpoints."""


class PersonKey(NamedTuple):
    """One person, by whose identifiers rows are found."""

    person_id: str
    """Empty for a person that identity does not know."""
    identifier: str
    """The identifier that was asked for."""

    def owns(self, table: Table) -> ColumnElement[bool]:
        """Selects the rows of a table that belong to the person."""
        if not self.person_id:
            return table.c.subject == self.identifier
        return table.c.subject.in_(select(persons.c.subject).where(persons.c.person_id == self.person_id))


class Touchpoints:
    """Touchpoints, conversions and sessions within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def tracked(self, keys: Collection[str]) -> _Fields | None:
        """Returns a client's touchpoint that is stored under one of these keys, locked."""
        own = (touchpoints.c.id.in_(sorted(keys)), touchpoints.c.origin == "client")
        return await self._locked(select(touchpoints).where(*own))

    async def change(self, table: Table, id_: str, values: _Fields) -> None:
        """Fills in columns of a touchpoint or a conversion."""
        await self._session.execute(update(table).where(table.c.id == id_).values(values))

    async def known(self, ids: Collection[str]) -> Mapping[str, _Row]:
        """Returns the origin and content hash of those ids that are stored."""
        query = select(touchpoints.c.id, touchpoints.c.origin, touchpoints.c.content_hash).where(touchpoints.c.id.in_(sorted(ids)))
        return {row.id: row for row in await self._session.execute(query)}

    async def add(self, rows: Sequence[_Fields]) -> None:
        """Stores new touchpoints, ordered by id, so that two transactions that share some never deadlock.

        Raises:
            IntegrityError: another transaction has stored one of them.
        """
        if rows:
            await self._session.execute(insert(touchpoints), sorted(rows, key=lambda row: row["id"]))

    async def put(self, rows: Sequence[_Fields]) -> None:
        """Stores touchpoints, and overwrites those with the same ids."""
        await upsert(self._session, touchpoints, sorted(rows, key=lambda row: row["id"]))

    async def remove(self, ids: Collection[str]) -> None:
        """Deletes touchpoints, if they exist."""
        for some in chunks(ids):
            await self._session.execute(delete(touchpoints).where(touchpoints.c.id.in_(some)))

    async def see(self, several_session_facts: Iterable[SessionFacts]) -> None:
        """Merges what touchpoints state about their sessions."""
        seen: dict[tuple[str, str], list[SessionFacts]] = defaultdict(list)
        for session_facts in several_session_facts:
            seen[session_facts.session, session_facts.subject].append(session_facts)
        keys = sorted(seen)
        await upsert(self._session, sessions, [{"session": session, "subject": subject} for session, subject in keys])
        known = {
            (row.session, row.subject): SessionFacts(*row)
            for row in await _rows_of(self._session, {session for session, _ in keys})
            if row.started_at is not None
        }
        now = {key: earliest([*seen[key], known[key]] if key in known else seen[key]) for key in keys}
        changed = [session_facts for key, session_facts in now.items() if session_facts != known.get(key)]
        await upsert(self._session, sessions, [session_facts._asdict() for session_facts in changed])
        await mark_pending(self._session, {each for session_facts in changed for each in (session_facts.session, session_facts.subject)})

    async def conversion(self, conversion_id: str) -> _Fields | None:
        """Returns a conversion, locked; None if it is unknown."""
        return await self._locked(select(conversions).where(conversions.c.id == conversion_id))

    async def add_conversion(self, row: _Fields) -> None:
        """Stores a conversion.

        Raises:
            IntegrityError: another transaction has stored it.
        """
        await self._session.execute(insert(conversions).values(row))

    async def _locked(self, query: _Select) -> _Fields | None:
        row = (await self._session.execute(query.with_for_update())).mappings().first()
        return None if row is None else {str(name): value for name, value in row.items()}


class Journey:
    """The journey of one person, within one transaction."""

    def __init__(self, session: AsyncSession, person: PersonKey) -> None:
        self._session = session
        self._own = person.owns(touchpoints)
        self._ordered = person.owns(orders)

    async def parts(self) -> Sequence[_Row]:
        """Returns touchpoints by session and stage: their number, the first and the last."""
        group = (touchpoints.c.session_id, touchpoints.c.subject, touchpoints.c.stage)
        figures = (
            func.count().label("touchpoints"),
            func.min(touchpoints.c.timestamp).label("first"),
            func.max(touchpoints.c.timestamp).label("last"),
        )
        return (await self._session.execute(select(*group, *figures).where(self._own).group_by(*group))).all()

    async def page(self, start: tuple[datetime, str] | None, limit: int) -> Sequence[_Row]:
        """Returns the touchpoints after a page's last one, oldest first."""
        query = select(touchpoints).where(self._own)
        if start is not None:
            query = query.where(after(*start))
        return (await self._session.execute(query.order_by(*BY_TIME).limit(limit))).all()

    async def last(self) -> _Row | None:
        """Returns the newest touchpoint."""
        query = select(touchpoints).where(self._own).order_by(*(column.desc() for column in BY_TIME)).limit(1)
        return (await self._session.execute(query)).first()

    async def purchases(self, limit: int) -> Sequence[_Row]:
        """Returns the first paid orders."""
        query = select(orders.c.purchase_id, orders.c.paid_at).where(self._ordered, _counts())
        return (await self._session.execute(query.order_by(orders.c.paid_at, orders.c.purchase_id).limit(limit))).all()


class Orders:
    """Orders within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def offsets(self, ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Returns the offset and ordinal of the last change of each order that was applied."""
        query = select(orders.c.purchase_id, orders.c.position, orders.c.ordinal).where(orders.c.purchase_id.in_(sorted(ids)))
        return {row.purchase_id: (row.position, row.ordinal) for row in await self._session.execute(query)}

    async def put(self, rows: Sequence[_Fields]) -> None:
        """Stores changes of orders."""
        known = select(orders.c.subject).where(orders.c.purchase_id.in_(sorted(row["purchase_id"] for row in rows)))
        before = set(await self._session.scalars(known.with_for_update()))
        await mark_pending(self._session, before | {row["subject"] for row in rows})
        await upsert(self._session, orders, sorted(rows, key=lambda row: row["purchase_id"]))


async def mark_pending(session: AsyncSession, identifiers: Collection[str]) -> None:
    """Marks the paths of some identifiers to be rebuilt.

    Args:
        session: the transaction of the change that requires it.
        identifiers: those whose sessions or orders change, or the sessions themselves.
    """
    if identifiers:
        await session.execute(insert(pending), [{"subject": identifier} for identifier in sorted(identifiers)])


async def facts_of_sessions(session: AsyncSession, identifiers: Collection[str]) -> Mapping[str, SessionFacts]:
    """Returns the facts of whole sessions, whichever identifiers were seen in them."""
    seen: dict[str, list[SessionFacts]] = defaultdict(list)
    for row in await _rows_of(session, identifiers):
        seen[row.session].append(SessionFacts(*row))
    return {identifier: earliest(several_session_facts) for identifier, several_session_facts in seen.items()}


async def erase_sessions(session: AsyncSession, identifiers: Collection[str], pseudonym: str, *, pseudonym_of: Callable[[str], str]) -> int:
    """Removes identifiers from up to 500 rows of sessions; returns the number of rows affected.

    The rows of a session that a person began anonymously and continued under a user become one.

    Args:
        session: the transaction.
        identifiers: those of one person.
        pseudonym: replaces the person.
        pseudonym_of: returns the pseudonym of a session id.
    """
    own = or_(sessions.c.subject.in_(sorted(identifiers)), sessions.c.session.in_(sorted(identifiers)))
    found = (await session.execute(select(sessions).where(own).limit(_AT_ONCE).with_for_update())).all()
    everyone = await _rows_of(session, {row.session for row in found})
    shared = {row.session for row in everyone if row.subject not in identifiers}
    # A session in which nobody else was seen is the person's, even if it is not among the identifiers.
    whole = {row.session for row in found if row.session in identifiers or row.session not in shared}
    rows = {(row.session, row.subject): SessionFacts(*row) for row in [*found, *(row for row in everyone if row.session in whole)]}
    await session.execute(delete(sessions).where(tuple_(sessions.c.session, sessions.c.subject).in_(sorted(rows))))
    pseudonyms: dict[str, str] = {}
    for identifier in sorted(whole):
        kind, _, id_ = identifier.partition(":")
        pseudonyms[identifier] = f"{kind}:{pseudonym_of(id_)}"
        await session.execute(update(orders).where(orders.c.session_id == id_).values(session_id=pseudonym_of(id_)))
    await Touchpoints(session).see(
        _emptied(seen)._replace(session=pseudonyms.get(seen.session, seen.session), subject=pseudonym)
        if seen.subject in identifiers
        else seen._replace(session=pseudonyms.get(seen.session, seen.session))
        for seen in rows.values()
    )
    return len(rows)


def _emptied(seen: SessionFacts) -> SessionFacts:
    """Reduces where a session came from to common words that identify nobody."""
    if seen.source is None:
        return seen
    return seen._replace(source=listed(seen.source, SOURCES) or "", medium=listed(seen.medium, MEDIA) or "", campaign="")


def after(timestamp: datetime, touchpoint_id: str) -> ColumnElement[bool]:
    """Selects the touchpoints that come after this one in the order."""
    same = and_(touchpoints.c.timestamp == timestamp, touchpoints.c.id > touchpoint_id)
    return and_(touchpoints.c.timestamp >= timestamp, or_(touchpoints.c.timestamp > timestamp, same))


def _counts() -> ColumnElement[bool]:
    return and_(orders.c.paid_at.is_not(None), orders.c.excluded.is_(False))


async def _rows_of(session: AsyncSession, identifiers: Collection[str]) -> Sequence[_Row]:
    found: list[_Row] = []
    for some in chunks(identifiers):
        found.extend((await session.execute(select(sessions).where(sessions.c.session.in_(some)))).all())
    return found
