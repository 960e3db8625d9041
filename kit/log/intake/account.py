"""The account that a process keeps, in the database as well, of what it appended: a log that loses messages can't hide it.

Numbered appends make sure that an append that the log did not confirm is counted if it took effect, and can't take effect once
it is taken as failed (decision 0012).
"""

from __future__ import annotations

import asyncio
import secrets
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, TypeAlias

import structlog
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.log import books
from kit.log.streams import Count, OutOfTurnError, Turn
from kit.log.tables import log_counters
from kit.outages import LogDownError, LogFullError

_log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 1.0
_LAST_SECONDS: Final = 5.0
_PAGE_IDS: Final = 20_000
_MOST_IDS: Final = 200_000
"""Most ids that are kept while the database is unavailable; further messages are only counted."""


class Sender(NamedTuple):
    """The sender of a call's messages, and the time of receipt in microseconds since 1970."""

    client: str
    scope: str
    received: int


NO_SENDER: Final = Sender("", "", 0)


@dataclass(slots=True)
class Share:
    """What a group commit appends to one partition."""

    partition: int
    hour: int
    records: list[bytes] = field(default_factory=list[bytes])
    rejected: int = 0
    ids: list[tuple[Sender, Sequence[str]]] = field(default_factory=list[tuple[Sender, Sequence[str]]])
    """Ids of the records, by call."""
    number: int = 0
    counters: Mapping[str, int] = field(default_factory=dict[str, int])
    """The writer's counters of the hour, this append included."""


@dataclass(slots=True)
class Receipts:
    """Messages of one sender that the log accepted, to be compared with their outcomes."""

    writer: str
    number: int
    """Unique among the writer's."""
    partition: int
    hour: int
    client: str
    scope: str
    first: int
    last: int
    """Times of receipt of the first and the last, in microseconds since 1970."""
    calls: list[tuple[int, Sequence[str]]] = field(default_factory=list[tuple[int, Sequence[str]]])
    """The messages' ids by call, each call with its time of receipt."""
    size: int = 0
    """The number of ids."""


Keep: TypeAlias = Callable[[AsyncSession, Sequence[Receipts]], Awaitable[None]]
"""Stores receipts. The same ones may be passed again, when it is not known whether they were stored."""


async def _keep_none(_session: AsyncSession, _receipts: Sequence[Receipts]) -> None:
    return


class Account:
    """The account of one process that appends to a topic.

    Args:
        keep: stores receipts of what was appended, in addition to the counters.
    """

    def __init__(self, sessions: Sessions, topic: str, keep: Keep = _keep_none) -> None:
        self.writer = secrets.token_hex(8)
        self._sessions = sessions
        self._topic = topic
        self._keep = keep
        self._counts: dict[tuple[int, int], Mapping[str, int]] = {}
        self._numbers: dict[int, int] = defaultdict(int)
        self._held: dict[int, int] = defaultdict(int)
        self._doubts: dict[int, list[Share]] = defaultdict(list)
        self._changed: set[tuple[int, int]] = set()
        self._something = asyncio.Event()
        self._receipts: dict[tuple[int, int, str, str], Receipts] = {}
        self._unwritten: list[Receipts] = []
        self._ids = 0
        self._made = 0

    # Around an append

    async def look_up(self) -> None:
        """Asks the database which unconfirmed appends took effect: a log that lost them again has no record of them."""
        if not self._doubts:
            return
        own = (log_counters.c.topic == self._topic, log_counters.c.partition.in_(self._doubts), log_counters.c.epoch == self.writer)
        received = log_counters.c.name == books.RECEIVED
        async with self._sessions.reading() as session:
            rows = await session.execute(
                select(log_counters.c.partition, log_counters.c.hour, log_counters.c["count"]).where(*own, received)
            )
            known = {(partition, hour): count for partition, hour, count in rows}
        for partition, shares in list(self._doubts.items()):
            happened = [share for share in shares if known.get((partition, share.hour)) == share.counters[books.RECEIVED]]
            if happened:
                self._count(happened[-1])
                del self._doubts[partition]

    def turn(self, share: Share) -> Turn:
        """Numbers an append, and computes the counters that hold once it takes effect."""
        partition = share.partition
        self._numbers[partition] += 1
        share.number = self._numbers[partition]
        before = self._counts.get((partition, share.hour), {})
        share.counters = {
            books.RECEIVED: before.get(books.RECEIVED, 0) + len(share.records) + share.rejected,
            books.REJECTED: before.get(books.REJECTED, 0) + share.rejected,
        }
        return Turn(self.writer, self._held[partition], share.number)

    def settle(self, share: Share, verdict: Exception | None) -> None:
        """Records the log's verdict on an append."""
        partition = share.partition
        if verdict is None:
            # Earlier unconfirmed appends can't take effect any more.
            self._doubts.pop(partition, None)
            self._held[partition] = share.number
            self._count(share)
        elif isinstance(verdict, OutOfTurnError):
            for doubted in self._doubts.pop(partition, ()):
                if doubted.number == verdict.found:
                    self._count(doubted)
            self._held[partition] = verdict.found
        elif not isinstance(verdict, LogFullError | LogDownError):
            self._doubts[partition].append(share)

    def _count(self, share: Share) -> None:
        key = share.partition, share.hour
        self._counts[key] = share.counters
        self._changed.add(key)
        self._something.set()
        for sender, ids in share.ids:
            receipts = self._receipts.get((*key, sender.client, sender.scope))
            if receipts is None or receipts.size >= _PAGE_IDS:
                receipts = self._begin(share, sender)
            receipts.last = max(receipts.last, sender.received)
            receipts.first = min(receipts.first, sender.received)
            if self._ids < _MOST_IDS:
                receipts.calls.append((sender.received, ids))
                receipts.size += len(ids)
                self._ids += len(ids)

    def _begin(self, share: Share, sender: Sender) -> Receipts:
        self._made += 1
        made = Receipts(self.writer, self._made, share.partition, share.hour, sender.client, sender.scope, sender.received, sender.received)
        self._receipts[share.partition, share.hour, sender.client, sender.scope] = made
        self._unwritten.append(made)
        return made

    # Recording

    async def run(self) -> None:
        """Writes a second after a change, until cancelled; then a last time."""
        failing = False
        try:
            while True:
                await self._something.wait()
                await asyncio.sleep(_EVERY_SECONDS)
                try:
                    await self.write()
                except Exception as error:  # noqa: BLE001 (whatever it is, nothing is lost, and intake goes on)
                    if not failing:
                        _log.warning("account not written", topic=self._topic, error=type(error).__name__)
                    failing = True
                else:
                    failing = False
        finally:
            await self._last()

    async def _last(self) -> None:
        try:
            async with asyncio.timeout(_LAST_SECONDS):
                await self.write()
        except Exception as error:  # noqa: BLE001 (the log and its copies have the numbers)
            _log.warning("account not written at the end", topic=self._topic, error=type(error).__name__)

    async def write(self) -> None:
        """Writes what changed since the last time, in one transaction.

        Raises:
            Exception: the transaction failed; the changes are written the next time.
        """
        changed, receipts = self._changed, self._unwritten
        if not changed:
            return
        self._changed, self._unwritten, self._receipts = set(), [], {}
        self._something.clear()
        try:
            await transact(self._sessions, lambda session: self._write(session, changed, receipts))
        except BaseException:
            self._changed |= changed
            self._unwritten = [*receipts, *self._unwritten]
            self._something.set()
            raise
        self._ids -= sum(each.size for each in receipts)
        newest = max(hour for _, hour in self._counts)
        for key in [key for key in self._counts if key[1] < newest - 1 and key not in self._changed]:
            del self._counts[key]

    async def _write(self, session: AsyncSession, changed: Iterable[tuple[int, int]], receipts: Sequence[Receipts]) -> None:
        counts: dict[int, dict[Count, int]] = defaultdict(dict)
        for partition, hour in changed:
            counts[partition] |= {Count(self.writer, name, hour): count for name, count in self._counts[partition, hour].items()}
        await books.raise_counters(session, self._topic, counts)
        if receipts:
            await self._keep(session, receipts)
