"""Keeps cohorts current, in the transaction that changes orders, registrations or persons, and reads them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, TypeAlias

from sqlalchemy import ColumnElement, delete, or_, select, tuple_
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, increase, upsert
from kit.people.persons import Persons
from services.analytics.cohorts import Cell, CellKey, differences
from services.analytics.counts import Spending
from services.analytics.days import Period, month_number
from services.analytics.models import cohorts, customer_months

_NOTHING: Final = Spending()
_Rows: TypeAlias = dict[tuple[str, int], dict[str, Any]]
"""Rows by identifier and month."""


async def change_cohorts(session: AsyncSession, spending: Mapping[tuple[str, int], Spending], moved: Collection[str]) -> None:
    """Adds what identifiers bought to their months and to the cohorts of the persons whom they lead to.

    Args:
        session: the transaction.
        spending: what is added, by identifier and month.
        moved: identifiers that lead to another person than before.
    """
    known, after = await _changed(session, spending, await _customers(session, moved))
    await _replace(session, known, after)


async def cells_of_others(session: AsyncSession, spending: Mapping[tuple[str, int], Spending]) -> Mapping[CellKey, Cell]:
    """Returns what cells would have in addition if identifiers had bought this as well, by identifier and month."""
    known, after = await _changed(session, spending, {})
    return differences(_by_person(known.values()), _by_person(after.values()))


async def erase_customer(session: AsyncSession, identifiers: Sequence[str], pseudonym: str) -> int:
    """Replaces the identifiers of a person by a pseudonym, under which her orders remain; returns the number of rows."""
    own = or_(customer_months.c.subject.in_(identifiers), customer_months.c.customer.in_(identifiers))
    erased = await _found(session, own)
    known = await _months(session, {row["customer"] for row in erased.values()} | {pseudonym})
    after = {key: row for key, row in known.items() if key not in erased}
    for (_, month), row in erased.items():
        others = after.get((pseudonym, month)) or _row(pseudonym, month, pseudonym)
        after[pseudonym, month] = {**others, **{name: others[name] + row[name] for name in asdict(_NOTHING)}}
    await _replace(session, known, after)
    return len(erased)


async def read_cohorts(session: AsyncSession, basis: str, period: Period) -> Mapping[tuple[int, int], Cell]:
    """Returns the cells of cohorts, by the cohort's month and their own: of cohorts of the months of a period."""
    months = month_number(period.first), month_number(period.last)
    query = select(cohorts.c.cohort, cohorts.c.month, cohorts.c.members, cohorts.c.net)
    rows = await session.execute(query.where(cohorts.c.basis == basis, cohorts.c.cohort.between(*months)))
    return {(row.cohort, row.month): Cell(row.members, row.net) for row in rows}


async def _changed(session: AsyncSession, spending: Mapping[tuple[str, int], Spending], moved: Mapping[str, str]) -> tuple[_Rows, _Rows]:
    """Returns the rows of the persons who bought something, or to whom identifiers have moved, as they are and as they come to be.

    Args:
        session: the transaction.
        spending: what is added, by identifier and month.
        moved: identifiers that lead to another person than before, with the customers for whom they counted.
    """
    changes = {key: each for key, each in spending.items() if each != _NOTHING}
    subjects = {subject for subject, _ in changes} | moved.keys()
    people = await Persons(session).people(subjects)
    customer_of = {subject: f"user:{people[subject]}" if subject in people else subject for subject in subjects}
    known = await _months(session, {*customer_of.values(), *moved.values()})
    after = {key: {**row, "customer": customer_of.get(row["subject"], row["customer"])} for key, row in known.items()}
    for (subject, month), change in changes.items():
        row = after.get((subject, month)) or _row(subject, month, customer_of[subject])
        after[subject, month] = {**row, **{name: row[name] + count for name, count in asdict(change).items()}}
    return known, after


async def _replace(session: AsyncSession, known: _Rows, after: _Rows) -> None:
    """Writes rows in the place of others, and the difference in cells: both are all rows of the persons concerned."""
    left = {key: row for key, row in after.items() if _spending(row) != _NOTHING}
    changes = differences(_by_person(known.values()), _by_person(left.values()))
    cells = [
        {"basis": basis, "cohort": cohort, "month": month, "members": cell.members, "net": cell.net}
        for (basis, cohort, month), cell in sorted(changes.items())
    ]
    await increase(session, cohorts, cells)
    for some in chunks(known.keys() - left.keys()):
        await session.execute(delete(customer_months).where(tuple_(customer_months.c.subject, customer_months.c.month).in_(some)))
    await upsert(session, customer_months, [row for key, row in sorted(left.items()) if row != known.get(key)])


async def _customers(session: AsyncSession, subjects: Collection[str]) -> dict[str, str]:
    """Returns for whom identifiers counted so far, of those that bought or registered."""
    found: dict[str, str] = {}
    for some in chunks(subjects):
        query = select(customer_months.c.subject, customer_months.c.customer).where(customer_months.c.subject.in_(some)).distinct()
        found |= {row.subject: row.customer for row in await session.execute(query)}
    return found


async def _months(session: AsyncSession, customers: Collection[str]) -> _Rows:
    """Returns all rows of customers."""
    found: _Rows = {}
    for some in chunks(customers):
        found |= await _found(session, customer_months.c.customer.in_(some))
    return found


async def _found(session: AsyncSession, condition: ColumnElement[bool]) -> _Rows:
    rows = await session.execute(select(customer_months).where(condition))
    return {(row["subject"], row["month"]): {str(name): value for name, value in row.items()} for row in rows.mappings()}


def _row(subject: str, month: int, customer: str) -> dict[str, Any]:
    return {"subject": subject, "month": month, "customer": customer, **asdict(_NOTHING)}


def _spending(row: Mapping[str, Any]) -> Spending:
    return Spending(row["orders"], row["net"], row["registrations"])


def _by_person(rows: Iterable[Mapping[str, Any]]) -> Iterable[Mapping[int, Spending]]:
    """Returns what each person did, by month, the sum of all her identifiers."""
    people: dict[str, dict[int, Spending]] = defaultdict(lambda: defaultdict(Spending))
    for row in rows:
        total, each = people[row["customer"]][row["month"]], _spending(row)
        people[row["customer"]][row["month"]] = Spending(
            total.orders + each.orders, total.net + each.net, total.registrations + each.registrations
        )
    return people.values()
