"""All SQL of journeys."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Table,
    and_,
    bindparam,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import UtcDateTime
from kit.database.transactions import chunks, lock_rows, upsert
from kit.people.persons import PersonKey, persons
from kit.people.subjects.words import MEDIA, SOURCES, listed
from services.journeys.journey import Part, Purchase, Touchpoint
from services.journeys.models import conversions, orders, pending, sessions, touchpoints
from services.journeys.rules import SessionFacts, earliest

_AT_ONCE: Final = 500
_Fields: TypeAlias = Mapping[str, Any]
_Row: TypeAlias = Row[*tuple[Any, ...]]
_Select: TypeAlias = Select[*tuple[Any, ...]]
_BY_TIME: Final = (touchpoints.c.timestamp, touchpoints.c.id)
"""The order of touchpoints."""
_SHOWN: Final = (
    *(touchpoints.c.id, touchpoints.c.subject, touchpoints.c.session_id),
    *(touchpoints.c.stage, touchpoints.c.origin, touchpoints.c.touchpoint, touchpoints.c.action_taken),
    *(touchpoints.c.source, touchpoints.c.medium, touchpoints.c.campaign, touchpoints.c.page_url),
    *(touchpoints.c.value_generated, touchpoints.c.time_spent, cast(touchpoints.c.timestamp, String(26))),
)
"""The fields of a `Touchpoint`."""


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
        await lock_rows(self._session, sessions, [{"session": session, "subject": subject} for session, subject in keys])
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
        self._is_known = bool(person.person_id)
        self._person = {"person": person.person_id or person.identifier}

    async def parts(self) -> Sequence[Part]:
        """Returns touchpoints by session and stage: their number, the first and the last."""
        return [Part(*row) for row in await self._session.execute(_parts(is_known=self._is_known), self._person)]

    async def page(self, start: tuple[datetime, str] | None, limit: int) -> Sequence[Touchpoint]:
        """Returns the touchpoints after a page's last one, oldest first."""
        at, touchpoint_id = start or (None, None)
        query = _page(is_known=self._is_known, begins=start is None)
        return await self._touchpoints(query, {"limit": limit, "at": at, "id": touchpoint_id})

    async def last(self) -> Sequence[Touchpoint]:
        """Returns the newest touchpoint, if there is one."""
        return await self._touchpoints(_last(is_known=self._is_known), {})

    async def purchases(self, limit: int) -> Sequence[Purchase]:
        """Returns the first paid orders."""
        rows = await self._session.execute(_purchases(is_known=self._is_known), {**self._person, "limit": limit})
        return [Purchase(*row) for row in rows]

    async def _touchpoints(self, query: _Select, parameters: _Fields) -> Sequence[Touchpoint]:
        texts: Iterable[str] = await self._session.scalars(query, {**self._person, **parameters})
        return [Touchpoint(*shown, timestamp=datetime.fromisoformat(f"{at}+00:00")) for *shown, at in map(orjson.loads, texts)]


@cache  # Building a statement costs as much as executing it.
def _parts(*, is_known: bool) -> _Select:
    group = (touchpoints.c.session_id, touchpoints.c.subject, touchpoints.c.stage)
    figures = (func.count(), func.min(touchpoints.c.timestamp), func.max(touchpoints.c.timestamp))
    return select(*group, *figures).where(_own(touchpoints, is_known=is_known)).group_by(*group)


@cache
def _page(*, is_known: bool, begins: bool) -> _Select:
    query = _shown(is_known=is_known).order_by(*_BY_TIME).limit(bindparam("limit"))
    return query if begins else query.where(_after())


@cache
def _last(*, is_known: bool) -> _Select:
    return _shown(is_known=is_known).order_by(*(column.desc() for column in _BY_TIME)).limit(1)


@cache
def _purchases(*, is_known: bool) -> _Select:
    own = (_own(orders, is_known=is_known), orders.c.paid_at.is_not(None), orders.c.excluded.is_(False))
    return (
        select(orders.c.purchase_id, orders.c.paid_at)
        .where(*own)
        .order_by(orders.c.paid_at, orders.c.purchase_id)
        .limit(bindparam("limit"))
    )


def _shown(*, is_known: bool) -> _Select:
    """Selects touchpoints, each as one JSON text: drivers take longer for columns than databases do."""
    return select(func.json_array(*_SHOWN)).where(_own(touchpoints, is_known=is_known))


def _own(table: Table, *, is_known: bool) -> ColumnElement[bool]:
    """Selects the rows of a table that belong to the person of the parameter `person`."""
    if not is_known:
        return table.c.subject == bindparam("person")
    return table.c.subject.in_(select(persons.c.subject).where(persons.c.person_id == bindparam("person")))


def _after() -> ColumnElement[bool]:
    """Selects the touchpoints that come after the one of the parameters `at` and `id` in the order."""
    at = bindparam("at", type_=UtcDateTime)
    same = and_(touchpoints.c.timestamp == at, touchpoints.c.id > bindparam("id"))
    return and_(touchpoints.c.timestamp >= at, or_(touchpoints.c.timestamp > at, same))


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


_ROWS_OF: Final = select(sessions).where(sessions.c.session.in_(bindparam("identifiers", expanding=True)))


async def _rows_of(session: AsyncSession, identifiers: Collection[str]) -> Sequence[_Row]:
    found: list[_Row] = []
    for some in chunks(identifiers):
        found.extend((await session.execute(_ROWS_OF, {"identifiers": some})).all())
    return found
