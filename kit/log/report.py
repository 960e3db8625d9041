"""Reports what an operator has to know of the log: how far a service is lagging, whether the books balance, what was set aside."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from time import monotonic, time
from typing import Final

import structlog
from sqlalchemy import select

from kit.database.transactions import Sessions
from kit.log import books
from kit.log.consume import dead_letters
from kit.log.publish.outbox import assigned
from kit.log.redis_log import RedisLog
from kit.log.streams import Offset, TopicPartition
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
        self._lag = Gauge(MetricName.LOG_LAG, "{message}", "Messages of the raw log, entries of a topic that are not processed.", clock)
        self._bytes = Gauge(MetricName.LOG_BYTES, "By", "Memory of the log, all topics together.", clock)
        self._limit = Gauge(MetricName.LOG_LIMIT, "By", "Memory of the log above which intake stops.", clock)
        self._outbox = Gauge(MetricName.OUTBOX_PENDING, "{entry}", "Entries committed and not published.", clock)
        self._dead = Gauge(MetricName.DEAD_LETTERS, "{message}", "Messages set aside that wait for a decision.", clock)
        self._books = Gauge(MetricName.BOOKS, "{message}", "The books, by account; `missing` is what does not balance.", clock)

    async def run(self) -> None:
        """Reads every 15 seconds, until cancelled. While the database is down or hangs, the log is still read."""
        async with asyncio.TaskGroup() as group:
            group.create_task(run_every(self.look_at_log, _EVERY_SECONDS, "no report", of=_LOG))
            group.create_task(run_every(self.look_at_database, _EVERY_SECONDS, "no report", of=_DATABASE))

    async def look_at_log(self) -> None:
        """Sets the gauges that are read from the log alone."""
        self._bytes.set(await self._log.used_bytes())
        self._limit.set(self._max_bytes)
        self._ages.read(_LOG)

    async def look_at_database(self) -> None:
        """Sets the gauges that need the database, most of them the log as well; logs an error when the books do not balance."""
        async with self._sessions.reading() as session:
            self._dead.set(await dead_letters.count(session))
            given: Mapping[int, int] = {} if self._topic is None else await assigned(session, self._topic)
            read = {
                TopicPartition(row.topic, row.partition): Offset.parse(row.position).ms
                for row in await session.execute(select(offsets).where(offsets.c.topic.in_(self._follows)))
            }
        self._ages.read(_DATABASE)
        if self._topic is not None:
            published = await self._heads(self._topic)
            self._outbox.set(sum(max(0, given[p] - published[p]) for p in given), {Attribute.TOPIC: self._topic})
        for topic in self._follows:
            heads = await self._heads(topic)
            self._lag.set(sum(max(0, heads[p] - read.get(TopicPartition(topic, p), 0)) for p in heads), {Attribute.TOPIC: topic})
        if self._raw is not None:
            await self._look_at_books(self._raw)

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
