"""SQL of totals, as rpcs read them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from functools import cache
from typing import Any, Final, NamedTuple

from sqlalchemy import BindParameter, ColumnElement, Select, String, Table, bindparam, case, cast, func, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks
from kit.people.persons import Persons, persons
from services.analytics.cohort_store import read_cohorts
from services.analytics.cohorts import Cell
from services.analytics.counts import EACH_DAY, NEVER, PAGE, REVENUE, SITE, TRAFFIC, Revenue, Traffic
from services.analytics.days import MOST_RANGES, Period, ranges_of
from services.analytics.models import audiences, orders, products, revenue, traffic

_LAST: Final[BindParameter[int]] = bindparam("last")
_MOST_AUDIENCES: Final = 500
"""Audiences in one statement: with far more ranges of an index MySQL reads the whole table."""
BY_KEYS: Final = "FORCE INDEX (PRIMARY)"
"""MySQL estimates many keys from statistics, which lag after a table that grows, and then may read all of it."""
VISITS: Final = ("visits", "page_views")
"""The figures by which values are ranked, those of orders aside."""
SALES: Final = ("orders", "base_gross", "base_refunds", "base_corrections")
"""The figures of net revenue."""


FOUND: Final = "found"
"""What a statement has found through an index, and sums up."""


class Members(NamedTuple):
    """The members of an audience in a period; each counts once."""

    all: int = 0
    new: int = 0
    """Those who never were in it before."""


class Sale(NamedTuple):
    """An order that was sold."""

    at: datetime
    purchase_id: str
    subject: str
    net: int
    """In ten-thousandths of the base currency."""
    payload: str
    """`orders.Order.dumps`."""


def summed(column: ColumnElement[int], table: Table) -> ColumnElement[int]:
    """Returns the sum of a column over keys of totals; those after the last day of the period are subtracted, `Period.keys_of_totals`."""
    return func.sum(case((table.c.day > _LAST, -column), else_=column))


def within(table: Table, dialect: str) -> ColumnElement[bool]:
    """Returns the condition on rows of the keys of totals that `read_of` names.

    MySQL plans the search of each key by itself, which takes longer than to search a few ranges. SQLite would read the rows between them.
    """
    if dialect != "mysql":
        return table.c.day.in_(bindparam("keys", expanding=True))
    return or_(*(table.c.day.between(bindparam(f"first_{number}"), bindparam(f"last_{number}")) for number in range(MOST_RANGES)))


def read_of(period: Period) -> dict[str, Any]:
    """Returns the parameters of statements on a period."""
    keys = period.keys_of_totals()
    ranges = [*ranges_of(keys), *[(1, 0)] * MOST_RANGES][:MOST_RANGES]
    bounds = {f"{name}_{number}": key for number, each in enumerate(ranges) for name, key in zip(("first", "last"), each, strict=True)}
    return {"keys": keys, "last": period.last, "before": period.first - 1, **bounds}


@cache
def _members(dialect: str) -> Select[*tuple[Any, ...]]:
    new = case((audiences.c.previous_day == NEVER, audiences.c.members), else_=0)
    # As an expression, so that the index is searched by audience and day alone.
    was_before = audiences.c.previous_day + 0 <= bindparam("before")
    query = select(audiences.c.audience, summed(audiences.c.members, audiences), summed(new, audiences)).group_by(audiences.c.audience)
    query = query.where(audiences.c.audience.in_(bindparam("names", expanding=True)), within(audiences, dialect), was_before)
    return query.with_hint(audiences, BY_KEYS, "mysql")


@cache
def _sums(table: Table, by: tuple[str, ...], names: tuple[str, ...], dialect: str) -> Select[*tuple[Any, ...]]:
    """Builds the statement that sums figures of a period."""
    columns = [table.c[name] for name in by]
    query = select(*columns, *(summed(table.c[name], table) for name in names)).group_by(*columns)
    query = query.where(table.c.dimension.in_(bindparam("dimensions", expanding=True)), within(table, dialect))
    return query.with_hint(table, BY_KEYS, "mysql")


@cache
def _largest_pages(dialect: str) -> Select[*tuple[Any, ...]]:
    """Builds the statement that finds the pages with the most views."""
    views = summed(traffic.c.page_views, traffic).label("views")
    query = select(traffic.c.value, views).where(traffic.c.dimension == PAGE, within(traffic, dialect)).group_by(traffic.c.value)
    return query.having(views != 0).order_by(views.desc(), traffic.c.value).limit(bindparam("top")).with_hint(traffic, BY_KEYS, "mysql")


@cache
def _by_key(table: Table, names: tuple[str, ...], *, in_range: bool) -> Select[str]:
    """Builds the statement that sums figures of one value by the keys of totals: a range of them, or those that are listed."""
    day = table.c.day
    read = day.between(bindparam("first"), bindparam("last")) if in_range else day.in_(bindparam("keys", expanding=True))
    query = select(day, *(func.sum(table.c[name]).label(name) for name in names)).group_by(day).with_hint(table, BY_KEYS, "mysql")
    return _in_one_row(query.where(table.c.dimension == bindparam("dimension"), read, table.c.value == bindparam("value")))


def _in_one_row(query: Select[*tuple[Any, ...]]) -> Select[str]:
    """Builds the statement that returns whole numbers as one text, which takes a tenth of the time of as many rows."""
    first, *others = query.subquery(FOUND).c
    text = cast(first, String(20))
    for column in others:
        text = text.concat(" ").concat(cast(column, String(20)))
    return select(func.aggregate_strings(text, ","))


def _rows(text: str | None) -> list[list[int]]:
    """Parses the text of `_in_one_row`."""
    return [[int(number) for number in row.split(" ")] for row in text.split(",")] if text else []


_MEMBERS_BY_DAY: Final = _in_one_row(
    select(audiences.c.previous_day, audiences.c.members).where(
        audiences.c.audience == bindparam("name"),
        audiences.c.day == EACH_DAY,
        audiences.c.previous_day.between(bindparam("first"), bindparam("last")),
    )
)
_SALE: Final = (orders.c.sold_at, orders.c.purchase_id, orders.c.subject, orders.c.net, orders.c.payload)
_SOLD_TO: Final = select(*_SALE).where(orders.c.subject.in_(bindparam("subjects", expanding=True)), orders.c.sold_at.is_not(None))
_SOLD_TO_PERSONS: Final = (
    select(persons.c.person_id, *_SALE)
    .join_from(persons, orders, orders.c.subject == persons.c.subject)
    .where(persons.c.person_id.in_(bindparam("people", expanding=True)), orders.c.sold_at.is_not(None))
)


class Reading:
    """Reads totals, within one transaction.

    Figures are read in whole, or as those of their columns that are named: each further one takes time for each row.

    Args:
        session: the transaction.
        sales: those that count although they are stored as excluded.
    """

    def __init__(self, session: AsyncSession, sales: Sequence[Sale] = ()) -> None:
        self.session = session
        self._sales = sales
        self._dialect = session.get_bind().dialect.name

    async def traffic(self, period: Period, *dimensions: str, names: tuple[str, ...] = TRAFFIC) -> Mapping[str, Mapping[str, Traffic]]:
        """Returns figures of the site by dimension and value."""
        found: dict[str, dict[str, Traffic]] = {dimension: {} for dimension in dimensions}
        for (dimension, value), sums in await self._summed(traffic, ("dimension", "value"), period, dimensions, names):
            found[dimension][value] = Traffic(**sums)
        return found

    async def revenue(self, period: Period, *dimensions: str, names: tuple[str, ...] = REVENUE) -> Mapping[str, Mapping[str, Revenue]]:
        """Returns figures of orders by dimension and value."""
        found: dict[str, dict[str, Revenue]] = {dimension: {} for dimension in dimensions}
        for (dimension, value), sums in await self._summed(revenue, ("dimension", "value"), period, dimensions, names):
            found[dimension][value] = Revenue(**sums)
        return found

    async def revenue_by_currency(self, period: Period) -> Mapping[str, Revenue]:
        """Returns figures of all orders by their currency."""
        return {currency: Revenue(**sums) for (currency,), sums in await self._summed(revenue, ("currency",), period, [SITE], REVENUE)}

    async def pages(self, period: Period, top: int) -> Mapping[str, Traffic]:
        """Returns the page views of the pages that have the most."""
        rows: Any = await self.session.execute(_largest_pages(self._dialect), {**read_of(period), "top": top})
        return {page: Traffic(page_views=int(views)) for page, views in rows}

    async def traffic_by_key(
        self, keys: Sequence[int], dimension: str = SITE, value: str = "", names: tuple[str, ...] = TRAFFIC
    ) -> Mapping[int, Traffic]:
        """Returns figures of the site, or of one value of a dimension, by the keys of totals: days, months or hours."""
        return {key: Traffic(**sums) for key, sums in await self._summed_by_key(traffic, keys, (dimension, value), names)}

    async def revenue_by_key(
        self, keys: Sequence[int], dimension: str = SITE, value: str = "", names: tuple[str, ...] = REVENUE
    ) -> Mapping[int, Revenue]:
        """Returns figures of orders, as `traffic_by_key` does."""
        return {key: Revenue(**sums) for key, sums in await self._summed_by_key(revenue, keys, (dimension, value), names)}

    async def _summed(
        self, table: Table, by: tuple[str, ...], period: Period, dimensions: Sequence[str], names: tuple[str, ...]
    ) -> Sequence[tuple[Any, dict[str, int]]]:
        """Returns the values of columns, each with these sums of its rows, where they are not all 0."""
        rows = await self.session.execute(_sums(table, by, names, self._dialect), {**read_of(period), "dimensions": dimensions})
        found = ((row[: len(by)], row[len(by) :]) for row in rows)
        return [(values, dict(zip(names, map(int, sums), strict=True))) for values, sums in found if any(sums)]

    async def _summed_by_key(
        self, table: Table, keys: Sequence[int], of: tuple[str, str], names: tuple[str, ...]
    ) -> Sequence[tuple[int, dict[str, int]]]:
        [(first, last), *others] = ranges_of(keys)
        query = _by_key(table, names, in_range=not others)
        read = {"dimension": of[0], "value": of[1], "first": first, "last": last, "keys": keys}
        text = await self.session.scalar(query, read)
        return [(key, dict(zip(names, sums, strict=True))) for key, *sums in _rows(text)]

    async def members(self, period: Period, names: Collection[str]) -> Mapping[str, Members]:
        """Returns the members of these audiences in a period; of one that nobody was in, nothing."""
        found: dict[str, Members] = {}
        for some in chunks(names, _MOST_AUDIENCES):
            rows: Any = await self.session.execute(_members(self._dialect), {**read_of(period), "names": some})
            found |= {audience: Members(int(count), int(new)) for audience, count, new in rows}
        return found

    async def members_by_day(self, period: Period, name: str) -> Mapping[int, int]:
        """Returns how many members an audience has on each day."""
        text = await self.session.scalar(_MEMBERS_BY_DAY, {"name": name, **period._asdict()})
        return {row[0]: row[1] for row in _rows(text)}

    async def cohorts(self, basis: str, period: Period) -> Mapping[tuple[int, int], Cell]:
        """Returns the cells of the cohorts of a period's months, as `read_cohorts` does."""
        return await read_cohorts(self.session, basis, period)

    async def titles(self, ids: Collection[str]) -> Mapping[str, str]:
        """Returns the titles of products."""
        found: dict[str, str] = {}
        for some in chunks(ids):
            found |= {
                row.product_id: row.title for row in await self.session.execute(select(products).where(products.c.product_id.in_(some)))
            }
        return found

    async def buyers(self, since: datetime, until: datetime) -> Sequence[tuple[str, datetime, int, str]]:
        """Returns customer, time of the sale, net revenue and payload of all orders of those who bought in a period, oldest first."""
        buyer = select(orders.c.subject, persons.c.person_id).outerjoin_from(orders, persons, orders.c.subject == persons.c.subject)
        sold: Any = await self.session.execute(buyer.where(orders.c.sold_at >= since, orders.c.sold_at < until).distinct())
        buyers = {subject: person or "" for subject, person in sold}
        person_of = await Persons(self.session).people({sale.subject for sale in self._sales})
        buyers |= {sale.subject: person_of.get(sale.subject, "") for sale in self._sales if since <= sale.at < until}
        people, others = set(buyers.values()) - {""}, {subject for subject, person in buyers.items() if not person}
        owned = ((sale, person_of.get(sale.subject, "")) for sale in self._sales)
        found = [(sale, person) for sale, person in owned if person in people or sale.subject in others]
        for some in chunks(others):
            rows: Any = await self.session.execute(_SOLD_TO, {"subjects": some})
            found += [(Sale(*row), "") for row in rows]
        # Joined by the database: a person may have thousands of identifiers, few of which bought something.
        for some in chunks(people):
            rows = await self.session.execute(_SOLD_TO_PERSONS, {"people": some})
            found += [(Sale(*row), person) for person, *row in rows]
        return [(f"user:{person}" if person else sale.subject, sale.at, sale.net, sale.payload) for sale, person in sorted(found)]
