"""Notices that a week or a month is over, with its figures."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, Final, Literal, NamedTuple, TypeAlias
from zoneinfo import ZoneInfo

from pmp.destinations.v1.notice_pb2 import PeriodEnded
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.times import timestamp
from services.destinations.consumers import Decisions
from services.destinations.kind import Destination
from services.destinations.mesh_client import MeshClient
from services.destinations.notices import is_wanted

CLOSING: Final = timedelta(hours=3)
"""How long after its end, where the site is, a day is closed: until then browsers still report what they could not send before."""
Kind: TypeAlias = Literal["week", "month"]
KINDS: Final[tuple[Kind, ...]] = ("week", "month")


class Period(NamedTuple):
    """A week or a month that is over."""

    kind: Kind
    name: str
    """2026-W48 or 2026-11."""
    first: date
    last: date
    closed_at: datetime


def ended(kind: Kind, now: datetime, zone: ZoneInfo) -> Period:
    """Returns the last week, from Monday to Sunday, or the last month that is closed where the site is."""
    today = (now.astimezone(zone) - CLOSING).date()
    last = today - timedelta(days=today.weekday() + 1 if kind == "week" else today.day)
    first = last - timedelta(days=6) if kind == "week" else last.replace(day=1)
    closed_at = datetime.combine(last + timedelta(days=1), time(), zone) + CLOSING
    return Period(kind, f"{last:%G-W%V}" if kind == "week" else f"{last:%Y-%m}", first, last, closed_at.astimezone(UTC))


class Summaries:
    """Makes a notice of each week and month, once it is closed.

    Args:
        destinations: by name.
        sessions: of the database.
        decisions: store what is to be delivered.
        mesh: knows the figures.
        zone: of the site.
    """

    def __init__(
        self, destinations: Mapping[str, Destination[Any]], sessions: Sessions, decisions: Decisions, mesh: MeshClient, zone: ZoneInfo
    ) -> None:
        self._wanted: list[Kind] = [kind for kind in KINDS if is_wanted(destinations, PeriodEnded(period=kind))]
        self._sessions = sessions
        self._decisions = decisions
        self._mesh = mesh
        self._zone = zone
        self._done: set[str] = set()
        """The periods for which everything is decided, as far as this process knows."""

    async def look(self, now: datetime) -> None:
        """Stores the notices of periods that are over.

        Raises:
            Unavailable: analytics does not answer.
        """
        for period in (ended(kind, now, self._zone) for kind in self._wanted):
            if period.name in self._done:
                continue
            notice = PeriodEnded(period=period.kind, name=period.name, at=timestamp(period.closed_at))
            notice.dashboard.CopyFrom(await self._mesh.dashboard(period.first, period.last))

            async def store(session: AsyncSession, notice: PeriodEnded = notice) -> None:
                await self._decisions.add(session, [(f"{notice.period}:{notice.name}", notice)])

            await transact(self._sessions, store, follows=True)
            self._done.add(period.name)
