"""Cohorts: the persons whose first order, or registration, was in the same month, and what they bought in each month since. Pure."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias

from services.analytics.counts import Spending
from services.analytics.days import Period, iso_month, month_number
from services.analytics.figures import money, ratio

FIRST_ORDER: Final = "first_order"
REGISTRATION: Final = "registration"
WHOLE: Final = 0
"""Stands for the month of the cell with the number of all persons of a cohort."""

CellKey: TypeAlias = tuple[str, int, int]
"""Whether the cohort is one of first orders or of registrations, its month, and the month of the cell, `days.month_number`."""
Row: TypeAlias = dict[str, Any]


class Cell(NamedTuple):
    """What a cohort, or one person of it, did in a month."""

    members: int
    """Persons with an order sold in it; in the cell WHOLE, all persons of the cohort."""
    net: int
    """Net revenue in ten-thousandths of the base currency."""


def cells_of(months: Mapping[int, Spending]) -> Iterator[tuple[CellKey, Cell]]:
    """Yields the cells of one person.

    A person belongs to the month of her first order, and to that of her first registration; what she bought before she registered is in
    no cell of the latter.

    Args:
        months: what she did, by month.
    """
    for basis, began in (
        (FIRST_ORDER, min((month for month, each in months.items() if each.orders > 0), default=None)),
        (REGISTRATION, min((month for month, each in months.items() if each.registrations > 0), default=None)),
    ):
        if began is None:
            continue
        yield (basis, began, WHOLE), Cell(1, 0)
        for month, each in months.items():
            if month >= began and (each.orders > 0 or each.net):
                yield (basis, began, month), Cell(int(each.orders > 0), each.net)


def differences(before: Iterable[Mapping[int, Spending]], after: Iterable[Mapping[int, Spending]]) -> Mapping[CellKey, Cell]:
    """Returns what is to be added to cells when what persons did changes; each mapping is one person's."""
    changes: dict[CellKey, Cell] = defaultdict(lambda: Cell(0, 0))
    for people, times in ((before, -1), (after, 1)):
        for months in people:
            for key, cell in cells_of(months):
                known = changes[key]
                changes[key] = Cell(known.members + cell.members * times, known.net + cell.net * times)
    return {key: cell for key, cell in changes.items() if any(cell)}


def rows_of(basis: str, cells: Mapping[tuple[int, int], Cell], period: Period) -> list[Row]:
    """Returns the rows of the report: for each cohort its own month and each later one, up to the end of the period.

    Args:
        basis: FIRST_ORDER or REGISTRATION, the column with the cohort's month.
        cells: by the cohort's month and their own.
        period: the months of the cohorts are those of its days.
    """
    last, rows = month_number(period.last), list[Row]()
    for cohort in range(month_number(period.first), last + 1):
        persons = cells.get((cohort, WHOLE), Cell(0, 0)).members
        for month in range(cohort, last + 1) if persons else ():
            cell = cells.get((cohort, month), Cell(0, 0))
            rows.append(
                {
                    basis: iso_month(cohort),
                    "months_later": month - cohort,
                    "persons": persons,
                    "buyers": cell.members,
                    "retention": ratio(cell.members, persons),
                    "net_revenue": money(cell.net),
                }
            )
    return rows
