"""All SQL of destinations."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from services.destinations.kind import Destination
from services.destinations.models import DeliveryRow, DestinationRow, MessageRow

PENDING: Final = "pending"

_destinations: Final = cast("Table", DestinationRow.__table__)
_deliveries: Final = cast("Table", DeliveryRow.__table__)
_messages: Final = cast("Table", MessageRow.__table__)


class Books(NamedTuple):
    """What became of the deliveries of one destination."""

    by_state: Mapping[str, int]
    oldest: datetime | None
    """When the oldest pending delivery was decided; None if none is pending."""


class Destinations:
    """The states of destinations, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> Mapping[str, DestinationRow]:
        """Returns the state of every destination that was ever configured, by name."""
        return {row.name: row for row in await self._session.scalars(select(DestinationRow))}

    async def added(self, configured: Mapping[str, Destination[Any]], now: datetime) -> Mapping[str, datetime]:
        """Returns when each of these destinations was added; adds those that are new."""
        known = {name: row.added_at for name, row in (await self.all()).items()}
        new = [DestinationRow(name=name, kind=each.options.kind, added_at=now) for name, each in configured.items() if name not in known]
        self._session.add_all(new)
        return known | {row.name: now for row in new}

    async def books(self) -> Mapping[str, Books]:
        """Returns the books of every destination that has deliveries."""
        counts: dict[str, dict[str, int]] = defaultdict(dict)
        oldest: dict[str, datetime] = {}
        query = select(
            DeliveryRow.destination, DeliveryRow.state, func.count().label("rows"), func.min(DeliveryRow.decided_at).label("since")
        )
        for row in await self._session.execute(query.group_by(DeliveryRow.destination, DeliveryRow.state)):
            counts[row.destination][row.state] = row.rows
            if row.state == PENDING:
                oldest[row.destination] = row.since
        return {name: Books(states, oldest.get(name)) for name, states in counts.items()}


class Deliveries:
    """Deliveries and their messages, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def decided(self, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Returns those pairs of destination and key that have a delivery."""
        by_destination: dict[str, set[str]] = defaultdict(set)
        for destination, key in keys:
            by_destination[destination].add(key)
        found: set[tuple[str, str]] = set()
        for destination, own in by_destination.items():
            for some in chunks(own):
                query = select(DeliveryRow.key).where(DeliveryRow.destination == destination, DeliveryRow.key.in_(some))
                found |= {(destination, key) for key in await self._session.scalars(query)}
        return found

    async def add(self, deliveries: Sequence[Mapping[str, Any]], messages: Collection[Mapping[str, Any]]) -> None:
        """Stores new deliveries, and the messages that they are made of."""
        if deliveries:
            await upsert(self._session, _messages, sorted(messages, key=lambda row: row["id"]))
            await self._session.execute(insert(_deliveries), list(deliveries))
