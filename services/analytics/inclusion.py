"""Totals with orders that are excluded from them: those that a request includes are counted for it, by the rules of all others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import bindparam, select, true
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.database.transactions import chunks
from kit.people.persons import Persons
from services.analytics.cohort_store import cells_of_others
from services.analytics.cohorts import Cell
from services.analytics.counts import HOUR, REVENUE, SITE, Counts, Revenue, added
from services.analytics.days import Calendar, Period, month_of
from services.analytics.models import orders, presences
from services.analytics.orders import Order, count_order
from services.analytics.reading import Members, Reading, Sale
from services.analytics.repository import moment

_EXCLUDED: Final = select(orders.c.purchase_id, orders.c.subject, orders.c.visitor, orders.c.net, orders.c.payload).where(
    orders.c.is_excluded == true()  # IS TRUE reads the whole table in MySQL
)
_PRESENCES: Final = select(presences.c.audience, presences.c.visitor, presences.c.day).where(
    presences.c.visitor.in_(bindparam("visitors", expanding=True)), presences.c.audience.in_(bindparam("audiences", expanding=True))
)
_Days = Mapping[str, Mapping[str, Collection[int]]]
"""The days of visitors in audiences."""


async def reading_with(session: AsyncSession, calendar: Calendar, reasons: Collection[str]) -> Reading:
    """Returns how totals are read with those excluded orders whose reasons are all among these."""
    return await IncludingReading.of(session, calendar, reasons) if reasons else Reading(session)


class IncludingReading(Reading):
    """Reads totals, and adds what excluded orders come to. There are few of them: all are read and counted for each request.

    Args:
        session: the transaction.
        sales: the sales of these orders.
        counts: what the orders come to.
        without: the days of their visitors in audiences, as they are without them.
        within: the same with them.
    """

    def __init__(self, session: AsyncSession, sales: Sequence[Sale], counts: Counts, without: _Days, within: _Days) -> None:
        super().__init__(session, sales)
        self._counts = counts
        self._without, self._within = without, within

    @classmethod
    async def of(cls, session: AsyncSession, calendar: Calendar, reasons: Collection[str]) -> IncludingReading:
        """Counts the orders whose reasons are all among these."""
        counts, sales = Counts(calendar), list[Sale]()
        for row in await session.execute(_EXCLUDED):
            order = Order.loads(row.payload)
            if not set(order.excluded) <= set(reasons):
                continue
            count_order(counts, order, row.subject, row.visitor or "")
            if order.sold_at is not None:
                sales.append(Sale(moment(order.sold_at), row.purchase_id, row.subject, row.net, row.payload))
        without, within = await _presences(session, counts)
        return cls(session, sales, counts, without, within)

    @override
    async def revenue(self, period: Period, *dimensions: str, names: tuple[str, ...] = REVENUE) -> Mapping[str, Mapping[str, Revenue]]:
        found = {dimension: dict(values) for dimension, values in (await super().revenue(period, *dimensions, names=names)).items()}
        for (dimension, day, value, _), figures in self._counts.revenue.items():
            if dimension in found and period.first <= day <= period.last:
                found[dimension][value] = added(found[dimension].get(value, Revenue()), figures)
        return found

    @override
    async def revenue_by_currency(self, period: Period) -> Mapping[str, Revenue]:
        found = dict(await super().revenue_by_currency(period))
        for (dimension, day, _, currency), figures in self._counts.revenue.items():
            if dimension == SITE and period.first <= day <= period.last:
                found[currency] = added(found.get(currency, Revenue()), figures)
        return found

    @override
    async def revenue_by_key(
        self, keys: Sequence[int], dimension: str = SITE, value: str = "", names: tuple[str, ...] = REVENUE
    ) -> Mapping[int, Revenue]:
        found, read = dict(await super().revenue_by_key(keys, dimension, value, names)), set(keys)
        for (of, at, each, _), figures in self._counts.revenue.items():
            if (of, each) == (dimension, value):
                for key in {at, at if of == HOUR else month_of(at)} & read:
                    found[key] = added(found.get(key, Revenue()), figures)
        return found

    @override
    async def members(self, period: Period, names: Collection[str]) -> Mapping[str, Members]:
        found = dict(await super().members(period, names))
        for name in self._within.keys() & set(names):
            before, after = _members(self._without[name].values(), period), _members(self._within[name].values(), period)
            known = found.get(name, Members())
            found[name] = Members(known.all + after.all - before.all, known.new + after.new - before.new)
        return found

    @override
    async def cohorts(self, basis: str, period: Period) -> Mapping[tuple[int, int], Cell]:
        found = dict(await super().cohorts(basis, period))
        for (of, cohort, month), cell in (await cells_of_others(self.session, self._counts.spending)).items():
            if of == basis:
                known = found.get((cohort, month), Cell(0, 0))
                found[cohort, month] = Cell(known.members + cell.members, known.net + cell.net)
        return found


async def _presences(session: AsyncSession, counts: Counts) -> tuple[_Days, _Days]:
    """Returns the days of those whom orders show in audiences: as they are stored, and with the orders."""
    people = await Persons(session).people({subject for _, subject, _ in counts.presences})
    without: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    within: dict[str, dict[str, set[int]]] = defaultdict(lambda: defaultdict(set))
    for audience, subject, day in counts.presences:
        within[audience][f"user:{people[subject]}" if subject in people else subject].add(day)
    for some in chunks({visitor for visitors in within.values() for visitor in visitors}):
        rows: Any = await session.execute(_PRESENCES, {"visitors": some, "audiences": [*within]})
        for audience, visitor, day in rows:
            if visitor in within[audience]:
                without[audience][visitor].add(day)
                within[audience][visitor].add(day)
    return without, within


def _members(days_of: Iterable[Collection[int]], period: Period) -> Members:
    """Returns the members of an audience in a period, from the days of each."""
    seen = [days for days in days_of if any(period.first <= day <= period.last for day in days)]
    return Members(len(seen), sum(min(days) >= period.first for days in seen))
