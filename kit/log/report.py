"""Tells of the log what an operator has to know: how much is pending, whether the books balance, what was set aside."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog
from sqlalchemy import select

from kit.database import READING, Sessions
from kit.log import books, dead_letters
from kit.log.redis_log import RedisLog
from kit.log.streams import is_outage
from kit.log.tables import outbox_heads
from kit.telemetry import Attribute, MetricName, meter

_log = structlog.get_logger(__name__)

_EVERY_SECONDS: Final = 15.0


class Report:
    """Gauges of a raw log, its books, and the topic that is made of it. Every replica tells the same."""

    def __init__(self, sessions: Sessions, log: RedisLog, raw: str, topic: str, partitions: int) -> None:
        self._sessions = sessions
        self._log = log
        self._raw = raw
        self._topic = topic
        self._partitions = partitions
        self._lag = meter().create_gauge(MetricName.LOG_LAG, "{message}", "Messages in the raw log that are not processed.")
        self._bytes = meter().create_gauge(MetricName.LOG_BYTES, "By", "Memory of the log, all topics together.")
        self._outbox = meter().create_gauge(MetricName.OUTBOX_PENDING, "{entry}", "Entries committed and not published.")
        self._dead = meter().create_gauge(MetricName.DEAD_LETTERS, "{message}", "Messages set aside that nobody has decided on.")
        self._books = meter().create_gauge(MetricName.BOOKS, "{message}", "The books, by account; `missing` is what does not balance.")

    async def run(self) -> None:
        """Looks every 15 seconds, until cancelled."""
        while True:
            try:
                await self.look()
            except Exception as error:  # noqa: BLE001 (telling of the work must not end it)
                expected = is_outage(error)
                _log.warning("no report", error=type(error).__name__, exc_info=not expected)
            await asyncio.sleep(_EVERY_SECONDS)

    async def look(self) -> None:
        """Sets the gauges; logs an error when the books do not balance."""
        total = books.Account()
        for account in (await books.accounts(self._sessions, self._log, self._raw, self._partitions)).values():
            total.add(account)
        for name in total.__slots__:
            self._books.set(getattr(total, name), {Attribute.ACCOUNT: name})
        self._books.set(total.missing, {Attribute.ACCOUNT: "missing"})
        if total.missing:
            _log.error("books do not balance", topic=self._raw, missing=total.missing)
        self._lag.set(total.pending, {Attribute.TOPIC: self._raw})
        self._bytes.set(await self._log.used_bytes())
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            self._dead.set(await dead_letters.count(session))
            heads = await session.execute(
                select(outbox_heads.c.partition, outbox_heads.c.position).where(outbox_heads.c.topic == self._topic)
            )
            given = {row.partition: row.position for row in heads}
        published = {partition: (await self._log.head(self._topic, partition)).ms for partition in given}
        self._outbox.set(sum(max(0, given[p] - published[p]) for p in given), {Attribute.TOPIC: self._topic})
