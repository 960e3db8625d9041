"""Metrics of the deadlines of requests."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

from kit.database.transactions import Sessions
from kit.people.hashing import KeyedHasher
from kit.server import run_every
from kit.telemetry.gauges import Gauge
from kit.telemetry.names import Metric
from services.gdpr.repository import Requests
from services.gdpr.rules import DUE, OVERDUE

_LOOK_SECONDS: Final = 15.0


class MetricName(Metric):
    """The metrics of gdpr alone."""

    REQUEST_LEFT = "pmp.gdpr.request.left", "s"
    STEPS_OVERDUE = "pmp.gdpr.steps.overdue", "{step}"


class Deadlines:
    """Gauges of open requests and overdue steps. Every replica reports the same."""

    def __init__(self, sessions: Sessions, hasher: KeyedHasher) -> None:
        self._sessions = sessions
        self._hasher = hasher
        self._left = Gauge(MetricName.REQUEST_LEFT, "Time left for the open request that is due first; 30 days for none.")
        self._steps = Gauge(MetricName.STEPS_OVERDUE, "Steps of requests that have been tried for ten minutes.")

    async def run(self) -> None:
        """Sets the gauges every 15 seconds, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "deadlines not looked at")

    async def look(self, now: datetime) -> None:
        """Sets the gauges."""
        async with self._sessions.reading() as session:
            due_at, steps = await Requests(session, self._hasher).waiting(now - OVERDUE)
        self._left.set((due_at - now if due_at else DUE).total_seconds())
        self._steps.set(steps)
