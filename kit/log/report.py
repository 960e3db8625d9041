"""Tells of the log what an operator has to know: how far a service is behind, whether the books balance, what was set aside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import structlog
from sqlalchemy import select

from kit.database import READING, Sessions
from kit.log import books, dead_letters
from kit.log.redis_log import RedisLog
from kit.log.streams import Position
from kit.log.tables import offsets, outbox_heads
from kit.server import regularly
from kit.telemetry import Attribute, MetricName, meter

_log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 15.0


class Report:
    """Gauges of what a service publishes, follows and keeps books of. Every replica tells the same.

    Args:
        topic: what it publishes.
        raw: the raw log it keeps books of, if it does.
        follows: topics of others that it follows.
    """

    def __init__(
        self, sessions: Sessions, log: RedisLog, partitions: int, *, topic: str, raw: str | None = None, follows: Sequence[str] = ()
    ) -> None:
        self._sessions = sessions
        self._log = log
        self._partitions = partitions
        self._topic = topic
        self._raw = raw
        self._follows = follows
        self._lag = meter().create_gauge(
            MetricName.LOG_LAG, "{message}", "Messages of the raw log, entries of a topic that are not processed."
        )
        self._bytes = meter().create_gauge(MetricName.LOG_BYTES, "By", "Memory of the log, all topics together.")
        self._outbox = meter().create_gauge(MetricName.OUTBOX_PENDING, "{entry}", "Entries committed and not published.")
        self._dead = meter().create_gauge(MetricName.DEAD_LETTERS, "{message}", "Messages set aside that nobody has decided on.")
        self._books = meter().create_gauge(MetricName.BOOKS, "{message}", "The books, by account; `missing` is what does not balance.")

    async def run(self) -> None:
        """Looks every 15 seconds, until cancelled."""
        await regularly(self.look, _EVERY_SECONDS, "no report")

    async def look(self) -> None:
        """Sets the gauges; logs an error when the books do not balance."""
        self._bytes.set(await self._log.used_bytes())
        if self._raw is not None:
            await self._look_at_books(self._raw)
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            self._dead.set(await dead_letters.count(session))
            given = {
                row.partition: row.position
                for row in await session.execute(
                    select(outbox_heads.c.partition, outbox_heads.c.position).where(outbox_heads.c.topic == self._topic)
                )
            }
            read = {
                (row.topic, row.partition): Position.parse(row.position).ms
                for row in await session.execute(select(offsets).where(offsets.c.topic.in_(self._follows)))
            }
        published = await self._heads(self._topic)
        self._outbox.set(sum(max(0, given[p] - published[p]) for p in given), {Attribute.TOPIC: self._topic})
        for topic in self._follows:
            heads = await self._heads(topic)
            self._lag.set(sum(max(0, heads[p] - read.get((topic, p), 0)) for p in heads), {Attribute.TOPIC: topic})

    async def _look_at_books(self, raw: str) -> None:
        total = books.Account()
        for account in (await books.accounts(self._sessions, self._log, raw, self._partitions)).values():
            total.add(account)
        for name in total.__slots__:
            self._books.set(getattr(total, name), {Attribute.ACCOUNT: name})
        self._books.set(total.missing, {Attribute.ACCOUNT: "missing"})
        if total.missing:
            _log.error("books do not balance", topic=raw, missing=total.missing)
        self._lag.set(total.pending, {Attribute.TOPIC: raw})

    async def _heads(self, topic: str) -> dict[int, int]:
        return {partition: (await self._log.head(topic, partition)).ms for partition in range(self._partitions)}
