"""SQL of analytics: writes facts, reads totals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any, Final, NamedTuple, TypeVar

from sqlalchemy import Row, Select, Table, and_, bindparam, delete, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from kit.people.persons import Persons, persons
from services.analytics.cohort_store import read_cohorts
from services.analytics.cohorts import Cell
from services.analytics.counts import EACH_DAY, NEVER, REVENUE, SITE, TRAFFIC, Revenue, Traffic
from services.analytics.days import MICROSECONDS, Period, range_of
from services.analytics.models import audiences, courses, orders, products, registrations, revenue, sessions, traffic
from services.analytics.sessions import IDLE, Event, Session, dumps, loads, user_of

_Figures = TypeVar("_Figures", Traffic, Revenue)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LONGEST_DAY: Final = 26 * 3600 * MICROSECONDS
"""No day of a visitor is longer, also where clocks are set back."""


class Stored(NamedTuple):
    """A session as it is stored."""

    id: int
    session: Session


class Sessions:
    """Facts of sessions, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def since(self, carriers: Collection[str], at: int) -> Mapping[str, Sequence[Stored]]:
        """Returns the sessions of carriers that a later event may belong to, or change, oldest first.

        Args:
            carriers: their ids.
            at: the time of the first of these events, in microseconds since 1970.
        """
        found: dict[str, list[Stored]] = defaultdict(list)
        for some in chunks(carriers):
            for row in await self._session.execute(_SINCE, {"carriers": some, "since": moment(at - IDLE)}):
                found[row.carrier].append(Stored(row.id, loads(row.payload)))
        for several in found.values():
            several.sort(key=lambda stored: _began(stored.session))
        return found

    async def all(self, carriers: Collection[str]) -> Mapping[str, Sequence[Session]]:
        """Returns all sessions of carriers, oldest first."""
        found: dict[str, list[Session]] = defaultdict(list)
        for some in chunks(carriers):
            for row in await self._session.execute(select(sessions.c.carrier, sessions.c.payload).where(sessions.c.carrier.in_(some))):
                found[row.carrier].append(loads(row.payload))
        return {carrier: sorted(several, key=_began) for carrier, several in found.items()}

    async def with_event(self, key: str, single: str, at: int) -> Collection[str]:
        """Returns the carriers, sessions of clients aside, under which an event is stored.

        Args:
            key: of the event.
            single: its carrier as a single event.
            at: its time, in microseconds since 1970.
        """
        visitors = and_(
            sessions.c.carrier.startswith("visitor:"),
            sessions.c.started_at.between(moment(at - _LONGEST_DAY), moment(at)),
            sessions.c.ended_at >= moment(at),
        )
        rows = await self._session.execute(
            select(sessions.c.carrier, sessions.c.payload).where(or_(sessions.c.carrier == single, visitors))
        )
        return {row.carrier for row in rows if any(event.key == key for event in loads(row.payload))}

    async def singles(self, keys: Collection[str]) -> Collection[str]:
        """Returns those of these carriers of single events that are stored."""
        found: set[str] = set()
        for some in chunks(keys):
            found |= set(await self._session.scalars(_STORED, {"carriers": some}))
        return found

    async def write(self, carrier_sessions: Sequence[tuple[str, int | None, Session]]) -> None:
        """Stores sessions: new ones, and with an id those that replace it."""
        rows = [(id_, _row(carrier, session)) for carrier, id_, session in carrier_sessions]
        if added := [row for id_, row in rows if id_ is None]:
            await self._session.execute(insert(sessions), added)
        await upsert(self._session, sessions, [{"id": id_, **row} for id_, row in rows if id_ is not None])

    async def remove(self, ids: Collection[int]) -> None:
        """Deletes sessions."""
        for some in chunks(ids):
            await self._session.execute(delete(sessions).where(sessions.c.id.in_(some)))


_STORED: Final = select(sessions.c.carrier).where(sessions.c.carrier.in_(bindparam("carriers", expanding=True)))
_SINCE: Final = select(sessions.c.id, sessions.c.carrier, sessions.c.payload).where(
    sessions.c.carrier.in_(bindparam("carriers", expanding=True)), sessions.c.ended_at >= bindparam("since")
)


def _began(session: Session) -> Event:
    return session[0]


def _row(carrier: str, session: Session) -> dict[str, Any]:
    return {
        "carrier": carrier,
        "subject": user_of(session) or None,
        "started_at": moment(session[0].at),
        "ended_at": moment(session[-1].at),
        "payload": dumps(session),
    }


class Orders:
    """Facts of orders, their products, and registrations, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def known(self, ids: Collection[str]) -> Mapping[str, Row[*tuple[Any, ...]]]:
        """Returns those orders that are stored."""
        rows = await self._session.execute(select(orders).where(orders.c.purchase_id.in_(sorted(ids))))
        return {row.purchase_id: row for row in rows}

    async def bought_in(self, carriers: Collection[str]) -> Sequence[Mapping[str, Any]]:
        """Returns the orders that were bought in sessions of these carriers."""
        found: list[Mapping[str, Any]] = []
        for some in chunks(carriers):
            rows = await self._session.execute(_BOUGHT_IN, {"carriers": some})
            found += [{str(name): value for name, value in row.items()} for row in rows.mappings()]
        return found

    async def put(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Stores orders."""
        await upsert(self._session, orders, sorted(rows, key=lambda row: row["purchase_id"]))

    async def name_products(self, titles: Mapping[str, str]) -> None:
        """Stores the titles of products."""
        await upsert(self._session, products, [{"product_id": product, "title": title} for product, title in sorted(titles.items())])

    async def name_courses(self, titles: Mapping[str, str]) -> None:
        """Stores the titles of courses."""
        await upsert(self._session, courses, [{"course_id": course, "title": title} for course, title in sorted(titles.items())])

    async def registered(self, days: Mapping[str, int]) -> Mapping[str, int]:
        """Stores on which days users registered; returns the days that were stored before."""
        known: dict[str, int] = {}
        for some in chunks(days):
            rows = await self._session.execute(select(registrations).where(registrations.c.user_id.in_(some)))
            known |= {row.user_id: row.day for row in rows}
        await upsert(self._session, registrations, [{"user_id": user, "day": day} for user, day in sorted(days.items())])
        return known


_BOUGHT_IN: Final = select(orders).where(orders.c.carrier.in_(bindparam("carriers", expanding=True)), orders.c.payload != "")


def moment(at: int) -> datetime:
    """Converts microseconds since 1970 to a time."""
    return _EPOCH + timedelta(microseconds=at)


_MOST_RANGES: Final = 2000
"""Ranges of an index in one statement: with more of them MySQL reads the whole table."""
BY_KEYS: Final = "FORCE INDEX (PRIMARY)"
"""MySQL estimates many keys from statistics, which lag after a table that grows, and then may read all of it."""
_MEMBERS: Final = (
    select(audiences.c.audience, func.sum(audiences.c.members))
    .where(
        audiences.c.audience.in_(bindparam("names", expanding=True)),
        audiences.c.day.in_(bindparam("keys", expanding=True)),
        audiences.c.previous_day.between(NEVER, bindparam("before")),
    )
    .group_by(audiences.c.audience)
    .with_hint(audiences, BY_KEYS, "mysql")
)
_MEMBERS_BY_DAY: Final = select(audiences.c.previous_day, audiences.c.members).where(
    audiences.c.audience == bindparam("name"),
    audiences.c.day == EACH_DAY,
    audiences.c.previous_day.between(bindparam("first"), bindparam("last")),
)


@cache
def _sums_by(table: Table, by: tuple[str, ...], names: tuple[str, ...], *, in_range: bool, of_value: bool) -> Select[*tuple[Any, ...]]:
    """Builds the statement that sums figures of a range of days, or of listed keys of totals, each looked up in the index."""
    columns = [table.c[name] for name in by]
    sums = (func.sum(table.c[name]) for name in names)
    day, dimension = table.c.day, table.c.dimension.in_(bindparam("dimensions", expanding=True))
    read = day.between(bindparam("first"), bindparam("last")) if in_range else day.in_(bindparam("keys", expanding=True))
    query = select(*columns, *sums).where(dimension, read).group_by(*columns).with_hint(table, BY_KEYS, "mysql")
    return query.where(table.c.value == bindparam("value")) if of_value else query


_SOLD_TO: Final = select(orders.c.sold_at, orders.c.purchase_id, orders.c.subject, orders.c.net, orders.c.payload).where(
    orders.c.subject.in_(bindparam("subjects", expanding=True)), orders.c.sold_at.is_not(None)
)


class Reading:
    """Reads totals, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def traffic(self, period: Period, *dimensions: str) -> Mapping[str, Mapping[str, Traffic]]:
        """Returns figures of the site by dimension and value."""
        return await self._by_value(traffic, Traffic, period, dimensions, TRAFFIC)

    async def visits(self, period: Period, *dimensions: str) -> Mapping[str, Mapping[str, Traffic]]:
        """Returns sessions and page views alone, as `traffic` does: of many pages that takes half the time of all figures."""
        return await self._by_value(traffic, Traffic, period, dimensions, ("visits", "page_views"))

    async def revenue(self, period: Period, *dimensions: str) -> Mapping[str, Mapping[str, Revenue]]:
        """Returns figures of orders by dimension and value."""
        return await self._by_value(revenue, Revenue, period, dimensions, REVENUE)

    async def traffic_by_key(self, keys: Sequence[int], dimension: str = SITE, value: str = "") -> Mapping[int, Traffic]:
        """Returns figures of the site, or of one value of a dimension, by the keys of totals: days, months or hours."""
        read = {"dimensions": [dimension], "value": value, **range_of(keys)}
        return {key: figures for (key,), figures in await self._sums(traffic, Traffic, ("day",), read, TRAFFIC)}

    async def revenue_by_key(self, keys: Sequence[int], dimension: str = SITE, value: str = "") -> Mapping[int, Revenue]:
        """Returns figures of orders, as `traffic_by_key` does."""
        read = {"dimensions": [dimension], "value": value, **range_of(keys)}
        return {key: figures for (key,), figures in await self._sums(revenue, Revenue, ("day",), read, REVENUE)}

    async def revenue_by_currency(self, period: Period) -> Mapping[str, Revenue]:
        """Returns figures of all orders by their currency."""
        read = {"dimensions": [SITE], "keys": period.keys_of_totals()}
        return {currency: figures for (currency,), figures in await self._sums(revenue, Revenue, ("currency",), read, REVENUE)}

    async def _by_value(
        self, table: Table, kind: type[_Figures], period: Period, dimensions: Sequence[str], names: tuple[str, ...]
    ) -> Mapping[str, Mapping[str, _Figures]]:
        """Returns figures by dimension and value, read in one statement from whole months and the days beside them."""
        found: dict[str, dict[str, _Figures]] = {dimension: {} for dimension in dimensions}
        read = {"dimensions": dimensions, "keys": period.keys_of_totals()}
        for (dimension, value), figures in await self._sums(table, kind, ("dimension", "value"), read, names):
            found[dimension][value] = figures
        return found

    async def _sums(
        self, table: Table, kind: type[_Figures], by: tuple[str, ...], read: Mapping[str, Any], names: tuple[str, ...]
    ) -> Sequence[tuple[Any, _Figures]]:
        """Returns the values of columns, each with these sums of its rows, where they are not all 0."""
        query = _sums_by(table, by, names, in_range="first" in read, of_value="value" in read)
        found = ((row[: len(by)], row[len(by) :]) for row in await self._session.execute(query, read))
        return [(values, kind(**dict(zip(names, map(int, sums), strict=True)))) for values, sums in found if any(sums)]

    async def members(self, period: Period, names: Collection[str], *, new: bool = False) -> Mapping[str, int]:
        """Returns how many members each of these audiences has in a period; `new`: of those who never were in it before."""
        found: dict[str, int] = {}
        keys, before = period.keys_of_totals(), NEVER if new else period.first - 1
        for some in chunks(names, max(1, _MOST_RANGES // len(keys))):
            rows: Any = await self._session.execute(_MEMBERS, {"names": some, "keys": keys, "before": before})
            found |= {audience: int(count) for audience, count in rows}
        return found

    async def members_by_day(self, period: Period, name: str) -> Mapping[int, int]:
        """Returns how many members an audience has on each day."""
        rows: Any = await self._session.execute(_MEMBERS_BY_DAY, {"name": name, **period._asdict()})
        return {day: int(count) for day, count in rows}

    async def cohorts(self, basis: str, period: Period) -> Mapping[tuple[int, int], Cell]:
        """Returns the cells of the cohorts of a period's months, as `read_cohorts` does."""
        return await read_cohorts(self._session, basis, period)

    async def titles(self, ids: Collection[str]) -> Mapping[str, str]:
        """Returns the titles of products."""
        found: dict[str, str] = {}
        for some in chunks(ids):
            found |= {
                row.product_id: row.title for row in await self._session.execute(select(products).where(products.c.product_id.in_(some)))
            }
        return found

    async def buyers(self, since: datetime, until: datetime) -> Sequence[tuple[str, datetime, int, str]]:
        """Returns customer, time of the sale, net revenue and payload of all orders of those who bought in a period, oldest first."""
        bought = select(orders.c.subject).where(orders.c.sold_at >= since, orders.c.sold_at < until).distinct()
        customers = {subject: subject for subject in await self._session.scalars(bought)}
        people = set((await Persons(self._session).people(customers)).values())
        for some in chunks(people):
            rows = await self._session.execute(select(persons.c.subject, persons.c.person_id).where(persons.c.person_id.in_(some)))
            customers |= {row.subject: f"user:{row.person_id}" for row in rows}
        found: list[tuple[datetime, str, str, int, str]] = []
        for some in chunks(customers):
            rows: Any = await self._session.execute(_SOLD_TO, {"subjects": some})
            found += [(at, purchase, customers[subject], net, payload) for at, purchase, subject, net, payload in rows]
        return [(customer, at, net, payload) for at, _, customer, net, payload in sorted(found)]
