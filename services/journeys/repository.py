"""All SQL of journeys."""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, TypeAlias

import orjson
from sqlalchemy import (
    ColumnElement,
    Row,
    Select,
    String,
    Table,
    and_,
    cast,
    delete,
    func,
    insert,
    or_,
    select,
    true,
    tuple_,
    update,
)
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from kit.people.persons import persons
from kit.people.subjects.words import MEDIA, SOURCES, listed
from services.journeys.models import conversions, orders, pending, sessions, touchpoints
from services.journeys.rules import SessionFacts, earliest

_AT_ONCE: Final = 500
_PAGE: Final = 1500
"""Of the longest names so many are less than the 1 MiB to which MariaDB cuts what it gathers (group_concat_max_len)."""
_Fields: TypeAlias = Mapping[str, Any]
_Row: TypeAlias = Row[*tuple[Any, ...]]
_Select: TypeAlias = Select[*tuple[Any, ...]]
_ORDER: Final = (touchpoints.c.timestamp, touchpoints.c.id)


class PersonKey(NamedTuple):
    """One person, as names under which things were told."""

    person_id: str
    """Empty for somebody that identity does not know."""
    subject: str
    """The name that was asked for."""

    def owns(self, table: Table) -> ColumnElement[bool]:
        """Says of a table's rows whether they are the person's."""
        if not self.person_id:
            return table.c.subject == self.subject
        return table.c.subject.in_(select(persons.c.subject).where(persons.c.person_id == self.person_id))


class Touchpoints:
    """Touchpoints, conversions and visits within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def told(self, keys: Collection[str]) -> _Fields | None:
        """A client's touchpoint that is stored under one of these keys, locked."""
        own = (touchpoints.c.id.in_(sorted(keys)), touchpoints.c.origin == "client")
        return await self._locked(select(touchpoints).where(*own))

    async def change(self, table: Table, id_: str, values: _Fields) -> None:
        """Fills in columns of a touchpoint or a conversion."""
        await self._session.execute(update(table).where(table.c.id == id_).values(values))

    async def known(self, ids: Collection[str]) -> Mapping[str, _Row]:
        """Origin and content hash of those ids that are stored."""
        query = select(touchpoints.c.id, touchpoints.c.origin, touchpoints.c.content_hash).where(touchpoints.c.id.in_(sorted(ids)))
        return {row.id: row for row in await self._session.execute(query)}

    async def add(self, rows: Sequence[_Fields]) -> None:
        """Stores new touchpoints, in the order of their ids, so that two transactions that share some never wait in a circle.

        Raises:
            IntegrityError: another transaction stored one of them meanwhile.
        """
        if rows:
            await self._session.execute(insert(touchpoints), sorted(rows, key=lambda row: row["id"]))

    async def put(self, rows: Sequence[_Fields]) -> None:
        """Stores touchpoints, whatever was known under their ids."""
        await upsert(self._session, touchpoints, sorted(rows, key=lambda row: row["id"]))

    async def remove(self, ids: Collection[str]) -> None:
        """Removes touchpoints, if they are there."""
        for some in chunks(ids):
            await self._session.execute(delete(touchpoints).where(touchpoints.c.id.in_(some)))

    async def see(self, several_session_facts: Iterable[SessionFacts]) -> None:
        """Takes in what touchpoints say of their visits."""
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
        await mark_pending(self._session, {name for session_facts in changed for name in (session_facts.session, session_facts.subject)})

    async def conversion(self, conversion_id: str) -> _Fields | None:
        """A conversion, locked; None when it is not known."""
        return await self._locked(select(conversions).where(conversions.c.id == conversion_id))

    async def add_conversion(self, row: _Fields) -> None:
        """Stores a conversion.

        Raises:
            IntegrityError: it was stored meanwhile.
        """
        await self._session.execute(insert(conversions).values(row))

    async def _locked(self, query: _Select) -> _Fields | None:
        row = (await self._session.execute(query.with_for_update())).mappings().first()
        return None if row is None else {str(name): value for name, value in row.items()}


class Journey:
    """What one person did, within one transaction."""

    def __init__(self, session: AsyncSession, whose: PersonKey) -> None:
        self._session = session
        self._own = whose.owns(touchpoints)
        self._ordered = whose.owns(orders)

    async def parts(self) -> Sequence[_Row]:
        """Touchpoints by visit and stage: how many, the first, the last."""
        group = (touchpoints.c.session_id, touchpoints.c.subject, touchpoints.c.stage)
        figures = (
            func.count().label("touchpoints"),
            func.min(touchpoints.c.timestamp).label("first"),
            func.max(touchpoints.c.timestamp).label("last"),
        )
        return (await self._session.execute(select(*group, *figures).where(self._own).group_by(*group))).all()

    async def page(self, start: tuple[datetime, str] | None, limit: int) -> Sequence[_Row]:
        """Touchpoints behind a place, oldest first."""
        query = select(touchpoints).where(self._own)
        if start is not None:
            query = query.where(_behind(*start))
        return (await self._session.execute(query.order_by(*_ORDER).limit(limit))).all()

    async def last(self) -> _Row | None:
        """The newest touchpoint."""
        query = select(touchpoints).where(self._own).order_by(*(column.desc() for column in _ORDER)).limit(1)
        return (await self._session.execute(query)).first()

    async def purchases(self, limit: int) -> Sequence[_Row]:
        """The first paid orders."""
        query = select(orders.c.purchase_id, orders.c.paid_at).where(self._ordered, _counts())
        return (await self._session.execute(query.order_by(orders.c.paid_at, orders.c.purchase_id).limit(limit))).all()


class Orders:
    """Orders, and the visits that led to them, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def positions(self, ids: Collection[str]) -> Mapping[str, tuple[int, int]]:
        """Where in the topic orders were told last."""
        query = select(orders.c.purchase_id, orders.c.position, orders.c.ordinal).where(orders.c.purchase_id.in_(sorted(ids)))
        return {row.purchase_id: (row.position, row.ordinal) for row in await self._session.execute(query)}

    async def put(self, rows: Sequence[_Fields]) -> None:
        """Stores what is new of orders."""
        known = select(orders.c.subject).where(orders.c.purchase_id.in_(sorted(row["purchase_id"] for row in rows)))
        before = set(await self._session.scalars(known.with_for_update()))
        await mark_pending(self._session, before | {row["subject"] for row in rows})
        await upsert(self._session, orders, sorted(rows, key=lambda row: row["purchase_id"]))


async def mark_pending(session: AsyncSession, subjects: Collection[str]) -> None:
    """Says that paths of these are to be made anew.

    Args:
        session: the transaction of the change that asks for it.
        subjects: those whose visits or orders change, by their own name or a visit's.
    """
    if subjects:
        await session.execute(insert(pending), [{"subject": subject} for subject in sorted(subjects)])


async def visits(session: AsyncSession, names: Collection[str]) -> Mapping[str, SessionFacts]:
    """Visits as a whole, whoever was seen in them."""
    seen: dict[str, list[SessionFacts]] = defaultdict(list)
    for row in await _rows_of(session, names):
        seen[row.session].append(SessionFacts(*row))
    return {name: earliest(several_session_facts) for name, several_session_facts in seen.items()}


async def erase_visits(session: AsyncSession, names: Collection[str], pseudonym: str, *, pseudonym_of: Callable[[str], str]) -> int:
    """Takes names out of some visits; says how many rows that were. A visit that a person began and went on with becomes one.

    Args:
        session: the transaction.
        names: those of one person.
        pseudonym: stands for the person.
        pseudonym_of: what stands for a visit, by its id.
    """
    own = or_(sessions.c.subject.in_(sorted(names)), sessions.c.session.in_(sorted(names)))
    found = (await session.execute(select(sessions).where(own).limit(_AT_ONCE).with_for_update())).all()
    everyone = await _rows_of(session, {row.session for row in found})
    shared = {row.session for row in everyone if row.subject not in names}
    # A visit in which nobody else was seen is the person's, also where it is none of its names.
    whole = {row.session for row in found if row.session in names or row.session not in shared}
    rows = {(row.session, row.subject): SessionFacts(*row) for row in [*found, *(row for row in everyone if row.session in whole)]}
    await session.execute(delete(sessions).where(tuple_(sessions.c.session, sessions.c.subject).in_(sorted(rows))))
    become: dict[str, str] = {}
    for name in sorted(whole):
        kind, _, id_ = name.partition(":")
        become[name] = f"{kind}:{pseudonym_of(id_)}"
        await session.execute(update(orders).where(orders.c.session_id == id_).values(session_id=pseudonym_of(id_)))
    await Touchpoints(session).see(
        _emptied(seen)._replace(session=become.get(seen.session, seen.session), subject=pseudonym)
        if seen.subject in names
        else seen._replace(session=become.get(seen.session, seen.session))
        for seen in rows.values()
    )
    return len(rows)


def _emptied(seen: SessionFacts) -> SessionFacts:
    """Where a visit came from, as far as words say it that are the same for everybody."""
    if seen.source is None:
        return seen
    return seen._replace(source=listed(seen.source, SOURCES) or "", medium=listed(seen.medium, MEDIA) or "", campaign="")


async def steps(
    session: AsyncSession, actions: Collection[str], since: datetime | None, until: datetime
) -> AsyncIterator[Sequence[tuple[str, str, datetime]]]:
    """Who did these actions when: (person, action, timestamp), in the order of (timestamp, id), portion by portion."""
    streams = [_Actions(session, action, since, until) for action in sorted(set(actions))]
    while True:
        for stream in streams:
            await stream.fill()
        # Behind the first end of what was read, another page may have something to say.
        ends = [stream.rows[-1] for stream in streams if stream.more]
        portion = sorted(row for stream in streams for row in stream.take(min(ends) if ends else None))
        if not portion:
            return
        yield [(person, action, datetime.fromisoformat(f"{at}+00:00")) for at, _, person, action in portion]


class _Actions:
    """All of one action in the order of (timestamp, id), read page by page: along its index, in memory that does not grow.

    A page is one JSON text, since drivers take longer for a row than databases do.
    """

    def __init__(self, session: AsyncSession, action: str, since: datetime | None, until: datetime) -> None:
        self._session = session
        self._action = action
        self._until = until
        self._behind = touchpoints.c.timestamp >= since if since is not None else true()
        self.rows: list[tuple[str, str, str, str]] = []
        """Timestamp, id, person and action of those that were read and not taken."""
        self.more = True
        """There may be others behind them."""

    async def fill(self) -> None:
        """Reads the next page, when all of the last one is taken."""
        if self.rows or not self.more:
            return
        own = (touchpoints.c.action_taken == self._action, touchpoints.c.timestamp < self._until, self._behind)
        page = (
            select(touchpoints.c.timestamp, touchpoints.c.id, touchpoints.c.subject).where(*own).order_by(*_ORDER).limit(_PAGE).subquery()
        )
        person = func.coalesce(persons.c.person_id, page.c.subject)
        entry = func.json_array(cast(page.c.timestamp, String(26)), page.c.id, person)
        is_mysql = self._session.get_bind().dialect.name == "mysql"
        gather = func.json_arrayagg if is_mysql else func.json_group_array
        query = select(gather(entry)).select_from(page.outerjoin(persons, persons.c.subject == page.c.subject))
        found = orjson.loads(await self._session.scalar(query) or "[]")
        self.rows = sorted((at, touchpoint_id, whose, self._action) for at, touchpoint_id, whose in found)
        self.more = len(self.rows) == _PAGE
        if self.more:
            at, last = self.rows[-1][:2]
            self._behind = _behind(datetime.fromisoformat(f"{at}+00:00"), last)

    def take(self, end: tuple[str, ...] | None) -> Sequence[tuple[str, str, str, str]]:
        """Takes away what was read up to an end, or all of it."""
        count = len(self.rows) if end is None else bisect_right(self.rows, end)
        taken, self.rows = self.rows[:count], self.rows[count:]
        return taken


def _behind(timestamp: datetime, touchpoint_id: str) -> ColumnElement[bool]:
    """Says of touchpoints whether they come behind a place in the order."""
    same = and_(touchpoints.c.timestamp == timestamp, touchpoints.c.id > touchpoint_id)
    return and_(touchpoints.c.timestamp >= timestamp, or_(touchpoints.c.timestamp > timestamp, same))


def _counts() -> ColumnElement[bool]:
    return and_(orders.c.paid_at.is_not(None), orders.c.excluded.is_(False))


async def _rows_of(session: AsyncSession, names: Collection[str]) -> Sequence[_Row]:
    found: list[_Row] = []
    for some in chunks(names):
        found.extend((await session.execute(select(sessions).where(sessions.c.session.in_(some)))).all())
    return found
