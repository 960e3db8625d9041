"""Books that must balance: every message received is accounted for by an outcome.

Each count moves in the transaction of what it counts. The log counts what callers sent (`received`, `rejected`), and
the database counts the outcomes. Each process that appends keeps its own counters, which only grow: the log, the worker's
copies and the records of the process itself (`kit.log.intake.account`) may be stale, and the highest count is right. So a
log that lost entries can't hide it.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple

from sqlalchemy import Insert, delete, func, select
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, increase
from kit.log import offsets
from kit.log.redis_log import RedisLog
from kit.log.streams import APPENDS, Backlog, Count, Counters, Offset, StreamLog
from kit.log.tables import books, log_counters

STORED: Final = "stored"
DUPLICATE: Final = "duplicate"
SUPPRESSED: Final = "suppressed"
DEAD_LETTERED: Final = "dead_lettered"
RECOVERED: Final = "recovered"
RECEIVED: Final = "received"
REJECTED: Final = "rejected"

_COUNTED: Final = (RECEIVED, REJECTED)
_ATTEMPTS: Final = 10
_OLD_HOURS: Final = 24
"""Age in hours after which no counter of the log moves any more."""
_SETTLED_HOURS: Final = 7 * 24
"""Age in hours after which no process records counters any more, however long the database was unavailable."""
ALL: Final = ""
"""Writer under which the counters of all writers are summed up, for hours long past."""


@dataclass(slots=True)
class Account:
    """How many messages were received, and how many had each outcome."""

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    suppressed: int = 0
    recovered: int = 0
    pending: int = 0

    @property
    def missing(self) -> int:
        """How many messages were received and have no outcome; negative when some were counted twice."""
        known = self.stored + self.duplicate + self.rejected + self.dead_lettered + self.suppressed + self.recovered + self.pending
        return self.received - known

    @property
    def balanced(self) -> bool:
        """True when no message is missing or counted twice."""
        return self.missing == 0

    def add(self, other: Account) -> None:
        """Adds another account to this one."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class Line(NamedTuple):
    """What is counted of a topic in one figure."""

    partition: int
    hour: int
    outcome: str


async def move(session: AsyncSession, topic: str, counts: Mapping[Line, int]) -> None:
    """Moves counts. The caller holds the offsets of their partitions locked."""
    await increase(session, books, [{"topic": topic, **line._asdict(), "count": count} for line, count in sorted(counts.items())])


async def raise_counters(session: AsyncSession, topic: str, counts: Mapping[int, Mapping[Count, int]]) -> None:
    """Records counters of partitions. Never lowers one: a lower count is an older one."""
    rows = [
        {"topic": topic, "partition": partition, "epoch": counter.writer, "hour": counter.hour, "name": counter.name, "count": count}
        for partition, counted in sorted(counts.items())
        for counter, count in sorted(counted.items())
        if counter.name in _COUNTED and count
    ]
    if rows:
        await session.execute(_raise(session.get_bind().dialect.name), rows)


@cache
def _raise(dialect: str) -> Insert:
    """The statement that inserts counters, and raises existing ones."""
    count = log_counters.c["count"]
    if dialect == "mysql":
        theirs = mysql.insert(log_counters)
        return theirs.on_duplicate_key_update(count=func.greatest(count, theirs.inserted["count"]))
    ours = sqlite.insert(log_counters)
    keys = [column.name for column in log_counters.primary_key]
    return ours.on_conflict_do_update(index_elements=keys, set_={"count": func.max(count, ours.excluded["count"])})


async def copy_counters(session: AsyncSession, topic: str, live: Mapping[int, Counters], copied: Mapping[int, Counters]) -> None:
    """Copies the log's counters that changed since `copied`. The caller holds the offsets of their partitions locked."""
    changed: dict[int, Mapping[Count, int]] = {}
    for partition, counters in live.items():
        known: Mapping[Count, int] = copied[partition].of_writers if partition in copied else {}
        changed[partition] = {counter: count for counter, count in counters.of_writers.items() if known.get(counter) != count}
    await raise_counters(session, topic, changed)


async def accounts(sessions: Sessions, log: StreamLog, topic: str, partitions: int) -> dict[int, Account]:
    """Returns the account of each hour of receipt (hours since 1970), exact also while messages are received and processed."""
    hours: dict[int, Account] = defaultdict(Account)
    for partition in range(partitions):
        for hour, account in (await _partition(sessions, log, topic, partition)).items():
            hours[hour].add(account)
    return dict(sorted(hours.items()))


async def _partition(sessions: Sessions, log: StreamLog, topic: str, partition: int) -> dict[int, Account]:
    # The log is read after the database: messages processed in between are still pending here, and not yet in these books.
    outcomes, copies, backlog = await _read(sessions, log, topic, partition)
    for _ in range(_ATTEMPTS):
        if backlog.trimmed <= outcomes.offset:
            break
        outcomes, copies, backlog = await _read(sessions, log, topic, partition)
    hours: dict[int, Account] = defaultdict(Account)
    live = backlog.counters.of_writers
    for counter in live.keys() | copies.keys():
        if counter.name in _COUNTED:
            account, count = hours[counter.hour], max(live.get(counter, 0), copies.get(counter, 0))
            setattr(account, counter.name, getattr(account, counter.name) + count)
    for (outcome, hour), count in outcomes.counts.items():
        setattr(hours[hour], outcome, count)
    for hour, count in backlog.pending.items():
        hours[hour].pending = count
    return hours


class _Outcomes(NamedTuple):
    offset: Offset
    counts: Mapping[tuple[str, int], int]


async def _read(sessions: Sessions, log: StreamLog, topic: str, partition: int) -> tuple[_Outcomes, Mapping[Count, int], Backlog]:
    async with sessions.begin() as session:
        offset = await offsets.locked(session, topic, partition)
        own = (books.c.topic == topic, books.c.partition == partition)
        counted = await session.execute(select(books.c.outcome, books.c.hour, books.c["count"]).where(*own))
        outcomes = {(outcome, hour): count for outcome, hour, count in counted}
        own = (log_counters.c.topic == topic, log_counters.c.partition == partition)
        copied = await session.execute(
            select(log_counters.c.epoch, log_counters.c.name, log_counters.c.hour, log_counters.c["count"]).where(*own)
        )
        copies = {Count(writer, name, hour): count for writer, name, hour, count in copied}
    return _Outcomes(offset, outcomes), copies, await log.backlog(topic, partition, offset)


async def prune_counters(log: RedisLog, topic: str, partition: int) -> None:
    """Deletes the log's counters of hours long past, and the append numbers of writers that are gone: the database has their last value."""
    live = (await log.counters(topic, partition)).of_writers
    oldest = int(time.time() // 3600) - _OLD_HOURS
    writing = {counter.writer for counter in live if counter.hour >= oldest}
    await log.forget_counters(
        topic,
        partition,
        [counter for counter in live if counter.hour < oldest and (counter.name != APPENDS or counter.writer not in writing)],
    )


async def fold_counters(sessions: Sessions, log: RedisLog, topic: str, partition: int) -> None:
    """Sums up the counters of all writers, for hours in which no process records any more."""
    live = await log.counters(topic, partition)
    async with sessions.begin() as session:
        await offsets.locked(session, topic, partition)
        await copy_counters(session, topic, {partition: live}, {})
    # Counters that the log still held would be counted in addition to the sum.
    await prune_counters(log, topic, partition)
    old = (
        log_counters.c.topic == topic,
        log_counters.c.partition == partition,
        log_counters.c.hour < int(time.time() // 3600) - _SETTLED_HOURS,
    )
    async with sessions.begin() as session:
        await offsets.locked(session, topic, partition)
        sums: dict[Count, int] = defaultdict(int)
        columns = (log_counters.c.name, log_counters.c.hour, log_counters.c["count"])
        for name, hour, count in await session.execute(select(*columns).where(*old)):
            sums[Count(ALL, name, hour)] += count
        await session.execute(delete(log_counters).where(*old, log_counters.c.epoch != ALL))
        await raise_counters(session, topic, {partition: sums})
