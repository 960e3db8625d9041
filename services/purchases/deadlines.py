"""Notices of orders that are not known yet wait for them, but not for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.server import run_every
from services.purchases.repository import Purchases

PATIENCE: Final = timedelta(days=30)
"""How long a refund, or the status of a payment, waits for its order."""
_LOOK_SECONDS: Final = 3600.0

_log = structlog.get_logger(__name__)


class Waiting:
    """Gives up orders of which nothing but notices came."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def run(self) -> None:
        """Looks every hour, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "awaited orders not looked at")

    async def look(self, now: datetime) -> int:
        """Deletes what has waited too long; says how many orders that were."""

        async def work(session: AsyncSession) -> tuple[int, int]:
            purchases = Purchases(session)
            return await purchases.give_up(now - PATIENCE), await purchases.count_awaited()

        given_up, awaited = await transact(self._sessions, work)
        if given_up or awaited:
            _log.warning("orders awaited", awaited=awaited, given_up=given_up)
        return given_up
