"""Rotates the key encryption key: wraps every person's key with the current one, while the mesh runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

from sqlalchemy import func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.database.transactions import transact
from kit.people.keys.table import keys, outages
from kit.people.keys.wrapping import Wrapping

_BATCH: Final = 500


class KeyRotation:
    """Wraps keys again that another key encryption key than the current one wraps.

    Args:
        wrapping: Holds the current key encryption key, and those that wrapped the keys so far.
    """

    def __init__(self, database: Database, wrapping: Wrapping) -> None:
        self._database = database
        self._wrapping = wrapping

    async def stale(self) -> int:
        """Returns the number of keys that another key than the current one wraps.

        Raises:
            Unavailable: The database of keys does not answer.
        """
        with outages():
            async with self._database.sessions.reading() as session:
                return await session.scalar(select(func.count()).select_from(keys).where(self._is_stale)) or 0

    async def run(self) -> AsyncIterator[int]:
        """Wraps all stale keys in batches; yields the number of keys after each transaction.

        Raises:
            Unavailable: The database of keys does not answer, or the key that wraps a person's key is missing.
        """
        with outages():
            while done := await transact(self._database.sessions, self._rewrap):
                yield done

    async def _rewrap(self, session: AsyncSession) -> int:
        rows = (await session.execute(select(keys).where(self._is_stale).limit(_BATCH).with_for_update())).all()
        for row in rows:
            wrapped = await self._wrapping.wrap(await self._wrapping.unwrap(row.wrapped, row.wrapped_by))
            own = (keys.c.owner == row.owner, keys.c.generation == row.generation)
            await session.execute(update(keys).where(*own).values(wrapped=wrapped.key, wrapped_by=wrapped.by))
        return len(rows)

    @property
    def _is_stale(self) -> Any:
        return keys.c.wrapped.is_not(None) & (keys.c.wrapped_by != self._wrapping.current)
