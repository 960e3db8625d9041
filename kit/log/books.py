"""Books that must balance: everything received is stored, or it is said what became of it.

Each count moves in the transaction of what it counts. The log counts what callers sent (`received`, `rejected`), and
the database counts what became of it; the log's counters are copied to the database, in case the log is lost.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from sqlalchemy import case, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import READING, Sessions, changed
from kit.log import positions
from kit.log.redis_log import RedisLog
from kit.log.streams import Backlog, Counters, Floor, Position, StreamLog
from kit.log.tables import books, log_counters, offsets

STORED: Final = "stored"
DUPLICATE: Final = "duplicate"
SUPPRESSED: Final = "suppressed"
DEAD_LETTERED: Final = "dead_lettered"
RECEIVED: Final = "received"
REJECTED: Final = "rejected"

_ATTEMPTS: Final = 10
_OLD_HOURS: Final = 48


@dataclass(slots=True)
class Account:
    """What was received, and what became of it, in messages."""

    received: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    suppressed: int = 0
    pending: int = 0

    @property
    def missing(self) -> int:
        """What was received and can't be explained; negative when something was counted twice."""
        return self.received - self.stored - self.duplicate - self.rejected - self.dead_lettered - self.suppressed - self.pending

    @property
    def balanced(self) -> bool:
        """True when nothing is missing and nothing was counted twice."""
        return self.missing == 0

    def add(self, other: Account) -> None:
        """Adds another account to this one."""
        for name in self.__slots__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


async def move(session: AsyncSession, topic: str, partition: int, counts: Mapping[tuple[int, str], int]) -> None:
    """Moves counts (hour, outcome) of a partition. The caller holds the partition's position locked."""
    for (hour, outcome), count in sorted(counts.items()):
        where = (books.c.topic == topic, books.c.partition == partition, books.c.hour == hour, books.c.outcome == outcome)
        moved = await changed(session, update(books).where(*where).values(count=books.c["count"] + count))
        if moved == 0:
            await session.execute(insert(books).values(topic=topic, partition=partition, hour=hour, outcome=outcome, count=count))


async def copy_counters(session: AsyncSession, topic: str, partition: int, live: Counters, copied: Counters | None) -> None:
    """Copies the log's counters that changed since `copied`. The caller holds the partition's position locked.

    A copy never goes back: counters that do are those of a restored log, and the difference is what it lost.
    """
    known: Mapping[tuple[str, int], int] = copied.counts if copied and copied.epoch == live.epoch else {}
    for (name, hour), count in live.counts.items():
        if known.get((name, hour)) == count:
            continue
        identity = {"topic": topic, "partition": partition, "epoch": live.epoch, "hour": hour, "name": name}
        where = [log_counters.c[column] == value for column, value in identity.items()]
        higher = case((log_counters.c["count"] < count, count), else_=log_counters.c["count"])
        moved = await changed(session, update(log_counters).where(*where).values(count=higher))
        if moved == 0:
            await session.execute(insert(log_counters).values(**identity, count=count))


async def floors(sessions: Sessions, topic: str) -> Mapping[tuple[str, int], Floor]:
    """What the tables know of each partition of the topic, against which a new connection to the log is checked."""
    async with sessions() as session:
        await session.connection(execution_options=READING)
        known = await session.execute(select(offsets.c.partition, offsets.c.position).where(offsets.c.topic == topic))
        # Older counters may have been dropped from the log since.
        recent = log_counters.c.hour > time.time() // 3600 - _OLD_HOURS + 1
        columns = (log_counters.c.partition, log_counters.c.epoch, log_counters.c.name, log_counters.c.hour, log_counters.c["count"])
        copies = await session.execute(select(*columns).where(log_counters.c.topic == topic, recent))
        counters: dict[int, dict[str, dict[tuple[str, int], int]]] = defaultdict(lambda: defaultdict(dict))
        for partition, epoch, name, hour, count in copies:
            counters[partition][epoch][name, hour] = count
        return {(topic, row.partition): Floor(Position.parse(row.position), counters[row.partition]) for row in known}


async def accounts(sessions: Sessions, log: StreamLog, topic: str, partitions: int) -> dict[int, Account]:
    """The account of each hour of receipt (hours since 1970), exact also while messages come in and are processed."""
    hours: dict[int, Account] = defaultdict(Account)
    for partition in range(partitions):
        for hour, account in (await _partition(sessions, log, topic, partition)).items():
            hours[hour].add(account)
    return dict(sorted(hours.items()))


async def _partition(sessions: Sessions, log: StreamLog, topic: str, partition: int) -> dict[int, Account]:
    # The log is asked after the database: what was processed meanwhile is still pending here, and not yet in these books.
    outcomes, copies, behind = await _looked_up(sessions, log, topic, partition)
    for _ in range(_ATTEMPTS):
        if behind.trimmed <= outcomes.position:
            break
        outcomes, copies, behind = await _looked_up(sessions, log, topic, partition)
    hours: dict[int, Account] = defaultdict(Account)
    counts = dict(copies)
    for (name, hour), count in behind.counters.counts.items():
        place = (behind.counters.epoch, name, hour)
        counts[place] = max(count, copies.get(place, 0))
    for (_, name, hour), count in counts.items():
        setattr(hours[hour], name, getattr(hours[hour], name) + count)
    for (outcome, hour), count in outcomes.counts.items():
        setattr(hours[hour], outcome, count)
    for hour, count in behind.pending.items():
        hours[hour].pending = count
    return hours


class _Outcomes(NamedTuple):
    position: Position
    counts: Mapping[tuple[str, int], int]


async def _looked_up(
    sessions: Sessions, log: StreamLog, topic: str, partition: int
) -> tuple[_Outcomes, Mapping[tuple[str, str, int], int], Backlog]:
    async with sessions.begin() as session:
        position = await positions.locked(session, topic, partition)
        own = (books.c.topic == topic, books.c.partition == partition)
        counted = await session.execute(select(books.c.outcome, books.c.hour, books.c["count"]).where(*own))
        outcomes = {(outcome, hour): count for outcome, hour, count in counted}
        own = (log_counters.c.topic == topic, log_counters.c.partition == partition)
        copied = await session.execute(
            select(log_counters.c.epoch, log_counters.c.name, log_counters.c.hour, log_counters.c["count"]).where(*own)
        )
        copies = {(epoch, name, hour): count for epoch, name, hour, count in copied}
    return _Outcomes(position, outcomes), copies, await log.backlog(topic, partition, position)


async def prune_counters(log: RedisLog, topic: str, partition: int) -> None:
    """Drops the log's counters of hours long past: the database has their last value."""
    live = await log.counters(topic, partition)
    last = int(time.time() // 3600) - _OLD_HOURS
    await log.forget_counters(topic, partition, [name for name in live.counts if name[1] < last])
