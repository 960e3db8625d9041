"""Notices what needs the owner's attention: once when it begins, and once when it ends."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, NamedTuple

from pmp.destinations.v1.notice_pb2 import AlarmChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.errors import Unavailable
from kit.times import timestamp
from services.destinations import notice_store
from services.destinations.consumers import Decisions
from services.destinations.kind import Destination
from services.destinations.mesh_client import MeshClient
from services.destinations.repository import Destinations

LATE: Final = timedelta(hours=1)
"""How long a delivery waits before it is an alarm: the first hours of a destination's outage."""
_BOOKS_OF: Final = timedelta(days=7)
_LOW: Final = 0.10
_ENOUGH: Final = 0.12


class Alarm(NamedTuple):
    """An alarm, and the destination that it is about."""

    name: str
    destination: str = ""

    @property
    def key(self) -> str:
        """Its key in the table."""
        return f"{self.name}:{self.destination}"

    @classmethod
    def of(cls, key: str) -> Alarm:
        """Returns an alarm by its key in the table."""
        name, _, destination = key.partition(":")
        return cls(name, destination)


BOOKS: Final = Alarm("books")
SHOP: Final = Alarm("shop")
DISK: Final = Alarm("disk")


class Watch:
    """Makes a notice of each alarm that begins or ends, in the transaction that stores it.

    It begins when it is seen in two looks in a row, so that what heals by itself is none. What can't be found out changes nothing.

    Args:
        destinations: by name.
        sessions: of the database.
        decisions: store what is to be delivered.
        mesh: knows the books, and whether the ledger agrees with the shop.
        disk: a folder on the disk that is watched; None for none.
    """

    def __init__(
        self, destinations: Mapping[str, Destination[Any]], sessions: Sessions, decisions: Decisions, mesh: MeshClient, disk: Path | None
    ) -> None:
        self._destinations = destinations
        self._sessions = sessions
        self._decisions = decisions
        self._mesh = mesh
        self._disk = disk
        self._seen: set[Alarm] = set()

    async def look(self, now: datetime) -> None:
        """Stores what has begun and what has ended.

        Raises:
            Unavailable: a service did not answer. What it knows stays as it was; other alarms were stored.
        """
        async with self._sessions.reading() as session:
            on = {Alarm.of(key) for key in await notice_store.Alarms(session).all()}
            found = await self._of_destinations(session, now)
        is_low = DISK in on
        with suppress(OSError):
            is_low = self._disk is not None and await asyncio.to_thread(_is_nearly_full, self._disk, was_low=is_low)
        found |= {DISK} if is_low else set()
        unknown: Unavailable | None = None
        for alarm, asked in ((BOOKS, self._mesh.is_unbalanced(now - _BOOKS_OF)), (SHOP, self._mesh.differs_from_shop())):
            try:
                is_on = await asked
            except Unavailable as error:
                is_on, unknown = alarm in on, error
            found |= {alarm} if is_on else set()
        confirmed, self._seen = found & (self._seen | on), found
        await transact(self._sessions, lambda session: self._store(session, confirmed, now), follows=True)
        if unknown is not None:
            raise unknown

    async def _of_destinations(self, session: AsyncSession, now: datetime) -> set[Alarm]:
        found: set[Alarm] = set()
        states = await Destinations(session).all()
        for name in self._destinations.keys() & states.keys():
            if states[name].is_paused:
                found.add(Alarm("paused", name))
            elif await notice_store.is_late(session, name, now, LATE):
                found.add(Alarm("queue", name))
        return found

    async def _store(self, session: AsyncSession, confirmed: set[Alarm], now: datetime) -> None:
        alarms = notice_store.Alarms(session)
        since = {Alarm.of(key): at for key, at in (await alarms.all()).items()}
        began, ended = sorted(confirmed - since.keys()), sorted(since.keys() - confirmed)
        await alarms.begin([alarm.key for alarm in began], now)
        await alarms.end([alarm.key for alarm in ended])
        notices = [_notice(alarm, now, now, ended=False) for alarm in began] + [
            _notice(each, since[each], now, ended=True) for each in ended
        ]
        await self._decisions.add(session, notices)


def _notice(alarm: Alarm, since: datetime, at: datetime, *, ended: bool) -> tuple[str, AlarmChanged]:
    kind = AlarmChanged.Alarm.Value(f"ALARM_{alarm.name.upper()}")
    message = AlarmChanged(alarm=kind, destination=alarm.destination, ended=ended, since=timestamp(since), at=timestamp(at))
    return f"alarm:{alarm.key}:{int(since.timestamp() * 1000)}:{'ended' if ended else 'began'}", message


def is_low(free: int, total: int, *, was_low: bool) -> bool:
    """Whether too little of a disk is free; once it was, somewhat more has to be free."""
    return free < total * (_ENOUGH if was_low else _LOW)


def _is_nearly_full(folder: Path, *, was_low: bool) -> bool:
    usage = shutil.disk_usage(folder)
    return is_low(usage.free, usage.total, was_low=was_low)


def wants() -> Sequence[AlarmChanged]:
    """Returns an alarm of each kind, to ask whether a destination wants it."""
    return [AlarmChanged(alarm=alarm) for alarm in AlarmChanged.Alarm.values() if alarm]
