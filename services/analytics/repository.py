"""SQL of the facts of analytics."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, and_, bindparam, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from services.analytics.days import MICROSECONDS
from services.analytics.models import courses, orders, products, registrations, sessions
from services.analytics.sessions import IDLE, Event, Session, dumps, loads, user_of

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
