"""Reads a stream so that every message takes effect exactly once.

The offset is kept in the consumer's own database and committed in the transaction that writes the effect: where a consumer
finds it moved by another, it applies nothing. Leases in Redis only keep two consumers from doing the same work.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import structlog
from opentelemetry.trace import SpanKind
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions
from kit.log import offsets
from kit.log.consume import dead_letters
from kit.log.consume.bookkeeping import Bookkeeping
from kit.log.consume.handler import Outcome, Poison, RawLogHandler
from kit.log.consume.isolation import DeadLetterLimit, DeadLetterLimitReached, Isolation
from kit.log.consume.reader import BATCH_MESSAGES, Batch, Reader
from kit.log.leases import Leases
from kit.log.runner import LeasedRunner, unless, wait_until_set
from kit.log.streams import Delivery, Offset
from kit.outages import is_outage
from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span

_log = structlog.get_logger(__name__)

_LEAST_MESSAGES: Final = 128
"""What a transaction may hold however slow the last ones were: beginning and ending one costs as much as these."""
_BUDGET_SECONDS: Final = 0.5
"""How long a transaction may hold its locks: calls wait for them."""
_BLOCK_MS: Final = 8000
"""How long a read waits for messages. At rest, a consumer does nothing else."""
_CHECK_SECONDS: Final = 5.0
_RETRY_SECONDS: Final = 10.0
_LONGEST_PACE: Final = 5.0

AfterCommit: TypeAlias = Callable[[int, Offset], Awaitable[None]]
"""Called with a partition and the offset that was committed."""


@dataclass(frozen=True, slots=True)
class Done:
    """What a step came to."""

    applied: int
    """The number of messages applied."""
    failed: Mapping[int, Exception]
    """Why partitions failed: a `PartitionHalted` where messages are missing or too many fail."""
    has_more: bool = False
    """Whether there is more to read."""


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
        self._read_at = 0.0
        """When the last messages arrived."""
        self._checked_at = 0.0
        self._over_limit: set[int] = set()
        """Partitions in which nothing more is set aside, until a batch is applied without failures or the process restarts."""
        self._room = BATCH_MESSAGES
        """How many messages a transaction takes: fewer when the last ones took too long, whatever the reason."""

    async def run(self, leases: Leases) -> None:
        """Consumes the partitions it holds leases for, until cancelled; a step under way is finished first."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch_retries())
            group.create_task(LeasedRunner(leases).run(self._consume))

    async def _consume(self, partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        for partition in self._marked.intersection(partitions):
            await self.retry(partition)
            self._marked.discard(partition)
        done = await self.step_all(partitions, block_ms=_BLOCK_MS, stop=stop)
        if done.applied and not done.has_more:
            # A step that took long shows that the machine has other work.
            took = asyncio.get_running_loop().time() - self._read_at
            await wait_until_set(stop, max(self._pace - took, min(took, _LONGEST_PACE)))
        return done.failed

    async def _watch_retries(self) -> None:
        while True:
            try:
                async with self._sessions.reading() as session:
                    self._marked |= await dead_letters.marked_partitions(session, self._topic)
            except Exception as error:  # noqa: BLE001 (the partitions themselves report what is wrong)
                _log.debug("dead letters not read", topic=self._topic, error=type(error).__name__)
            await asyncio.sleep(_RETRY_SECONDS)

    async def step(self, partition: int, *, block_ms: int = 0) -> int:
        """Does `step_all` in one partition.

        Returns:
            The number of messages applied.

        Raises:
            PartitionHalted: messages are missing, or too many fail.
            Exception: a transient error of the database or the log; nothing was applied.
        """
        done = await self.step_all([partition], block_ms=block_ms)
        if done.failed:
            raise done.failed[partition]
        return done.applied

    async def step_all(self, partitions: Collection[int], *, block_ms: int = 0, stop: asyncio.Event | None = None) -> Done:
        """Reads on in partitions and applies what it finds in one transaction.

        A partition in which messages are missing or fail falls out alone, and so does one that another consumer has processed.

        Args:
            partitions: where to read.
            block_ms: how long to wait for messages.
            stop: ends the waiting.

        Raises:
            Exception: a transient error of the database or the log.
        """
        try:
            after = await self._load_offsets(partitions)
            reading = await unless(stop, self._reader.read(after, self._room, block_ms))
            if reading is None:
                return Done(0, {})
            self._read_at = asyncio.get_running_loop().time()
            await self._check_offsets({each: offset for each, offset in after.items() if each not in reading.batches}, len(after))
            applied = await self._apply_or_isolate(reading.batches, reading.failed) if reading.batches else 0
        except BaseException:
            # Only the database knows whether a failed commit took effect.
            self._forget(partitions)
            raise
        self._forget(reading.failed)
        return Done(applied, reading.failed, reading.has_more)

    async def _load_offsets(self, partitions: Collection[int]) -> Mapping[int, Offset]:
        unknown = set(partitions) - self._offsets.keys()
        if unknown:
            loaded = await offsets.load(self._sessions, self._topic, unknown)
            for partition, offset in sorted(loaded.items()):
                await self._reader.check(partition, offset)
            self._offsets |= loaded
        return {partition: self._offsets[partition] for partition in sorted(partitions)}

    async def _check_offsets(self, quiet: Mapping[int, Offset], read: int) -> None:
        """A restore or a replay moves offsets back without notice: looks where nothing came, now and then or when nothing came at all."""
        if not quiet or (len(quiet) < read and self._read_at < self._checked_at + _CHECK_SECONDS):
            return
        stored = await offsets.load(self._sessions, self._topic, quiet)
        self._forget([partition for partition, offset in quiet.items() if stored[partition] != offset])
        self._checked_at = self._read_at

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

    async def _apply_or_isolate(self, batches: Mapping[int, Batch], failed: dict[int, Exception]) -> int:
        """Applies messages together, as hardly any ever fails; else the partitions one by one, each failure isolated.

        Returns:
            The number of messages applied.
        """
        deliveries = [delivery for batch in batches.values() for delivery in batch.deliveries]
        parents = list(dict.fromkeys(d.record.traceparent for d in deliveries if d.record.traceparent))
        attributes: Mapping[str, str | int] = {
            Attribute.TOPIC: self._topic,
            Attribute.PARTITION: ",".join(map(str, batches)),
            Attribute.MESSAGES: len(deliveries),
        }
        parent = parents[0] if parents else ""
        with span(SpanName.CONSUME, parent=parent, links=parents[1:], kind=SpanKind.CONSUMER, attributes=attributes):
            try:
                own = await self._apply(batches, self._handler)
                self._over_limit -= batches.keys()
            except Exception as error:
                if is_outage(error):
                    raise
                own = await self._apply_one_by_one(batches, failed)
        await self._committed(batches, own)
        return sum(len(batches[partition].deliveries) for partition in own)

    async def _apply_one_by_one(self, batches: Mapping[int, Batch], failed: dict[int, Exception]) -> set[int]:
        own: set[int] = set()
        for partition, batch in batches.items():
            try:
                own |= await self._apply({partition: batch}, self._isolate)
            except Exception as error:
                if is_outage(error):
                    raise
                failed[partition] = error
        return own

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

    async def _apply(self, batches: Mapping[int, Batch], handler: RawLogHandler) -> set[int]:
        """Applies the messages of those partitions that no other consumer has processed; returns these partitions."""
        async with self._sessions.turns.follower():
            began = asyncio.get_running_loop().time()
            async with self._sessions.begin() as session:
                own = await offsets.advance(session, self._topic, {each: (batch.after, batch.last) for each, batch in batches.items()})
                deliveries = [delivery for each in batches if each in own for delivery in batches[each].deliveries]
                outcomes = await handler(session, deliveries) if deliveries else ()
                await dead_letters.add(session, [(d, str(o)) for d, o in zip(deliveries, outcomes, strict=True) if isinstance(o, Poison)])
                if self._books is not None:
                    await self._books.record(session, {each: batches[each].counters for each in own}, deliveries, outcomes)
            self._size_next(len(deliveries), asyncio.get_running_loop().time() - began)
        return own

    def _size_next(self, messages: int, seconds: float) -> None:
        """Adapts how many messages a transaction takes to how long the last one took."""
        if seconds > _BUDGET_SECONDS:
            self._room = max(_LEAST_MESSAGES, min(self._room, messages) // 2)
        elif seconds < _BUDGET_SECONDS / 2:
            self._room = min(BATCH_MESSAGES, self._room + _LEAST_MESSAGES)

    async def _committed(self, batches: Mapping[int, Batch], own: Collection[int]) -> None:
        self._forget(batches.keys() - own)
        self._offsets |= {partition: batches[partition].last for partition in own}
        if self._books is not None:
            self._books.committed({each: batches[each].counters for each in own})
        if self._after_commit:
            for partition in sorted(own):
                await self._after_commit(partition, batches[partition].last)

    def _forget(self, partitions: Iterable[int]) -> None:
        for partition in partitions:
            self._offsets.pop(partition, None)
            if self._books is not None:
                self._books.forget(partition)
