"""Reads a stream so that every message takes effect exactly once.

The offset is kept in the consumer's own database and committed in the transaction that writes the effect: a consumer that
finds it moved by another rolls back. Leases in Redis only keep two consumers from doing the same work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Final, TypeAlias

import structlog
from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions
from kit.log import offsets
from kit.log.consume import dead_letters
from kit.log.consume.bookkeeping import Bookkeeping
from kit.log.consume.handler import Handler, Outcome, Poison, RawLogHandler
from kit.log.consume.isolation import DeadLetterLimit, DeadLetterLimitReached, Isolation
from kit.log.consume.reader import BATCH_MESSAGES, READ_ENTRIES, History, Reader, deliveries_of
from kit.log.leases import Leases
from kit.log.runner import LeasedRunner, unless, wait_until_set
from kit.log.streams import Delivery, Entry, Offset, StreamLog
from kit.outages import is_outage
from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span

_log = structlog.get_logger(__name__)

_LEAST_MESSAGES: Final = 128
"""What a transaction may hold however slow the last ones were: beginning and ending one costs as much as these."""
_BUDGET_SECONDS: Final = 0.5
"""How long a transaction may hold its locks: calls wait for them."""
_BLOCK_MS: Final = 4000
"""How long a read waits for messages. At rest, a consumer does nothing else."""
_LONGEST_PACE: Final = 5.0
# A transaction costs more than the few messages in it: those that arrive within this time share one.
_PACE_SECONDS: Final = 0.25
_RAW_LOG_PACE_SECONDS: Final = 0.1
_APPLIED: Final = "applied"

AfterCommit: TypeAlias = Callable[[int, Offset], Awaitable[None]]
"""Called with a partition and the offset that was committed."""


class StreamConsumer:
    """Feeds the messages of one stream to one handler.

    Args:
        handler: applies messages, and returns their outcomes.
        reader: reads the stream.
        pace: seconds from one transaction to the next while few messages arrive.
        books: the books of a raw log; None for a topic.
        limit: halts the consumer when more messages fail; None sets any number of them aside.
        after_commit: called after each commit.
    """

    def __init__(
        self,
        sessions: Sessions,
        topic: str,
        handler: RawLogHandler,
        reader: Reader,
        *,
        pace: float,
        books: Bookkeeping | None,
        limit: DeadLetterLimit | None,
        after_commit: AfterCommit | None,
    ) -> None:
        self._sessions = sessions
        self._topic = topic
        self._handler = handler
        self._reader = reader
        self._pace = pace
        self._books = books
        self._limit = limit
        self._after_commit = after_commit
        self._marked: set[int] = set()
        """Partitions with dead letters to retry."""
        self._offsets: dict[int, Offset] = {}
        self._read_at: dict[int, float] = {}
        """When the last messages of each partition arrived."""
        self._over_limit: set[int] = set()
        """Partitions in which nothing more is set aside, until a batch is applied without failures or the process restarts."""
        self._room = BATCH_MESSAGES
        """How many messages a transaction takes: fewer when the last ones took too long, whatever the reason."""

    async def run(self, leases: Leases) -> None:
        """Consumes the partitions it holds leases for, until cancelled; steps under way are finished first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_retries(leases.interval))
            group.create_task(LeasedRunner(leases).run(self._consume))

    async def _consume(self, partition: int, stop: asyncio.Event) -> None:
        if partition in self._marked:
            await self.retry(partition)
            self._marked.discard(partition)
        applied = await self.step(partition, block_ms=_BLOCK_MS, stop=stop)
        if 0 < applied < READ_ENTRIES:
            # A step that took long shows that the machine has other work.
            took = asyncio.get_running_loop().time() - self._read_at[partition]
            await wait_until_set(stop, max(self._pace - took, min(took, _LONGEST_PACE)))

    async def _watch_retries(self, seconds: float) -> None:
        while True:
            try:
                async with self._sessions.reading() as session:
                    self._marked |= await dead_letters.marked_partitions(session, self._topic)
            except Exception as error:  # noqa: BLE001 (the partitions themselves report what is wrong)
                _log.debug("dead letters not read", topic=self._topic, error=type(error).__name__)
            await asyncio.sleep(seconds)

    async def step(self, partition: int, *, block_ms: int = 0, stop: asyncio.Event | None = None) -> int:
        """Reads on and applies what it finds in one transaction.

        Args:
            partition: where to read.
            block_ms: how long to wait for messages.
            stop: ends the waiting.

        Returns:
            The number of messages applied.

        Raises:
            PartitionHalted: messages are missing, or too many fail.
            Exception: a transient error of the database or the log; nothing was applied.
        """
        try:
            offset = self._offsets.get(partition)
            if offset is None:
                offset = await offsets.load(self._sessions, self._topic, partition)
                await self._reader.check(partition, offset)
            entries = await unless(stop, self._reader.read(partition, offset, self._room, block_ms)) or ()
            if not entries:
                # A restore or a replay moves the offset back without notice.
                if partition in self._offsets and await offsets.load(self._sessions, self._topic, partition) != offset:
                    self._forget(partition)
                return 0
            self._read_at[partition] = asyncio.get_running_loop().time()
            deliveries = deliveries_of(self._topic, partition, entries)
            await self._apply_or_isolate(partition, offset, entries, deliveries)
        except offsets.OffsetConflict:
            self._forget(partition)
            return 0
        except BaseException:
            # Only the database knows whether a failed commit took effect.
            self._forget(partition)
            raise
        if self._after_commit:
            await self._after_commit(partition, entries[-1].offset)
        return len(deliveries)

    async def retry(self, partition: int) -> int:
        """Retries the dead letters that an operator marked.

        Returns:
            How many there were.
        """
        async with self._sessions.turns.follower(), self._sessions.begin() as session:
            letters = await dead_letters.marked(session, self._topic, partition)
            if not letters:
                return 0
            await offsets.locked(session, self._topic, partition)
            for letter in letters:
                delivery = Delivery(self._topic, partition, Offset.parse(letter.position), letter.ordinal, letter.hour, letter.record)
                [outcome] = await Isolation(self._handler, None).apply(session, [delivery])
                if isinstance(outcome, Poison):
                    await dead_letters.keep(session, letter.id, str(outcome))
                else:
                    await dead_letters.remove(session, letter.id)
                    if self._books is not None:
                        await self._books.record_retry(session, letter, outcome)
        return len(letters)

    async def _apply_or_isolate(self, partition: int, offset: Offset, entries: Sequence[Entry], deliveries: Sequence[Delivery]) -> None:
        """Applies messages together, as hardly any ever fails and a savepoint costs two statements; else with each failure isolated."""
        if self._books is not None:
            await self._books.read_counters(partition)
        parents = list(dict.fromkeys(d.record.traceparent for d in deliveries if d.record.traceparent))
        attributes: Mapping[str, str | int] = {
            Attribute.TOPIC: self._topic,
            Attribute.PARTITION: partition,
            Attribute.MESSAGES: len(deliveries),
        }
        parent = parents[0] if parents else ""
        with span(SpanName.CONSUME, parent=parent, links=parents[1:], kind=SpanKind.CONSUMER, attributes=attributes):
            ends = offset, entries[-1].offset
            try:
                await self._apply(partition, ends, deliveries, self._handler)
                self._over_limit.discard(partition)
            except Exception as error:
                if isinstance(error, offsets.OffsetConflict) or is_outage(error):
                    raise
                await self._apply(partition, ends, deliveries, self._isolate)
        self._offsets[partition] = entries[-1].offset
        if self._books is not None:
            self._books.committed(partition)

    async def _isolate(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        partition, allowance = deliveries[0].partition, None
        if self._limit is not None:
            # What leaves the window while a defect is there must not let it set more aside.
            allowance = 0 if partition in self._over_limit else await self._limit.allowance(session, self._topic)
        isolation = Isolation(self._handler, allowance)
        try:
            outcomes = await isolation.apply(session, deliveries)
        except DeadLetterLimitReached:
            self._over_limit.add(partition)
            raise
        if not isolation.failures:
            self._over_limit.discard(partition)
        return outcomes

    async def _apply(self, partition: int, ends: tuple[Offset, Offset], deliveries: Sequence[Delivery], handler: RawLogHandler) -> None:
        async with self._sessions.turns.follower():
            began = asyncio.get_running_loop().time()
            async with self._sessions.begin() as session:
                await offsets.advance(session, self._topic, partition, *ends)
                outcomes = await handler(session, deliveries) if deliveries else ()  # an entry may exist for its offset alone
                await dead_letters.add(session, [(d, str(o)) for d, o in zip(deliveries, outcomes, strict=True) if isinstance(o, Poison)])
                if self._books is not None:
                    await self._books.record(session, partition, deliveries, outcomes)
            seconds = asyncio.get_running_loop().time() - began
        if seconds > _BUDGET_SECONDS:
            self._room = max(_LEAST_MESSAGES, min(self._room, len(deliveries)) // 2)
        elif seconds < _BUDGET_SECONDS / 2:
            self._room = min(BATCH_MESSAGES, self._room + _LEAST_MESSAGES)

    def _forget(self, partition: int) -> None:
        self._offsets.pop(partition, None)
        if self._books is not None:
            self._books.forget(partition)


class Consumer(StreamConsumer):
    """Feeds the messages of a topic to its handler.

    Args:
        history: where to read on when the stream was trimmed after the offset.
        limit: halts the consumer when more messages fail; None sets any number of them aside.
        after_commit: called after each commit.
    """

    def __init__(
        self,
        sessions: Sessions,
        log: StreamLog,
        topic: str,
        handler: Handler,
        *,
        history: History | None = None,
        limit: DeadLetterLimit | None = None,
        after_commit: AfterCommit | None = None,
    ) -> None:
        async def apply(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
            await handler(session, deliveries)
            return [_APPLIED] * len(deliveries)

        reader = Reader(log, topic, history)
        super().__init__(sessions, topic, apply, reader, pace=_PACE_SECONDS, books=None, limit=limit, after_commit=after_commit)


class RawLogConsumer(StreamConsumer):
    """Feeds the messages of a raw log to its handler, and keeps the books of their outcomes.

    Args:
        limit: halts the consumer when more messages fail; None sets any number of them aside.
        after_commit: called after each commit.
    """

    def __init__(
        self,
        sessions: Sessions,
        log: StreamLog,
        topic: str,
        handler: RawLogHandler,
        *,
        limit: DeadLetterLimit | None = None,
        after_commit: AfterCommit | None = None,
    ) -> None:
        reader, books = Reader(log, topic, None), Bookkeeping(log, topic)
        super().__init__(sessions, topic, handler, reader, pace=_RAW_LOG_PACE_SECONDS, books=books, limit=limit, after_commit=after_commit)
