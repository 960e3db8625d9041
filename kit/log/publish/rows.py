"""Rows of an outbox in the order in which they are published."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Final, NamedTuple

from sqlalchemy import CompoundSelect, bindparam, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.tables import outbox

ROWS: Final = 16
"""Most rows of a partition in one query. A row may be 512 KiB: what one query returns has to fit into memory."""


@cache
def _query(partitions: int) -> CompoundSelect[int, int, bytes]:
    """Selects, of so many partitions, the row at an offset and some of those after it."""
    of_each = (
        select(outbox.c.partition, outbox.c.position, outbox.c.pack)
        .where(
            outbox.c.topic == bindparam("own_topic"),
            outbox.c.partition == bindparam(f"partition_{number}"),
            outbox.c.position >= bindparam(f"offset_{number}"),
        )
        .order_by(outbox.c.position)
        .limit(ROWS + 1)
        .subquery()
        for number in range(partitions)
    )
    return union_all(*(select(rows) for rows in of_each))


class Row(NamedTuple):
    """A row of one partition."""

    position: int
    pack: bytes


NOTHING: Final = Row(0, b"")
"""Stands for the last row of a stream in which nothing was published yet."""


def rows_after_last(last: Row, rows: Sequence[Row]) -> Sequence[Row] | None:
    """Returns the rows after the last one published; None if the database does not hold that one."""
    if last == NOTHING:
        return rows if not rows or rows[0].position == 1 else None
    return rows[1:] if rows and rows[0] == last else None


async def rows_after(session: AsyncSession, topic: str, offsets: Mapping[int, int]) -> Mapping[int, Sequence[Row]]:
    """Returns, by partition, the row at an offset, if it still exists, and some of those after it."""
    asked: dict[str, str | int] = {"own_topic": topic}
    for number, (partition, offset) in enumerate(sorted(offsets.items())):
        asked |= {f"partition_{number}": partition, f"offset_{number}": offset}
    rows: dict[int, list[Row]] = defaultdict(list)
    for partition, offset, pack in await session.execute(_query(len(offsets)), asked):
        rows[partition].append(Row(offset, pack))
    return {partition: sorted(found) for partition, found in rows.items()}
