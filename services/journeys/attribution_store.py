"""What attribution reports are read from: totals of whole days, and paths of the days in which a period begins and ends."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time, timedelta
from typing import Any, Final

import structlog
from sqlalchemy import CompoundSelect, and_, false, func, literal, or_, select, union_all
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.people.hashing import KeyedHasher
from kit.server import run_every
from kit.settings import Settings
from services.journeys.attribution import MARKOV, Path, Totals
from services.journeys.models import paths, pending, totals
from services.journeys.projection import AT_ONCE, Paths
from services.journeys.rules import minor_unit
from services.journeys.shares import Splitter

_POLL_SECONDS: Final = 5.0
_MOST_COUNTED: Final = 10_000

_log = structlog.get_logger(__name__)


class AttributionStore:
    """Reads totals for reports, and keeps them current for as long as the service runs.

    Args:
        sessions: the database.
        splitter: splits the revenue of orders.
    """

    def __init__(self, sessions: Sessions, splitter: Splitter) -> None:
        self._sessions = sessions
        self.splitter = splitter
        self._refreshing: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Applies pending changes every five seconds, until cancelled."""
        await run_every(self.refresh, _POLL_SECONDS, "paths not refreshed")

    async def refresh(self) -> None:
        """Applies all pending changes in batches, each in its own transaction. A large backlog takes half a core at most."""
        loop = asyncio.get_running_loop()

        async def work(session: AsyncSession) -> int:
            return await Paths(session, self.splitter).refresh()

        if not await self._pending():
            return
        began = loop.time()
        while await transact(self._sessions, work, follows=True) == AT_ONCE:
            await asyncio.sleep(loop.time() - began)
            began = loop.time()

    async def catch_up(self, seconds: float) -> int:
        """Applies pending changes for at most so long; returns how many are still pending, up to 10,000."""
        loop = asyncio.get_running_loop()
        ends = loop.time() + seconds
        while (count := await self._pending()) and (left := ends - loop.time()) > 0:
            if self._refreshing is None:
                self._refreshing = asyncio.create_task(self.refresh())
                self._refreshing.add_done_callback(self._refreshed)
            done, _ = await asyncio.wait({self._refreshing}, timeout=left)
            if any(task.cancelled() or task.exception() for task in done):
                break
        return count

    async def totals(self, model: str, group_by: str, since: datetime | None, until: datetime) -> Totals:
        """Returns a model's totals of all paths that ended in a period; `since` None means from the first one."""
        totals = Totals(model, group_by, self.splitter)
        async with self._sessions.reading() as session:
            for row in await session.execute(_ended_in(model, group_by, since, until)):
                if row.is_whole:
                    totals.merge(row.payload)
                else:
                    totals.add(Path.loads(row.payload))
        return totals

    def _refreshed(self, task: asyncio.Task[None]) -> None:
        self._refreshing = None
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.warning("paths not refreshed", error=type(error).__name__)

    async def _pending(self) -> int:
        async with self._sessions.reading() as session:
            some = select(pending.c.id).limit(_MOST_COUNTED).subquery()
            return int(await session.scalar(select(func.count()).select_from(some)) or 0)


def splitter_of(settings: Settings, hasher: KeyedHasher) -> Splitter:
    """Returns the splitter of amounts: in units of the shop's currency, ties broken by a hash that can't be predicted."""

    def tie(order: str, name: str) -> bytes:
        return hasher.digest(f"{order}\0{name}".encode(), purpose="attribution")

    return Splitter(minor_unit(settings.site_currency), tie)


def _ended_in(model: str, group_by: str, since: datetime | None, until: datetime) -> CompoundSelect[*tuple[Any, ...]]:
    """Selects the totals of whole days, and the paths of the days in which the period begins and ends.

    It is one statement, so it reads one snapshot of the database.
    """
    last = _midnight(until)
    if since is None:
        days, ends = [totals.c.day < last.date().isoformat()], [and_(paths.c.ended_at >= last, paths.c.ended_at < until)]
    elif (first := _midnight(since)) >= last:
        days, ends = [false()], [and_(paths.c.ended_at >= since, paths.c.ended_at < until)]
    else:
        if first < since:
            first += timedelta(days=1)
        days = [totals.c.day >= first.date().isoformat(), totals.c.day < last.date().isoformat()]
        ends = [
            and_(paths.c.ended_at >= since, paths.c.ended_at < first),
            and_(paths.c.ended_at >= last, paths.c.ended_at < until),
        ]
    counted = [or_(*ends)] if model == MARKOV else [paths.c.bought.is_(True), or_(*ends)]
    return union_all(
        select(literal(True).label("is_whole"), totals.c.payload).where(totals.c.model == model, totals.c.group_by == group_by, *days),
        select(literal(False), paths.c.payload).where(*counted),
    )


def _midnight(at: datetime) -> datetime:
    """Returns the start of a time's day, in UTC."""
    return datetime.combine(at.astimezone(UTC).date(), time(), UTC)
