"""Publishes the outbox of a topic to its streams.

A relay never publishes from memory: it reads the committed rows after the stream's last offset and appends them, in order, on
the condition that the last offset is still the same. That of its own last append is taken for the stream's as long as the
database holds what it appended there; on any doubt, and after any error, the stream is asked.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

import structlog
from opentelemetry.trace import SpanKind
from pmp.log.v1 import log_pb2 as pb
from redis.backoff import ExponentialBackoff
from sqlalchemy import bindparam, delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, rowcount
from kit.log.leases import Leases
from kit.log.publish.outbox import Outbox, assigned
from kit.log.runner import LeasedRunner, PartitionHalted, unless, wait_until_set
from kit.log.streams import Offset, StreamLog
from kit.log.tables import outbox
from kit.outages import is_outage
from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span

_log = structlog.get_logger(__name__)

_ROWS: Final = 16
_PRUNE_ROWS: Final = 1000
# A commit wakes the relay of its own process; what a dead process left unpublished waits this long at most.
_POLL_SECONDS: Final = 2.0
_LINGER_SECONDS: Final = 0.02
"""Commits that follow each other within this time share one look at the outbox."""
_PRUNE_SECONDS: Final = 10.0
_FLUSH_BACKOFF: Final = ExponentialBackoff(cap=0.5, base=0.01)
_MOST_DOUBLINGS: Final = 6

_ROWS_FROM: Final = (
    select(outbox.c.position, outbox.c.pack)
    .where(
        outbox.c.topic == bindparam("own_topic"),
        outbox.c.partition == bindparam("own_partition"),
        outbox.c.position >= bindparam("head"),
    )
    .order_by(outbox.c.position)
    .limit(_ROWS + 1)
)


class _Row(NamedTuple):
    position: int
    pack: bytes


class TopicAheadOfDatabase(PartitionHalted):
    """The topic has offsets that the database does not know: the database was restored. Publishing halts."""


class Relay:
    """Publishes the outbox of one topic."""

    def __init__(self, sessions: Sessions, log: StreamLog, topic: str, *, keep: timedelta) -> None:
        self._sessions = sessions
        self._log = log
        self._topic = topic
        self._keep = keep
        self._published: dict[int, int] = {}
        """The offset up to which all that was committed is in the stream, as far as this relay knows."""
        self._last: dict[int, _Row] = {}
        """The last row that this relay published in each partition."""
        self._flushing: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._pending: set[int] = set()
        """Where something was committed that is not published."""
        self._awake = asyncio.Event()
        self._prune_at: dict[int, float] = {}

    async def flush(self, offsets: Mapping[int, int], seconds: float) -> bool:
        """Publishes what was committed up to an offset of each partition, whichever process holds their leases.

        What is not published in time is published later all the same.

        Returns:
            Whether all of it was published in time.

        Raises:
            TopicAheadOfDatabase: the stream is ahead of the database.
        """
        try:
            async with asyncio.timeout(seconds):
                for partition, offset in sorted(offsets.items()):
                    await self._flush(partition, offset)
        except TimeoutError:
            return False
        return True

    async def _flush(self, partition: int, offset: int) -> None:
        attempts = 0
        # One after the other: what the first one publishes is most often what the others wait for.
        async with self._flushing[partition]:
            while True:
                # After a restore of the database, an offset known before it says nothing of those assigned since.
                self._published.pop(partition, None)
                try:
                    await self.step(partition)
                except Exception as error:
                    if not is_outage(error):
                        raise
                if self._published.get(partition, -1) >= offset:
                    return
                await asyncio.sleep(_FLUSH_BACKOFF.compute(min(attempts, _MOST_DOUBLINGS)))
                attempts += 1

    async def run(self, leases: Leases, outbox: Outbox) -> None:
        """Publishes the partitions it holds leases for, until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._watch(outbox))
            group.create_task(LeasedRunner(leases).run(self._publish))

    async def _watch(self, outbox: Outbox) -> None:
        """Wakes the partitions in which something was committed that is not published: one query for all of them."""
        while True:
            try:
                async with self._sessions.reading() as session:
                    committed = await assigned(session, self._topic)
            except Exception as error:  # noqa: BLE001 (the partitions themselves report what is wrong)
                _log.debug("outbox not read", topic=self._topic, error=type(error).__name__)
            else:
                pending = {partition for partition, offset in committed.items() if offset != self._published.get(partition)}
                self._pending |= pending
                if pending:
                    self._awake.set()
            await asyncio.sleep(_LINGER_SECONDS)
            await outbox.woken(_POLL_SECONDS)

    async def _publish(self, partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        """Publishes what is pending. Now and then it looks where nothing is, as the stream may have been restored, and prunes."""
        clock = asyncio.get_running_loop().time
        if self._pending.isdisjoint(partitions):
            due = min(self._prune_at.get(partition, 0.0) for partition in partitions)
            await unless(stop, wait_until_set(self._awake, due - clock()))
        self._awake.clear()
        failed: dict[int, Exception] = {}
        for partition in sorted(partitions):
            due = clock() >= self._prune_at.get(partition, 0.0)
            if not stop.is_set() and (due or partition in self._pending):
                try:
                    await self._drain(partition, stop)
                    if due:
                        await self.prune(partition)
                        self._prune_at[partition] = clock() + _PRUNE_SECONDS
                except Exception as error:  # noqa: BLE001 (whatever it is, the partition waits and the others go on)
                    failed[partition] = error
        return failed

    async def _drain(self, partition: int, stop: asyncio.Event) -> None:
        self._pending.discard(partition)
        try:
            while await self.step(partition) == _ROWS and not stop.is_set():
                pass
        except BaseException:
            self._pending.add(partition)
            raise

    async def step(self, partition: int) -> int:
        """Publishes some of what is committed and not yet in the stream.

        Returns:
            The number of entries published.

        Raises:
            TopicAheadOfDatabase: the stream is ahead of the database.
        """
        last = self._last.pop(partition, None)
        if last is not None:
            async with self._sessions.reading() as session:
                rows = await self._rows(session, partition, last.position)
            if len(rows) > 1 and rows[0] == last and await self._append(partition, Offset(last.position, 0), rows[1:]):
                return len(rows) - 1
        return await self._step_from_stream(partition)

    async def _step_from_stream(self, partition: int) -> int:
        head = await self._log.head(self._topic, partition)
        async with self._sessions.reading() as session:
            rows = await self._rows(session, partition, head.ms)
            known = (await assigned(session, self._topic)).get(partition, 0)
        if known < head.ms:
            message = f"the topic is at position {head.ms}, the database at {known}"
            raise TopicAheadOfDatabase(message)
        if rows and rows[0].position == head.ms:
            await self._compare(partition, head, rows[0].pack)
        rows = [row for row in rows if row.position > head.ms][:_ROWS]
        if not rows:
            self._published[partition] = head.ms
            return 0
        return len(rows) if await self._append(partition, head, rows) else 0

    async def _rows(self, session: AsyncSession, partition: int, head: int) -> Sequence[_Row]:
        """The row of the stream's last entry, if it still exists, and some of those after it."""
        own = {"own_topic": self._topic, "own_partition": partition, "head": head}
        return [_Row(row.position, row.pack) for row in await session.execute(_ROWS_FROM, own)]

    async def _append(self, partition: int, head: Offset, rows: Sequence[_Row]) -> bool:
        """Appends rows if the stream's head is still `head`; returns whether it was."""
        unpacked = [(row.position, row.pack, pb.Pack.FromString(row.pack)) for row in rows]
        parents = list(dict.fromkeys(record.traceparent for _, _, pack in unpacked for record in pack.records if record.traceparent))
        attributes: Mapping[str, str | int] = {Attribute.TOPIC: self._topic, Attribute.PARTITION: partition, Attribute.MESSAGES: len(rows)}
        with span(SpanName.PUBLISH, parent=parents[0] if parents else "", links=parents[1:], kind=SpanKind.PRODUCER, attributes=attributes):
            entries = [(offset, pack, len(message.records)) for offset, pack, message in unpacked]
            published = await self._log.publish(self._topic, partition, head=head, packs=entries)
        if published:
            self._published[partition], self._last[partition] = rows[-1].position, rows[-1]
        return published

    async def _compare(self, partition: int, head: Offset, ours: bytes) -> None:
        """A restored database assigns offsets again that the topic has already, to other messages."""
        entries = await self._log.read(self._topic, partition, Offset(head.ms - 1, 0), limit=1, block_ms=0)
        if entries and entries[0].offset == head and entries[0].pack != ours:
            message = f"at position {head.ms} the topic and the database hold different messages"
            raise TopicAheadOfDatabase(message)

    async def prune(self, partition: int) -> int:
        """Deletes rows that were published long ago, here and in the stream.

        Returns:
            The number of rows deleted.
        """
        head = await self._log.head(self._topic, partition)
        # The newest entry stays: by it a consumer sees that it is lagging, and a relay that the database is the one it knew.
        own = (outbox.c.topic == self._topic, outbox.c.partition == partition, outbox.c.position < head.ms)
        async with self._sessions.turns.follower(), self._sessions.begin() as session:
            old = (*own, outbox.c.created_at < datetime.now(UTC) - self._keep)
            oldest = select(outbox.c.position).where(*old).order_by(outbox.c.position).limit(_PRUNE_ROWS).subquery()
            last = await session.scalar(select(func.max(oldest.c.position)))
            if last is None:
                return 0
            deleted = await rowcount(session, delete(outbox).where(*own, outbox.c.position <= last))
        await self._log.trim(self._topic, partition, Offset(last, 0))
        return deleted
