"""Reports are held for unknown orders, but not for ever."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.server import run_every
from services.purchases.repository import Purchases

HOLD_PERIOD: Final = timedelta(days=30)
"""The time for which a refund, or the status of a payment, is held for its order."""
_INTERVAL_SECONDS: Final = 3600.0

_log = structlog.get_logger(__name__)


class HeldReportExpiry:
    """Deletes held reports whose order was never reported."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions

    async def run(self) -> None:
        """Deletes expired reports every hour, until cancelled."""
        await run_every(lambda: self.expire(datetime.now(UTC)), _INTERVAL_SECONDS, "awaited orders not looked at")

    async def expire(self, now: datetime) -> int:
        """Deletes unknown orders whose reports were held for too long.

        Returns:
            The number of orders deleted.
        """

        async def work(session: AsyncSession) -> tuple[int, int]:
            purchases = Purchases(session)
            return await purchases.delete_held(now - HOLD_PERIOD), await purchases.count_held()

        expired, held = await transact(self._sessions, work)
        if expired or held:
            _log.warning("orders awaited", awaited=held, given_up=expired)
        return expired
