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
from typing import Final

import structlog
from opentelemetry.trace import SpanKind
from pmp.log.v1 import log_pb2 as pb
from redis.backoff import ExponentialBackoff
from sqlalchemy import delete, func, select

from kit.database.transactions import Sessions, chunks, rowcount
from kit.log.leases import Leases
from kit.log.publish.outbox import Outbox, assigned
from kit.log.publish.rows import NOTHING, ROWS, Row, rows_after, rows_after_last
from kit.log.runner import LeasedRunner, PartitionHalted, unless, wait_until_set
from kit.log.streams import START, Offset, StreamLog
from kit.log.tables import outbox
from kit.outages import is_outage
from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span

_log = structlog.get_logger(__name__)

_AT_ONCE: Final = 8
"""Most partitions in one query."""
_PRUNE_ROWS: Final = 1000
# A commit wakes the relay of its own process; what a dead process left unpublished waits this long at most.
_POLL_SECONDS: Final = 5.0
_LINGER_SECONDS: Final = 0.05
"""Commits that follow each other within this time share one look at the outbox."""
_COMPARE_SECONDS: Final = 10.0
"""Time between two comparisons of a stream's head with the last append: the stream may have been restored."""
_PRUNE_SECONDS: Final = 60.0
_FLUSH_BACKOFF: Final = ExponentialBackoff(cap=0.5, base=0.01)
_MOST_DOUBLINGS: Final = 6


def _due(at: dict[int, float], partitions: Collection[int], now: float, seconds: float) -> Collection[int]:
    """Returns the partitions whose time has come, and gives them their next."""
    due = [partition for partition in sorted(partitions) if now >= at.get(partition, 0.0)]
    at.update(dict.fromkeys(due, now + seconds))
    return due


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
        self._last: dict[int, Row] = {}
        """The last row that this relay published in each partition."""
        self._flushing: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)
        self._compare_at: dict[int, float] = {}
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
                self._last.pop(partition, None)
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

        async def publish(partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
            failed = await self.step_all(partitions, stop)
            await wait_until_set(stop, _LINGER_SECONDS)
            await unless(stop, outbox.woken(_POLL_SECONDS))
            return failed

        await LeasedRunner(leases).run(publish)

    async def step_all(self, partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        """Publishes all that is committed in partitions. Now and then it asks their streams, which may have been restored, and prunes.

        Returns:
            Why partitions failed.
        """
        now = asyncio.get_running_loop().time()
        compared = [partition for partition in _due(self._compare_at, partitions, now, _COMPARE_SECONDS) if partition in self._last]
        for partition, head in (await self._log.heads(self._topic, compared)).items() if compared else ():
            if head.ms != self._last.get(partition, NOTHING).position:
                self._last.pop(partition, None)
        failed: dict[int, Exception] = {}
        left = set(partitions)
        while left and not stop.is_set():
            counts: dict[int, int] = {}
            for some in chunks(left, _AT_ONCE):
                counts |= await self._append_after_last(some)
            for partition in sorted(left - counts.keys()):
                try:
                    counts[partition] = await self._append_after_head(partition)
                except Exception as error:  # noqa: BLE001 (whatever it is, the partition waits and the others go on)
                    failed[partition] = error
            left = {partition for partition, count in counts.items() if count == ROWS}
        for partition in _due(self._prune_at, set(partitions) - failed.keys(), now, _PRUNE_SECONDS):
            while await self.prune(partition) == _PRUNE_ROWS:
                pass
        return failed

    async def step(self, partition: int) -> int:
        """Publishes some of what is committed and not yet in the stream.

        Returns:
            The number of entries published.

        Raises:
            TopicAheadOfDatabase: the stream is ahead of the database.
        """
        counts = await self._append_after_last([partition])
        return counts.get(partition) or await self._append_after_head(partition)

    async def _append_after_last(self, partitions: Collection[int]) -> dict[int, int]:
        """Publishes what follows the last append of this relay in each partition, in one query and one round trip.

        Returns:
            The number of entries published, of those partitions that this relay is certain of.
        """
        last = {partition: self._last.pop(partition) for partition in partitions if partition in self._last}
        if not last:
            return {}
        async with self._sessions.reading() as session:
            rows = await rows_after(session, self._topic, {partition: row.position for partition, row in last.items()})
        found = {partition: rows_after_last(row, rows.get(partition, ())) for partition, row in last.items()}
        # A restored database has assigned the offset again, or has not assigned it yet.
        certain = {partition: following for partition, following in found.items() if following is not None}
        self._last |= {partition: last[partition] for partition, following in certain.items() if not following}
        heads = {partition: Offset(row.position, 0) for partition, row in last.items()}
        appended = await self._append({partition: (heads[partition], following) for partition, following in certain.items() if following})
        return {partition: len(following) for partition, following in certain.items() if not following or partition in appended}

    async def _append_after_head(self, partition: int) -> int:
        """Publishes what follows the stream's last offset; returns the number of entries."""
        head = await self._log.head(self._topic, partition)
        async with self._sessions.reading() as session:
            rows = (await rows_after(session, self._topic, {partition: head.ms})).get(partition, [])
            known = (await assigned(session, self._topic)).get(partition, 0)
        if known < head.ms:
            message = f"the topic is at position {head.ms}, the database at {known}"
            raise TopicAheadOfDatabase(message)
        at_head = rows[0] if rows and rows[0].position == head.ms else None
        if at_head:
            await self._compare(partition, head, at_head.pack)
        rows = [row for row in rows if row.position > head.ms][:ROWS]
        if not rows:
            self._published[partition] = head.ms
            if at_head or head == START:
                self._last[partition] = at_head or NOTHING
            return 0
        return len(rows) if await self._append({partition: (head, rows)}) else 0

    async def _append(self, batches: Mapping[int, tuple[Offset, Sequence[Row]]]) -> Collection[int]:
        """Appends rows to each stream whose head is still the given one; returns the partitions of these."""
        if not batches:
            return ()
        entries = {
            partition: (head, [(row.position, row.pack, pb.Pack.FromString(row.pack)) for row in rows])
            for partition, (head, rows) in batches.items()
        }
        records = [record for _, unpacked in entries.values() for _, _, pack in unpacked for record in pack.records]
        parents = list(dict.fromkeys(record.traceparent for record in records if record.traceparent))
        attributes: Mapping[str, str | int] = {
            Attribute.TOPIC: self._topic,
            Attribute.PARTITION: ",".join(map(str, entries)),
            Attribute.MESSAGES: len(records),
        }
        with span(SpanName.PUBLISH, parent=parents[0] if parents else "", links=parents[1:], kind=SpanKind.PRODUCER, attributes=attributes):
            appended = await self._log.publish_to_several(
                self._topic,
                {
                    partition: (head, [(offset, pack, len(message.records)) for offset, pack, message in unpacked])
                    for partition, (head, unpacked) in entries.items()
                },
            )
        for partition in appended:
            self._last[partition] = batches[partition][1][-1]
            self._published[partition] = self._last[partition].position
        return appended

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
