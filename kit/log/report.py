"""Reports what an operator has to know of the log: how far a service is lagging, whether the books balance, what was set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from time import monotonic, time
from typing import Final

import structlog
from sqlalchemy import select

from kit.database.transactions import Sessions
from kit.log import books
from kit.log.ages import backup_seconds, oldest_seconds
from kit.log.consume import dead_letters
from kit.log.publish.outbox import assigned, first_committed_at
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Offset, TopicPartition
from kit.log.tables import offsets
from kit.server import run_every
from kit.telemetry.gauges import Ages, Gauge
from kit.telemetry.names import Attribute, MetricName

_log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 15.0
_LOG: Final = "log"
_DATABASE: Final = "database"


class Report:
    """Gauges of the topics a service publishes and follows, and of its books. Every replica reports the same.

    Args:
        max_bytes: memory of the log above which intake stops.
        topic: the topic it publishes, if it does.
        raw: the raw log it keeps books of, if it does.
        follows: topics of others that it follows.
        clock: seconds, by which figures expire.
        with_books: called with the books each time they were read.
    """

    def __init__(
        self,
        sessions: Sessions,
        log: RedisLog,
        partitions: int,
        *,
        max_bytes: int,
        topic: str | None,
        raw: str | None = None,
        follows: Sequence[str] = (),
        clock: Callable[[], float] = monotonic,
        with_books: Callable[[Mapping[int, books.Account]], Awaitable[None]] | None = None,
    ) -> None:
        self._sessions = sessions
        self._log = log
        self._partitions = partitions
        self._topic = topic
        self._raw = raw
        self._follows = follows
        self._with_books = with_books
        self._folded = 0
        self._max_bytes = max_bytes
        self._ages = Ages(_LOG, _DATABASE, clock=clock)
        self._lag = Gauge(MetricName.LOG_LAG, "Messages of the raw log, entries of a topic that are not processed.", clock)
        self._lag_age = Gauge(MetricName.LOG_LAG_AGE, "How long the oldest of them has been in the log.", clock)
        self._bytes = Gauge(MetricName.LOG_BYTES, "Memory of the log, all topics together.", clock)
        self._limit = Gauge(MetricName.LOG_LIMIT, "Memory of the log above which intake stops.", clock)
        self._outbox = Gauge(MetricName.OUTBOX_PENDING, "Entries committed and not published.", clock)
        self._outbox_age = Gauge(MetricName.OUTBOX_AGE, "How long ago the oldest of them was committed.", clock)
        self._dead = Gauge(MetricName.DEAD_LETTERS, "Messages set aside that wait for a decision.", clock)
        self._books = Gauge(MetricName.BOOKS, "The books, by account; `missing` is what does not balance.", clock)
        self._backup = Gauge(MetricName.BACKUP_AGE, "Time since the last `pmp backup`; not shown before the first.", clock)

    async def run(self) -> None:
        """Reads every 15 seconds, until cancelled. While the database is down or hangs, the log is still read."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_every(self.look_at_log, _EVERY_SECONDS, "no report", of=_LOG))
            group.create_task(run_every(self.look_at_database, _EVERY_SECONDS, "no report", of=_DATABASE))

    async def look_at_log(self) -> None:
        """Sets the gauges that are read from the log alone."""
        self._bytes.set(await self._log.used_bytes())
        self._limit.set(self._max_bytes)
        if self._raw is not None and (age := await backup_seconds(self._log)) is not None:
            self._backup.set(age)
        self._ages.read(_LOG)

    async def look_at_database(self) -> None:
        """Sets the gauges that need the database, most of them the log as well; logs an error when the books do not balance."""
        async with self._sessions.reading() as session:
            self._dead.set(await dead_letters.count(session))
            given: Mapping[int, int] = {} if self._topic is None else await assigned(session, self._topic)
            known = [*self._follows, *([] if self._raw is None else [self._raw])]
            read = {
                TopicPartition(row.topic, row.partition): Offset.parse(row.position)
                for row in await session.execute(select(offsets).where(offsets.c.topic.in_(known)))
            }
        self._ages.read(_DATABASE)
        if self._topic is not None:
            await self._look_at_outbox(self._topic, given)
        for topic in self._follows:
            heads, after = await self._heads(topic), self._offsets_of(topic, read)
            lags = {partition: max(0, heads[partition] - after[partition].ms) for partition in heads}
            self._lag.set(sum(lags.values()), {Attribute.TOPIC: topic})
            lagging = {partition: after[partition] for partition, lag in lags.items() if lag}
            self._lag_age.set(await oldest_seconds(self._log, topic, lagging), {Attribute.TOPIC: topic})
        if self._raw is not None:
            age = await oldest_seconds(self._log, self._raw, self._offsets_of(self._raw, read))
            self._lag_age.set(age, {Attribute.TOPIC: self._raw})
            await self._look_at_books(self._raw)

    async def _look_at_outbox(self, topic: str, given: Mapping[int, int]) -> None:
        published = await self._heads(topic)
        waiting = {partition: published[partition] for partition in given if given[partition] > published[partition]}
        self._outbox.set(sum(given[partition] - head for partition, head in waiting.items()), {Attribute.TOPIC: topic})
        oldest = None
        if waiting:
            async with self._sessions.reading() as session:
                oldest = await first_committed_at(session, topic, waiting)
        self._outbox_age.set((datetime.now(UTC) - oldest).total_seconds() if oldest else 0.0, {Attribute.TOPIC: topic})

    def _offsets_of(self, topic: str, read: Mapping[TopicPartition, Offset]) -> Mapping[int, Offset]:
        return {partition: read.get(TopicPartition(topic, partition), START) for partition in range(self._partitions)}

    async def _look_at_books(self, raw: str) -> None:
        total = books.Account()
        accounts = await books.accounts(self._sessions, self._log, raw, self._partitions)
        for account in accounts.values():
            total.add(account)
        for name in total.__slots__:
            self._books.set(getattr(total, name), {Attribute.ACCOUNT: name})
        self._books.set(total.missing, {Attribute.ACCOUNT: "missing"})
        if total.missing:
            _log.error("books do not balance", topic=raw, missing=total.missing)
        self._lag.set(total.pending, {Attribute.TOPIC: raw})
        if self._with_books is not None:
            await self._with_books(accounts)
        hour = int(time() // 3600)
        if hour != self._folded:
            for partition in range(self._partitions):
                await books.fold_counters(self._sessions, self._log, raw, partition)
            self._folded = hour

    async def _heads(self, topic: str) -> dict[int, int]:
        heads = await self._log.heads(topic, range(self._partitions))
        return {partition: head.ms for partition, head in heads.items()}
