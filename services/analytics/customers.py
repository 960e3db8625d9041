"""The report of customers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, Final

from sqlalchemy.ext.asyncio import AsyncSession

from services.analytics.figures import money
from services.analytics.first_sources import first_sources
from services.analytics.reports import Query, Report, Row, page_of

_FIRST_ORDER: Final = "payload"
"""Of a row: the payload of the customer's first order."""


async def page_of_customers(
    session: AsyncSession, bought: Iterable[tuple[str, str, int, str]], query: Query, report: Report, group: str
) -> tuple[Sequence[Row], int]:
    """Returns the customers that a request asks for, and the number of customers on all pages.

    Args:
        session: the transaction.
        bought: customer, day, net revenue and payload of each order, oldest first.
        query: the request.
        report: that of customers.
        group: the customer.
    """
    rows: Sequence[Row] = _customers(bought)
    # Their first sources cost most: those of a page are enough, unless all are to be sorted by them.
    are_sorted_by_source = query.sort.removeprefix("-") == "first_source"
    if are_sorted_by_source:
        rows = await _with_sources(session, rows)
    page, total = page_of(query, report, group, rows)
    return (page if are_sorted_by_source else await _with_sources(session, page)), total


def _customers(bought: Iterable[tuple[str, str, int, str]]) -> list[Row]:
    rows: dict[str, dict[str, Any]] = {}
    values: dict[str, int] = defaultdict(int)
    for customer, day, net, payload in bought:
        row = rows.get(customer)
        if row is None:
            row = rows[customer] = {"customer": customer, "orders": 0, "first_order": day, _FIRST_ORDER: payload}
        row["orders"] += 1
        row["last_order"] = day
        values[customer] += net
    return [{**row, "lifetime_value": money(values[customer])} for customer, row in rows.items()]


async def _with_sources(session: AsyncSession, rows: Sequence[Row]) -> Sequence[Row]:
    came_from = await first_sources(session, [(str(row["customer"]), str(row[_FIRST_ORDER])) for row in rows])
    return [{**row, "first_source": came_from[str(row["customer"])].source} for row in rows]
