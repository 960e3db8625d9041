"""The SQL of notices: how far the feed of content was read, which alarms have not ended, and how old a queue is."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final, cast

from sqlalchemy import Table, delete, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import upsert
from services.destinations.models import AlarmRow, ContentCursorRow, DeliveryRow
from services.destinations.repository import PENDING

_FEED: Final = "performance"
_alarms: Final = cast("Table", AlarmRow.__table__)
_cursors: Final = cast("Table", ContentCursorRow.__table__)


class ContentCursor:
    """How far the feed of content was read, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self) -> str:
        """Returns the cursor; empty if nothing was read yet."""
        return await self._session.scalar(select(_cursors.c.cursor).where(_cursors.c.feed == _FEED)) or ""

    async def set(self, cursor: str) -> None:
        """Stores the cursor."""
        await upsert(self._session, _cursors, [{"feed": _FEED, "cursor": cursor}])


class Alarms:
    """Alarms that have not ended, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> Mapping[str, datetime]:
        """Returns since when each is on."""
        return {row.alarm: row.since for row in await self._session.execute(select(_alarms))}

    async def begin(self, alarms: Collection[str], since: datetime) -> None:
        """Stores alarms that begin."""
        if alarms:
            await self._session.execute(insert(_alarms), [{"alarm": alarm, "since": since} for alarm in sorted(alarms)])

    async def end(self, alarms: Collection[str]) -> None:
        """Deletes alarms that have ended."""
        await self._session.execute(delete(_alarms).where(_alarms.c.alarm.in_(alarms)))


async def is_late(session: AsyncSession, destination: str, now: datetime, age: timedelta) -> bool:
    """Whether a delivery to a destination has been waiting for so long since it could first be attempted."""
    due = or_(DeliveryRow.not_before.is_(None), DeliveryRow.not_before < now - age)
    query = select(DeliveryRow.id).where(DeliveryRow.destination == destination, DeliveryRow.state == PENDING, due)
    return await session.scalar(query.where(DeliveryRow.decided_at < now - age).limit(1)) is not None
