"""Metrics of the queues of destinations, and the deletion of deliveries that were decided long ago."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final, cast

from sqlalchemy import Table, delete, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.server import run_every
from kit.telemetry.gauges import Gauge
from kit.telemetry.names import AttributeName, Metric
from services.destinations.kind import Destination
from services.destinations.models import DeliveryRow
from services.destinations.personal import KEPT_FOR
from services.destinations.repository import DEAD, DELIVERED, DROPPED, EXPIRED, PENDING, WITHHELD, Destinations

_LOOK_SECONDS: Final = 15.0
_EXPIRY_SECONDS: Final = 600.0
_PORTION: Final = 500
_DECIDED: Final = (DELIVERED, WITHHELD, EXPIRED, DEAD, DROPPED)

_deliveries: Final = cast("Table", DeliveryRow.__table__)


class MetricName(Metric):
    """The metrics of destinations alone."""

    PENDING = "pmp.destinations.pending", "{delivery}"
    OLDEST = "pmp.destinations.oldest", "s"
    FAILURES = "pmp.destinations.failures", "{attempt}"
    DEAD = "pmp.destinations.dead", "{delivery}"
    PAUSED = "pmp.destinations.paused", "{destination}"


class Attribute(AttributeName):
    """Names of the attributes of these metrics."""

    DESTINATION = "pmp.destination"


class Upkeep:
    """Gauges of the destinations that are configured, and the expiry of deliveries. Every replica does the same.

    Args:
        destinations: by name.
    """

    def __init__(self, sessions: Sessions, destinations: Mapping[str, Destination[Any]]) -> None:
        self._sessions = sessions
        self._destinations = destinations
        self._pending = Gauge(MetricName.PENDING, "Deliveries that are not sent yet.")
        self._oldest = Gauge(MetricName.OLDEST, "How long the oldest of them has been waiting.")
        self._failures = Gauge(MetricName.FAILURES, "Attempts that failed since the last successful one.")
        self._dead = Gauge(MetricName.DEAD, "Dead letters, those that were dropped included.")
        self._paused = Gauge(MetricName.PAUSED, "1 while a destination is paused.")

    async def report(self) -> None:
        """Sets the gauges every 15 seconds, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "destinations not looked at")

    async def expire(self) -> None:
        """Deletes deliveries every ten minutes, until cancelled."""
        await run_every(lambda: self.delete_old(datetime.now(UTC)), _EXPIRY_SECONDS, "no deliveries expired")

    async def look(self, now: datetime) -> None:
        """Sets the gauges."""
        async with self._sessions.reading() as session:
            states, books = await Destinations(session).all(), await Destinations(session).books()
        for name in self._destinations.keys() & states.keys():
            row = states[name]
            own: dict[str, str] = {Attribute.DESTINATION: name}
            oldest = books[name].oldest if name in books else None
            self._pending.set(row.pending, own)
            self._oldest.set((now - oldest).total_seconds() if oldest else 0.0, own)
            self._failures.set(row.failures, own)
            self._dead.set(row.dead, own)
            self._paused.set(int(row.is_paused), own)

    async def delete_old(self, now: datetime) -> int:
        """Deletes deliveries that were decided 30 days ago, in batches; returns how many. Their counts stay in the books.

        Those of destinations that take history stay: nothing else would recognise what is reported again.
        """
        async with self._sessions.reading() as session:
            names = sorted(await Destinations(session).all())
        deleted = 0
        for name in names:
            if name in self._destinations and self._destinations[name].takes_history:
                continue

            async def work(session: AsyncSession, name: str = name) -> int:
                return await _delete_some(session, name, now - KEPT_FOR)

            while some := await transact(self._sessions, work, follows=True):
                deleted += some
        return deleted


async def _delete_some(session: AsyncSession, name: str, before: datetime) -> int:
    """Deletes deliveries of a destination that happened and were decided before a time; returns how many."""
    old = (_deliveries.c.destination == name, _deliveries.c.next_attempt_at < before, _deliveries.c.happened_at < before)
    for state in _DECIDED:
        ids = list(await session.scalars(select(_deliveries.c.id).where(*old, _deliveries.c.state == state).limit(_PORTION)))
        if ids:
            await session.execute(delete(_deliveries).where(_deliveries.c.id.in_(ids), _deliveries.c.state != PENDING))
            return len(ids)
    return 0
