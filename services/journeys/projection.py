"""Stores the paths of attribution and their totals by day, and rebuilds them when sessions, orders or persons change.

Every such change is marked as pending in its own transaction. Pending changes are applied in small batches, so that paths, and the
totals that are their sum, follow within seconds; a report that finds only a few pending applies them first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from itertools import chain
from typing import Any, Final, TypeAlias

import orjson
from sqlalchemy import ColumnElement, Integer, Select, String, Table, cast, delete, func, literal, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Exact, UtcDateTime
from kit.database.transactions import chunks, upsert
from kit.people.identifiers import identifier_of
from kit.people.persons import Persons, persons
from kit.people.subjects.personal_tables import Row
from services.journeys.attribution import EVERY_MODEL, GROUPS, MARKOV, ORDER, Order, Path, Totals, browser_session_of, paths_of
from services.journeys.models import orders, paths, pending, sessions, totals
from services.journeys.repository import facts_of_sessions, mark_pending
from services.journeys.rules import SessionFacts, earliest
from services.journeys.shares import Splitter

AT_ONCE: Final = 500
"""Pending changes that one transaction applies."""
_GATHERED: Final = 200
"""So many rows with the longest identifiers stay below the 1 MiB at which MariaDB truncates aggregates (group_concat_max_len)."""
_LOCK: Final = {"model": "", "group_by": "", "day": ""}
"""Key of the row that a transaction locks before it changes paths and totals: concurrent ones would add a change twice."""
_Key: TypeAlias = tuple[str, str, str]
"""Model, group and day."""
_Select: TypeAlias = Select[*tuple[Any, ...]]
_USER: Final = "user:"
_SESSION: Final = "session:"


class Paths:
    """Paths and totals, within one transaction.

    Args:
        session: the transaction.
        splitter: splits the revenue of orders.
    """

    def __init__(self, session: AsyncSession, splitter: Splitter) -> None:
        self._session = session
        self._splitter = splitter

    async def refresh(self) -> int:
        """Applies one batch of pending changes; returns their number."""
        await self._lock()
        query = select(pending.c.id, pending.c.subject).order_by(pending.c.id).limit(AT_ONCE)
        marks = (await self._session.execute(query)).all()
        await self._rebuild({mark.subject for mark in marks})
        await self._session.execute(delete(pending).where(pending.c.id.in_([mark.id for mark in marks])))
        return len(marks)

    async def erase(self, identifiers: Sequence[str], pseudonym: str) -> int:
        """Removes identifiers from paths, once their sessions and orders have the pseudonym; returns the number of rows affected."""
        await self._lock()
        named = or_(paths.c.owner.in_(identifiers), paths.c.ending.in_(identifiers))
        found = (await self._session.scalars(select(paths.c.owner).where(named))).all()
        await self._rebuild({*identifiers, *found, pseudonym}, removed=identifiers)
        return len(found)

    async def _lock(self) -> None:
        await upsert(self._session, totals, [{**_LOCK, "payload": ""}])

    async def _rebuild(self, changed: Collection[str], removed: Collection[str] = ()) -> None:
        """Rebuilds the paths of some identifiers and of all that belong to the same persons.

        Args:
            changed: the identifiers that were marked as pending.
            removed: those that must not own a path any more.
        """
        marked = await self._with_others(changed)
        known = Persons(self._session)
        people = await known.people(marked)
        owners = {*marked, *(f"{_USER}{person}" for person in people.values())}
        users = {owner.removeprefix(_USER) for owner in owners if owner.startswith(_USER)}
        identifiers = {identifier for identifier in marked if identifier not in people}
        identifiers |= (await known.people_by_identifier(users)).keys()
        found = {(path.owner, path.ending): path for path in await self._built(identifiers) if path.owner not in removed}
        stored = await self._stored(owners, {ending for _, ending in found if ending.startswith(ORDER)})
        payloads = {key: path.dumps() for key, path in found.items()}
        outdated = {key for key, payload in stored.items() if payloads.get(key) != payload}
        changes = {key: path for key, path in found.items() if stored.get(key) != payloads[key]}
        differences = _Differences(self._splitter)
        for key in outdated:
            differences.add(Path.loads(stored[key]), -1)
        for path in changes.values():
            differences.add(path, 1)
        for some in chunks(outdated - changes.keys()):
            await self._session.execute(delete(paths).where(tuple_(paths.c.owner, paths.c.ending).in_(some)))
        rows = [
            {"owner": key[0], "ending": key[1], "ended_at": path.ended_at, "bought": path.bought, "payload": payloads[key]}
            for key, path in sorted(changes.items())
        ]
        await upsert(self._session, paths, rows)
        await self._add(differences)

    async def _with_others(self, identifiers: Collection[str]) -> set[str]:
        """Adds the identifiers that were seen, or placed an order, in one of the sessions among these."""
        found = set(identifiers)
        for some in chunks(identifiers):
            ids = [identifier.removeprefix(_SESSION) for identifier in some if identifier.startswith(_SESSION)]
            found |= set(await self._session.scalars(select(sessions.c.subject).where(sessions.c.session.in_(some))))
            found |= set(await self._session.scalars(select(orders.c.subject).where(orders.c.session_id.in_(ids))))
        return found

    async def _built(self, identifiers: Collection[str]) -> list[Path]:
        """Builds all paths of the persons to whom these identifiers belong."""
        seen: dict[str, dict[str, SessionFacts]] = defaultdict(dict)
        sold: dict[str, list[Order]] = defaultdict(list)
        for some in chunks(identifiers):
            for owner, *columns in await _gathered(self._session, _sessions().where(sessions.c.subject.in_(some))):
                session_facts = _session_facts(*columns)
                other = seen[owner].get(session_facts.session)
                seen[owner][session_facts.session] = session_facts if other is None else earliest((other, session_facts))
            for owner, *columns in await _gathered(self._session, _paid().where(orders.c.subject.in_(some))):
                sold[owner].append(_order(*columns))
        bought_in = {order.session for owner, several in sold.items() for order in several if order.session not in seen[owner]} - {""}
        facts = await facts_of_sessions(self._session, bought_in)
        placed_in = {identifier: browser_session_of(session_facts) for identifier, session_facts in facts.items()}
        return [
            path
            for owner in sorted({*seen, *sold})
            for path in paths_of(owner, sold[owner], map(browser_session_of, seen[owner].values()), placed_in)
        ]

    async def _stored(self, owners: Collection[str], endings: Collection[str]) -> Mapping[tuple[str, str], str]:
        """Returns the payloads of the stored paths of these owners, and of these orders whichever owner they have."""
        found: dict[tuple[str, str], str] = {}
        for column, values in ((paths.c.owner, owners), (paths.c.ending, endings)):
            for some in chunks(values):
                rows = await self._session.execute(select(paths.c.owner, paths.c.ending, paths.c.payload).where(column.in_(some)))
                found |= {(row.owner, row.ending): row.payload for row in rows}
        return found

    async def _add(self, differences: _Differences) -> None:
        for some in chunks({day for _, _, day in differences.totals}):
            query = select(totals).where(totals.c.model.in_(EVERY_MODEL), totals.c.group_by.in_(GROUPS), totals.c.day.in_(some))
            for row in await self._session.execute(query):
                if (total := differences.totals.get((row.model, row.group_by, row.day))) is not None:
                    total.merge(row.payload)
        rows = [
            {"model": model, "group_by": group_by, "day": day, "payload": total.dumps()}
            for (model, group_by, day), total in sorted(differences.totals.items())
        ]
        await upsert(self._session, totals, rows)


class _Differences:
    """What has to be added to totals."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self.totals: dict[_Key, Totals] = {}

    def add(self, path: Path, times: int) -> None:
        """Adds a path to all totals of its day, or with -1 subtracts it."""
        day = path.ended_at.astimezone(UTC).date().isoformat()
        for model in EVERY_MODEL if path.bought else (MARKOV,):
            for group_by in GROUPS:
                key = (model, group_by, day)
                total = self.totals.get(key)
                if total is None:
                    total = self.totals[key] = Totals(model, group_by, self._splitter)
                total.add(path, times)


async def erase_paths(splitter: Splitter, session: AsyncSession, identifiers: Sequence[str], pseudonym: str) -> int:
    """Removes identifiers from paths, as `Paths.erase` does."""
    return await Paths(session, splitter).erase(identifiers, pseudonym)


async def mark_expired(session: AsyncSession, rows: Sequence[Row]) -> None:
    """Marks as pending the paths of sessions that have expired."""
    await mark_pending(session, {row[column] for row in rows for column in ("session", "subject")})


def _owner(table: Table) -> ColumnElement[str]:
    return func.coalesce(literal(_USER).concat(persons.c.person_id), table.c.subject).label("owner")


def _paid() -> _Select:
    query = select(_owner(orders), orders.c.purchase_id, orders.c.session_id, orders.c.paid_at, orders.c.net)
    joined = query.join_from(orders, persons, persons.c.subject == orders.c.subject, isouter=True)
    return joined.where(orders.c.paid_at.is_not(None), orders.c.excluded.is_(False))


def _sessions() -> _Select:
    """Selects sessions by owner, each with the facts of the whole session."""
    whole = sessions.alias("whole")
    columns = [column for column in whole.c if column.name != "subject"]
    joined = sessions.join(whole, whole.c.session == sessions.c.session).outerjoin(persons, persons.c.subject == sessions.c.subject)
    return select(_owner(sessions), *columns).select_from(joined)


def _order(purchase_id: str, session_id: str | None, paid_at: str, net: str | None) -> Order:
    return Order(purchase_id, identifier_of(session_id=session_id or ""), _time(paid_at), None if net is None else Decimal(net))


def _session_facts(session: str, started_at: str, external_at: str | None, *said: str | None) -> SessionFacts:
    return SessionFacts(session, "", _time(started_at), _time(external_at) if external_at else None, *said)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


async def _gathered(session: AsyncSession, query: _Select) -> Iterable[Sequence[Any]]:
    """Returns all rows of a query in any order, with times in UTC and decimals as text.

    They are fetched as pages of JSON, since drivers take longer for a row than databases do.
    """
    gather = func.json_arrayagg if session.get_bind().dialect.name == "mysql" else func.json_group_array
    rows = query.add_columns(func.row_number(type_=Integer).over().label("number")).subquery()
    values = [cast(c, String(26)) if isinstance(c.type, UtcDateTime | Exact) else c for c in rows.c if c.name != "number"]
    pages = await session.scalars(select(gather(func.json_array(*values))).group_by(rows.c.number // _GATHERED))
    return chain.from_iterable(map(orjson.loads, pages))
