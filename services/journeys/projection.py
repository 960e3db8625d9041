"""The paths that attribution is read from: kept, with totals by day, and made anew when visits, orders or persons change.

Whoever changes one of these marks it as pending in the same transaction. What is pending is worked off a little at a time, so that paths,
and the totals that are their sum, follow what they are made of within seconds; and at once where a report asks and not much is pending.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, time, timedelta
from decimal import Decimal
from itertools import chain
from typing import Any, Final, TypeAlias

import orjson
import structlog
from sqlalchemy import (
    ColumnElement,
    CompoundSelect,
    Integer,
    Select,
    String,
    Table,
    and_,
    cast,
    delete,
    false,
    func,
    literal,
    or_,
    select,
    tuple_,
    union_all,
)
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Exact, UtcDateTime
from kit.database.transactions import Sessions, chunks, transact, upsert
from kit.people.persons import Persons, persons, subject_of
from kit.people.subjects.holdings import Row
from kit.people.vault import Vault
from kit.server import run_every
from kit.settings import Settings
from services.journeys.attribution import EVERY_MODEL, GROUPS, MARKOV, ORDER, Order, Path, Totals, paths_of, visit_of
from services.journeys.models import orders, paths, pending, sessions, totals
from services.journeys.repository import mark_pending, visits
from services.journeys.rules import SessionFacts, earliest, minor_unit
from services.journeys.shares import Splitter

_AT_ONCE: Final = 500
_GATHERED: Final = 200
"""Of the longest names so many rows are less than the 1 MiB to which MariaDB cuts what it gathers (group_concat_max_len)."""
_LOOK_SECONDS: Final = 5.0
_MOST_COUNTED: Final = 10_000
_LOCK: Final = {"model": "", "group_by": "", "day": ""}
"""Key of the row that is locked by whoever changes paths and totals: one at a time, or a change would be added twice."""
_Key: TypeAlias = tuple[str, str, str]
"""Model, group and day."""
_Select: TypeAlias = Select[*tuple[Any, ...]]
_USER: Final = "user:"
_SESSION: Final = "session:"

_log = structlog.get_logger(__name__)


class Paths:
    """Paths and totals, within one transaction.

    Args:
        session: the transaction.
        splitter: splits what orders brought.
    """

    def __init__(self, session: AsyncSession, splitter: Splitter) -> None:
        self._session = session
        self._splitter = splitter

    async def refresh(self) -> int:
        """Works off some of what is pending; says how many changes that were."""
        await self._lock()
        query = select(pending.c.id, pending.c.subject).order_by(pending.c.id).limit(_AT_ONCE)
        marks = (await self._session.execute(query)).all()
        await self._renew({mark.subject for mark in marks})
        await self._session.execute(delete(pending).where(pending.c.id.in_([mark.id for mark in marks])))
        return len(marks)

    async def erase(self, names: Sequence[str], pseudonym: str) -> int:
        """Takes names out of paths, after their visits and orders have the pseudonym; says how many rows that were."""
        await self._lock()
        named = or_(paths.c.owner.in_(names), paths.c.ending.in_(names))
        found = (await self._session.scalars(select(paths.c.owner).where(named))).all()
        await self._renew({*names, *found, pseudonym}, gone=names)
        return len(found)

    async def _lock(self) -> None:
        await upsert(self._session, totals, [{**_LOCK, "payload": ""}])

    async def _renew(self, subjects: Collection[str], gone: Collection[str] = ()) -> None:
        """Makes the paths of these and of all that are one person with them anew.

        Args:
            subjects: as they are marked as pending.
            gone: those that keep no path.
        """
        named = await self._with_others(subjects)
        people = await Persons(self._session).people(named)
        owners = {*named, *(f"{_USER}{person}" for person in people.values())}
        users = {owner.removeprefix(_USER) for owner in owners if owner.startswith(_USER)}
        names = {name for name in named if name not in people}
        for some in chunks(users):
            names |= set(await self._session.scalars(select(persons.c.subject).where(persons.c.person_id.in_(some))))
        found = {(path.owner, path.ending): path for path in await self._made(names) if path.owner not in gone}
        known = await self._known(owners, {ending for _, ending in found if ending.startswith(ORDER)})
        payloads = {key: path.dumps() for key, path in found.items()}
        over = {key for key, payload in known.items() if payloads.get(key) != payload}
        news = {key: path for key, path in found.items() if known.get(key) != payloads[key]}
        changes = _Changes(self._splitter)
        for key in over:
            changes.add(Path.loads(known[key]), -1)
        for path in news.values():
            changes.add(path, 1)
        for some in chunks(over - news.keys()):
            await self._session.execute(delete(paths).where(tuple_(paths.c.owner, paths.c.ending).in_(some)))
        rows = [
            {"owner": key[0], "ending": key[1], "ended_at": path.ended_at, "bought": path.bought, "payload": payloads[key]}
            for key, path in sorted(news.items())
        ]
        await upsert(self._session, paths, rows)
        await self._add(changes)

    async def _with_others(self, subjects: Collection[str]) -> set[str]:
        """These, and whoever was seen or placed an order in one of the visits among them."""
        found = set(subjects)
        for some in chunks(subjects):
            ids = [name.removeprefix(_SESSION) for name in some if name.startswith(_SESSION)]
            found |= set(await self._session.scalars(select(sessions.c.subject).where(sessions.c.session.in_(some))))
            found |= set(await self._session.scalars(select(orders.c.subject).where(orders.c.session_id.in_(ids))))
        return found

    async def _made(self, names: Collection[str]) -> list[Path]:
        """All paths of the persons whose subjects these are."""
        seen: dict[str, dict[str, SessionFacts]] = defaultdict(dict)
        sold: dict[str, list[Order]] = defaultdict(list)
        for some in chunks(names):
            for owner, *columns in await _gathered(self._session, _visits().where(sessions.c.subject.in_(some))):
                session_facts = _session_facts(*columns)
                other = seen[owner].get(session_facts.session)
                seen[owner][session_facts.session] = session_facts if other is None else earliest((other, session_facts))
            for owner, *columns in await _gathered(self._session, _paid().where(orders.c.subject.in_(some))):
                sold[owner].append(_order(*columns))
        bought_in = {order.session for owner, several in sold.items() for order in several if order.session not in seen[owner]} - {""}
        own = {name: visit_of(session_facts) for name, session_facts in (await visits(self._session, bought_in)).items()}
        return [
            path
            for owner in sorted({*seen, *sold})
            for path in paths_of(owner, sold[owner], [visit_of(session_facts) for session_facts in seen[owner].values()], own)
        ]

    async def _known(self, owners: Collection[str], endings: Collection[str]) -> Mapping[tuple[str, str], str]:
        """Payloads of the stored paths of these owners, or of these orders under whatever owner."""
        found: dict[tuple[str, str], str] = {}
        for column, names in ((paths.c.owner, owners), (paths.c.ending, endings)):
            for some in chunks(names):
                rows = await self._session.execute(select(paths.c.owner, paths.c.ending, paths.c.payload).where(column.in_(some)))
                found |= {(row.owner, row.ending): row.payload for row in rows}
        return found

    async def _add(self, changes: _Changes) -> None:
        for some in chunks({day for _, _, day in changes.totals}):
            query = select(totals).where(totals.c.model.in_(EVERY_MODEL), totals.c.group_by.in_(GROUPS), totals.c.day.in_(some))
            for row in await self._session.execute(query):
                if (total := changes.totals.get((row.model, row.group_by, row.day))) is not None:
                    total.merge(row.payload)
        rows = [
            {"model": model, "group_by": group_by, "day": day, "payload": total.dumps()}
            for (model, group_by, day), total in sorted(changes.totals.items())
        ]
        await upsert(self._session, totals, rows)


class _Changes:
    """What is to be added to totals."""

    def __init__(self, splitter: Splitter) -> None:
        self._splitter = splitter
        self.totals: dict[_Key, Totals] = {}

    def add(self, path: Path, times: int) -> None:
        """Adds a path to all totals of its day, or with -1 takes it away."""
        day = path.ended_at.astimezone(UTC).date().isoformat()
        for model in EVERY_MODEL if path.bought else (MARKOV,):
            for group_by in GROUPS:
                key = (model, group_by, day)
                total = self.totals.get(key)
                if total is None:
                    total = self.totals[key] = Totals(model, group_by, self._splitter)
                total.add(path, times)


class AttributionStore:
    """What reports are read from; works off what is pending, for as long as the service runs.

    Args:
        sessions: the database.
        splitter: splits what orders brought.
    """

    def __init__(self, sessions: Sessions, splitter: Splitter) -> None:
        self._sessions = sessions
        self.splitter = splitter
        self._looking: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Looks every five seconds, until cancelled."""
        await run_every(self.look, _LOOK_SECONDS, "paths not refreshed")

    async def look(self) -> None:
        """Works off all that is pending, in portions, each in a transaction of its own. Of a large backlog it takes half a core at most."""
        loop = asyncio.get_running_loop()

        async def work(session: AsyncSession) -> int:
            return await Paths(session, self.splitter).refresh()

        if not await self._pending():
            return
        began = loop.time()
        while await transact(self._sessions, work, follows=True) == _AT_ONCE:
            await asyncio.sleep(loop.time() - began)
            began = loop.time()

    async def catch_up(self, seconds: float) -> int:
        """Works on what is pending for at most so long; says how many changes still are, up to 10,000."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while (count := await self._pending()) and (left := ends - loop.time()) > 0:
            if self._looking is None:
                self._looking = asyncio.create_task(self.look())
                self._looking.add_done_callback(self._looked)
            done, _ = await asyncio.wait({self._looking}, timeout=left)
            if any(task.cancelled() or task.exception() for task in done):
                break
        return count

    async def totals(self, model: str, group_by: str, since: datetime | None, until: datetime) -> Totals:
        """What a model makes of all paths that ended in a period; None for the beginning."""
        totals = Totals(model, group_by, self.splitter)
        async with self._sessions.reading() as session:
            for row in await session.execute(_ended_in(model, group_by, since, until)):
                if row.is_whole:
                    totals.merge(row.payload)
                else:
                    totals.add(Path.loads(row.payload))
        return totals

    def _looked(self, task: asyncio.Task[None]) -> None:
        self._looking = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("paths not refreshed", error=type(error).__name__)

    async def _pending(self) -> int:
        async with self._sessions.reading() as session:
            some = select(pending.c.id).limit(_MOST_COUNTED).subquery()
            return int(await session.scalar(select(func.count()).select_from(some)) or 0)


def splitter_of(settings: Settings, vault: Vault) -> Splitter:
    """How amounts are split: in units of the shop's currency, ties by a hash that nobody can foresee."""

    def tie(order: str, name: str) -> bytes:
        return vault.digest(f"{order}\0{name}".encode(), purpose="attribution")

    return Splitter(minor_unit(settings.site_currency), tie)


async def erase_paths(splitter: Splitter, session: AsyncSession, names: Sequence[str], pseudonym: str) -> int:
    """Takes names out of paths, as `Paths.erase` does."""
    return await Paths(session, splitter).erase(names, pseudonym)


async def mark_expired(session: AsyncSession, rows: Sequence[Row]) -> None:
    """Marks whose paths change because visits grew too old."""
    await mark_pending(session, {row[name] for row in rows for name in ("session", "subject")})


def _ended_in(model: str, group_by: str, since: datetime | None, until: datetime) -> CompoundSelect[*tuple[Any, ...]]:
    """The totals of whole days, and the paths of the days in which the period begins and ends.

    It is one statement, and so sees one state of the database.
    """
    last = _midnight(until)
    if since is None:
        days, ends = [totals.c.day < last.date().isoformat()], [and_(paths.c.ended_at >= last, paths.c.ended_at < until)]
    elif (first := _midnight(since)) >= last:
        days, ends = [false()], [and_(paths.c.ended_at >= since, paths.c.ended_at < until)]
    else:
        if first < since:
            first += timedelta(days=1)
        days = [totals.c.day >= first.date().isoformat(), totals.c.day < last.date().isoformat()]
        ends = [
            and_(paths.c.ended_at >= since, paths.c.ended_at < first),
            and_(paths.c.ended_at >= last, paths.c.ended_at < until),
        ]
    counted = [or_(*ends)] if model == MARKOV else [paths.c.bought.is_(True), or_(*ends)]
    return union_all(
        select(literal(True).label("is_whole"), totals.c.payload).where(totals.c.model == model, totals.c.group_by == group_by, *days),
        select(literal(False), paths.c.payload).where(*counted),
    )


def _midnight(at: datetime) -> datetime:
    """When the day of a time began, in UTC."""
    return datetime.combine(at.astimezone(UTC).date(), time(), UTC)


def _owner(table: Table) -> ColumnElement[str]:
    return func.coalesce(literal(_USER).concat(persons.c.person_id), table.c.subject).label("owner")


def _paid() -> _Select:
    query = select(_owner(orders), orders.c.purchase_id, orders.c.session_id, orders.c.paid_at, orders.c.net)
    joined = query.join_from(orders, persons, persons.c.subject == orders.c.subject, isouter=True)
    return joined.where(orders.c.paid_at.is_not(None), orders.c.excluded.is_(False))


def _visits() -> _Select:
    """Visits, with what is known of each as a whole."""
    whole = sessions.alias("whole")
    columns = [column for column in whole.c if column.name != "subject"]
    joined = sessions.join(whole, whole.c.session == sessions.c.session).outerjoin(persons, persons.c.subject == sessions.c.subject)
    return select(_owner(sessions), *columns).select_from(joined)


def _order(purchase_id: str, session_id: str | None, paid_at: str, net: str | None) -> Order:
    return Order(purchase_id, subject_of(session_id=session_id or ""), _time(paid_at), None if net is None else Decimal(net))


def _session_facts(session: str, started_at: str, external_at: str | None, *said: str | None) -> SessionFacts:
    return SessionFacts(session, "", _time(started_at), _time(external_at) if external_at else None, *said)


def _time(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


async def _gathered(session: AsyncSession, query: _Select) -> Iterable[Sequence[Any]]:
    """All rows of a query in any order, with times in UTC and decimals as text.

    They come as pages of JSON, since drivers take longer for a row than databases do.
    """
    gather = func.json_arrayagg if session.get_bind().dialect.name == "mysql" else func.json_group_array
    rows = query.add_columns(func.row_number(type_=Integer).over().label("number")).subquery()
    values = [cast(c, String(26)) if isinstance(c.type, UtcDateTime | Exact) else c for c in rows.c if c.name != "number"]
    pages = await session.scalars(select(gather(func.json_array(*values))).group_by(rows.c.number // _GATHERED))
    return chain.from_iterable(map(orjson.loads, pages))
