"""Sessions and customers as exports."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.exports import Export, rows
from kit.people.persons import persons
from services.analytics.first_sources import first_sources
from services.analytics.messages import is_session
from services.analytics.models import sessions
from services.analytics.orders import UNIT
from services.analytics.reading import Reading
from services.analytics.sessions import ENROLMENT, LEAD, VIEW, device_of, landing_of, loads, origin_of


class ExportedSession(NamedTuple):
    """A session that began in the period."""

    visitor: str
    """The person, if she is known, else the identifier under which the events came."""
    started_at: datetime
    ended_at: datetime
    source: str
    medium: str
    campaign: str
    landing_page: str
    """Empty without a page view."""
    device: str
    """Empty when unknown."""
    events: int
    page_views: int
    leads: int
    enrolments: int


class ExportedCustomer(NamedTuple):
    """A customer with an order sold in the period."""

    customer: str
    orders: int
    """All orders sold to the customer."""
    lifetime_value: Decimal
    """Net revenue of all orders sold to the customer, in the base currency."""
    first_order_at: datetime
    last_order_at: datetime
    first_source: str


async def _sessions(session: AsyncSession, since: datetime, until: datetime) -> AsyncIterator[ExportedSession]:
    query = select(sessions, persons.c.person_id).join(persons, persons.c.subject == sessions.c.subject, isouter=True)
    query = query.where(sessions.c.started_at >= since, sessions.c.started_at < until).order_by(sessions.c.started_at, sessions.c.id)
    async for row in rows(session, query):
        if is_session(row.carrier):
            yield _exported(row)


def _exported(row: Any) -> ExportedSession:
    events = loads(row.payload)
    source, medium, campaign = origin_of(events)
    kinds = [event.kind for event in events]
    return ExportedSession(
        visitor=f"user:{row.person_id}" if row.person_id else row.subject or row.carrier,
        started_at=row.started_at,
        ended_at=row.ended_at,
        source=source,
        medium=medium,
        campaign=campaign,
        landing_page=landing_of(events),
        device=device_of(events),
        events=len(events),
        page_views=kinds.count(VIEW),
        leads=kinds.count(LEAD),
        enrolments=kinds.count(ENROLMENT),
    )


async def _customers(session: AsyncSession, since: datetime, until: datetime) -> AsyncIterator[ExportedCustomer]:
    found: dict[str, ExportedCustomer] = {}
    bought = await Reading(session).buyers(since, until)
    came_from = await first_sources(session, [(customer, payload) for customer, _, _, payload in bought])
    for customer, at, net, _ in bought:
        value = Decimal(net) / UNIT
        known = found.get(customer) or ExportedCustomer(customer, 0, Decimal(0), at, at, came_from[customer].source)
        found[customer] = known._replace(orders=known.orders + 1, lifetime_value=known.lifetime_value + value, last_order_at=at)
    for each in found.values():
        yield each


EXPORTS: Final = {"sessions": Export(ExportedSession, _sessions), "customers": Export(ExportedCustomer, _customers)}
