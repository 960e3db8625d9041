"""Where persons first came from: one definition, for the report of customers, their export and what is sent of persons."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks
from kit.people.persons import Persons, persons
from services.analytics.messages import is_session
from services.analytics.models import orders, sessions
from services.analytics.orders import UNKNOWN, Order
from services.analytics.repository import moment
from services.analytics.sessions import NO_MEDIUM, loads, origin_of

_USER: Final = "user:"


class FirstSource(NamedTuple):
    """The source of a person's first session, or of its first order where that is older or no session is known."""

    source: str = UNKNOWN
    medium: str = NO_MEDIUM
    campaign: str = ""
    session: str = ""
    """The identifier of the session; empty for an order."""


async def first_sources(session: AsyncSession, bought: Iterable[tuple[str, str]]) -> Mapping[str, FirstSource]:
    """Returns where customers first came from.

    Args:
        session: the transaction.
        bought: customer and payload of each order, the oldest first.
    """
    first: dict[str, Order] = {}
    for customer, payload in bought:
        if customer not in first:
            first[customer] = Order.loads(payload)
    seen = await _first_sessions(session, first)
    return {customer: _earlier(seen.get(customer), order) for customer, order in first.items()}


async def first_source(session: AsyncSession, person_id: str) -> FirstSource:
    """Returns where a person first came from."""
    query = select(orders.c.payload).join_from(persons, orders, orders.c.subject == persons.c.subject)
    own = query.where(persons.c.person_id == person_id, orders.c.sold_at.is_not(None))
    payload = await session.scalar(own.order_by(orders.c.sold_at, orders.c.purchase_id).limit(1))
    customer = f"{_USER}{person_id}"
    seen = await _first_sessions(session, [customer])
    return _earlier(seen.get(customer), Order.loads(payload) if payload else None)


class _Seen(NamedTuple):
    """The first session of a customer."""

    at: datetime
    came_from: FirstSource


def _earlier(seen: _Seen | None, order: Order | None) -> FirstSource:
    if order is not None and order.source and order.sold_at is not None and (seen is None or moment(order.sold_at) < seen.at):
        return FirstSource(order.source, order.medium or NO_MEDIUM, order.campaign)
    return seen.came_from if seen is not None else FirstSource()


async def _first_sessions(session: AsyncSession, customers: Collection[str]) -> Mapping[str, _Seen]:
    """Returns the first session of customers, `user:` and a person or an identifier that leads to none."""
    owners = {customer: customer for customer in customers}
    people = {each.removeprefix(_USER) for each in customers if each.startswith(_USER)}
    owners |= {identifier: f"{_USER}{person}" for identifier, person in (await Persons(session).people_by_identifier(people)).items()}
    began: dict[str, tuple[datetime, Any, str]] = {}
    of_user = (sessions.c.subject, ~sessions.c.carrier.startswith("event:"))
    # Not `IS NULL`, for which databases would read all sessions of visitors instead of these.
    of_visitor = (sessions.c.carrier, func.coalesce(sessions.c.subject, "") == "")
    carriers = {identifier for identifier in owners if is_session(identifier)}
    for (column, condition), identifiers in ((of_user, owners.keys() - carriers), (of_visitor, carriers)):
        for some in chunks(identifiers):
            query = select(column, func.min(sessions.c.started_at, type_=sessions.c.started_at.type)).where(column.in_(some), condition)
            for identifier, at in await session.execute(query.group_by(column)):
                owner = owners[identifier]
                if owner not in began or at < began[owner][0]:
                    began[owner] = at, column, identifier
    found: dict[str, _Seen] = {}
    for column, condition in (of_user, of_visitor):
        wanted = {identifier: (owner, at) for owner, (at, own, identifier) in began.items() if own is column}
        for some in chunks(wanted):
            query = select(column.label("identifier"), sessions.c.carrier, sessions.c.started_at, sessions.c.payload)
            times = {wanted[identifier][1] for identifier in some}
            for row in await session.execute(query.where(column.in_(some), sessions.c.started_at.in_(times), condition)):
                owner, at = wanted[row.identifier]
                if row.started_at == at:
                    found[owner] = _Seen(at, FirstSource(*origin_of(loads(row.payload)), row.carrier))
    return found
