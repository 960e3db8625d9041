"""Detects what the log lost, by sender, and what of it was sent again: reconciles receipts with the processing log.

While the books balance nothing is lost, and receipts are deleted as soon as the worker has passed their entries. Only when events
are missing are they compared one by one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from functools import partial
from typing import Final, TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.log import books, offsets
from kit.log.books import Account
from kit.log.redis_log import RedisLog
from kit.log.streams import Offset
from services.ingestion.models import ReceiptRow
from services.ingestion.repository import Receipts, as_events, deliveries

_AT_ONCE: Final = 20
_MOST_RECEIPTS: Final = 5000
_ONE_INTERVAL: Final = timedelta(minutes=1)

Keys: TypeAlias = Sequence[tuple[str, int]]
"""Primary keys of receipts."""


@dataclass(slots=True)
class Range:
    """What the log lost of one sender in one interval."""

    client: str
    scope: str
    first: int
    last: int
    """When the last one was received; like `first` in microseconds since 1970."""
    ids: list[str]


@dataclass(frozen=True, slots=True)
class _Due:
    """Receipts that can be settled once the worker has passed these offsets, the log's end when they were written."""

    receipts: Keys
    ends: Mapping[int, Offset]


class Losses:
    """Reconciles the receipts of a topic."""

    def __init__(self, sessions: Sessions, log: RedisLog, topic: str, partitions: int) -> None:
        self._sessions = sessions
        self._log = log
        self._topic = topic
        self._partitions = partitions
        self._due: _Due | None = None
        self._seen = -1

    async def look(self, accounts: Mapping[int, Account]) -> None:
        """Settles receipts that are due, and finds what was sent again. Runs no query while nothing is received.

        Args:
            accounts: the current books.
        """
        received = sum(account.received for account in accounts.values())
        if received == self._seen and self._due is None:
            return
        self._seen = received
        balanced = all(account.balanced for account in accounts.values())
        idle = not any(account.pending for account in accounts.values())
        if self._due is not None and (idle or await self._passed(self._due.ends)):
            for first in range(0, len(self._due.receipts), _AT_ONCE):
                some = self._due.receipts[first : first + _AT_ONCE]
                await transact(self._sessions, partial(self._settle, keys=some, balanced=balanced))
            self._due = None
        if not balanced:
            await self._find_sent_again()
        if self._due is None:
            self._due = await self._next()

    async def _passed(self, ends: Mapping[int, Offset]) -> bool:
        read = await offsets.load(self._sessions, self._topic, ends)
        return all(read[partition] >= end for partition, end in ends.items())

    async def _next(self) -> _Due | None:
        async with self._sessions.reading() as session:
            receipts = await Receipts(session).unsettled(_MOST_RECEIPTS)
        if not receipts:
            return None
        # The head may be higher than the last entry, and the worker never reaches it.
        return _Due(receipts, {partition: await self._log.newest(self._topic, partition) for partition in range(self._partitions)})

    @staticmethod
    async def _settle(session: AsyncSession, keys: Keys, *, balanced: bool) -> None:
        receipts = Receipts(session)
        if balanced:
            await receipts.delete(keys)
            return
        for row in await receipts.get(keys):
            sent = deliveries(row)
            settled = Counter(await receipts.settled([event_id for event_id, _ in sent]))
            lost = sorted((Counter(sent) - settled).elements(), key=lambda delivery: delivery[1])
            if lost:
                row.events, row.lost = as_events(lost), True
                row.first_at, row.last_at = lost[0][1], lost[-1][1]
            else:
                await session.delete(row)

    async def _find_sent_again(self) -> None:
        async with self._sessions.reading() as session:
            keys = [(row.writer, row.number) for row in await Receipts(session).lost()]
        for key in keys:
            await transact(self._sessions, partial(self._recover, key=key))

    async def _recover(self, session: AsyncSession, key: tuple[str, int]) -> None:
        receipts = Receipts(session)
        for row in await receipts.get([key]):
            lost = deliveries(row)
            known = {event_id for event_id, _ in await receipts.settled([event_id for event_id, _ in lost])}
            left = [delivery for delivery in lost if delivery[0] not in known]
            if len(left) == len(lost):
                return
            await offsets.locked(session, self._topic, row.partition)
            counts = {books.Line(row.partition, row.hour, books.RECOVERED): len(lost) - len(left)}
            await books.move(session, self._topic, counts)
            if left:
                row.events = as_events(left)
                row.first_at, row.last_at = left[0][1], left[-1][1]
            else:
                await session.delete(row)


def ranges(rows: Sequence[ReceiptRow]) -> list[Range]:
    """Returns what is lost, as intervals of each sender.

    Args:
        rows: receipts of lost events, by sender and time.
    """
    found: list[Range] = []
    for row in rows:
        ids = [event_id for event_id, _ in deliveries(row)]
        first, last = (round(at.timestamp() * 1_000_000) for at in (row.first_at, row.last_at))
        before = found[-1] if found else None
        if (
            before
            and (before.client, before.scope) == (row.client, row.scope)
            and first - before.last <= _ONE_INTERVAL / timedelta(microseconds=1)
        ):
            before.last = max(before.last, last)
            before.ids += ids
        else:
            found.append(Range(row.client, row.scope, first, last, ids))
    return found
