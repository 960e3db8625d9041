"""Tables that can be exported, as files for other programs."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

from sqlalchemy import Row, Select
from sqlalchemy.ext.asyncio import AsyncSession

_AT_ONCE: Final = 1000


class Export(NamedTuple):
    """An export of a service, which lists its exports as `EXPORTS`, by their names, in `exports.py`."""

    columns: type[Any]
    """A NamedTuple. Its fields are the columns; their types are str, bool, int, Decimal or datetime, or one of these and None."""
    read: Callable[[AsyncSession, datetime, datetime], AsyncIterator[tuple[Any, ...]]]
    """Returns the rows of a period, the end of which is excluded, in the order of time."""


async def rows(session: AsyncSession, query: Select[*tuple[Any, ...]]) -> AsyncIterator[Row[*tuple[Any, ...]]]:
    """Returns the rows of a query while the database sends them: no more than a thousand are in memory."""
    async for row in await session.stream(query.execution_options(yield_per=_AT_ONCE)):
        yield row
