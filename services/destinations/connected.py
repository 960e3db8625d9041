"""The shop's site that was connected by a code: a destination that appears while the process runs."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, cast

from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from kit.credentials.files import secret
from kit.credentials.signing import SITE_SECRET
from kit.database.transactions import Sessions, upsert
from kit.log.consume.handler import Handler
from kit.log.streams import Delivery
from kit.server import run_every
from services.destinations.configuration import opened
from services.destinations.kind import Destination
from services.destinations.models import SiteRow
from services.destinations.repository import Destinations
from services.destinations.senders import Senders
from services.destinations.settings import SITE, site_table

_LOOK_SECONDS: Final = 5.0


async def connect_site(session: AsyncSession, url: str, now: datetime) -> bool:
    """Stores the address of the site, whose destination is added unless it is configured; False without the secret for its calls.

    Args:
        session: the transaction.
        url: the plugin's route to accounts.
        now: the time.
    """
    if not secret(SITE_SECRET):
        return False
    await upsert(session, cast("Table", SiteRow.__table__), [{"name": SITE, "url": url, "connected_at": now}])
    await Destinations(session).add({SITE: SITE}, now)
    return True


class ConnectedSite:
    """Adds the site to the destinations of this process, and sends to it. A site that is connected anew replaces it.

    Args:
        destinations: those of this process, by name.
        senders: makes the senders of some destinations.
    """

    def __init__(
        self,
        destinations: dict[str, Destination[Any]],
        sessions: Sessions,
        senders: Callable[[Mapping[str, Destination[Any]]], Senders],
    ) -> None:
        self._destinations = destinations
        self._sessions = sessions
        self._make = senders
        self._url = ""
        self._senders: Senders | None = None
        self._sending: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """Signals that there may be more to send."""
        if self._senders is not None:
            self._senders.wake()

    def before(self, then: Handler) -> Handler:
        """Returns a handler that looks for the site first: what happens after it was connected is delivered."""

        async def handle(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
            await self._look(session)
            await then(session, deliveries)

        return handle

    async def run(self) -> None:
        """Sends to the site until cancelled, once there is one."""

        async def look() -> None:
            async with self._sessions.reading() as session:
                await self._look(session)
            if self._senders is not None and (self._sending is None or self._sending.done()):
                self._sending = asyncio.create_task(self._senders.run())

        try:
            await run_every(look, _LOOK_SECONDS, "site not looked at")
        finally:
            await self._stop()
            await asyncio.gather(*filter(None, [self._sending]), return_exceptions=True)

    async def _look(self, session: AsyncSession) -> None:
        row = await session.get(SiteRow, SITE, populate_existing=True)
        if row is None or row.url == self._url:
            return
        site = opened(SITE, site_table(row.url))
        await self._stop()
        self._url, self._destinations[SITE], self._senders = row.url, site, self._make({SITE: site})

    async def _stop(self) -> None:
        """Ends sending; senders close their client, the one of a site that was never sent to is closed here."""
        if self._sending is not None and not self._sending.done():
            self._sending.cancel()
        elif SITE in self._destinations:
            await self._destinations[SITE].http.aclose()
