"""All SQL of ingestion."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from services.ingestion.models import EventRow, ProcessingRow


class Events:
    """The event store within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def known(self, ids: Collection[str]) -> Mapping[str, bytes]:
        """Content hashes of those ids that are stored."""
        rows = await self._session.execute(select(EventRow.id, EventRow.content_hash).where(EventRow.id.in_(sorted(ids))))
        return {row.id: row.content_hash for row in rows}

    async def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Stores new events, in the order of their ids: two transactions that share some wait for each other, and never in a circle.

        Raises:
            IntegrityError: another transaction stored one of them meanwhile.
        """
        if rows:
            await self._session.execute(insert(EventRow.__table__), sorted(rows, key=lambda row: row["id"]))  # pyright: ignore[reportArgumentType]

    async def log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Writes down what became of deliveries."""
        await self._session.execute(insert(ProcessingRow.__table__), rows)  # pyright: ignore[reportArgumentType]

    async def published(self, partition: int, after: int, limit: int) -> Sequence[EventRow]:
        """Events of a partition of the topic behind a position: those of at least one position, and of each position all."""
        own = EventRow.topic_partition == partition
        order = (EventRow.topic_position, EventRow.topic_ordinal)
        rows = (
            await self._session.scalars(select(EventRow).where(own, EventRow.topic_position > after).order_by(*order).limit(limit))
        ).all()
        if len(rows) < limit:
            return rows
        last = rows[-1].topic_position
        whole = [row for row in rows if row.topic_position < last]
        if whole:
            return whole
        return (await self._session.scalars(select(EventRow).where(own, EventRow.topic_position == last).order_by(*order))).all()
