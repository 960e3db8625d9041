"""Publishes what a service has done: a message is a row committed with the change, and a relay brings it to its topic.

Positions are consecutive per topic and partition, and they are the ids of the stream's entries. A relay never publishes
what it has in hand: it reads the stream's last position and appends, in order, every committed row behind it, on the
condition that the last position is still the same. After any error it starts again from there.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import groupby
from typing import Any, Final

import structlog
from google.protobuf.message import Message
from opentelemetry.trace import SpanKind
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy import delete, func, insert, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, rowcount, upsert
from kit.log.append import packs
from kit.log.consume import happens
from kit.log.leases import Leases
from kit.log.streams import Position, StreamLog, partition_of
from kit.log.tables import outbox, outbox_heads, topic_state
from kit.outages import is_outage
from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span, traceparent

_log = structlog.get_logger(__name__)

_PACK_MESSAGES: Final = 128
"""An entry is the least that a consumer applies in one transaction."""
_ROWS: Final = 16
_PRUNE_ROWS: Final = 1000
# Whoever commits wakes the relay of its own process; what a dead process left behind waits this long at most.
_POLL_SECONDS: Final = 2.0
_PRUNE_SECONDS: Final = 10.0
_LONGEST_WAIT: Final = 5.0
_HISTORY_ROWS: Final = 500


class TopicAheadOfDatabase(Exception):
    """The topic knows positions that the database does not: the database was restored. Publishing stops; a person has to look."""


class Outbox:
    """Where a service writes what it publishes on its topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._committed = asyncio.Event()

    async def add(self, session: AsyncSession, partition: int, records: Sequence[pb.Record]) -> Sequence[int]:
        """Writes messages into the caller's transaction, in their order; answers the position of each.

        The partition's positions stay locked until the transaction ends, so that they are consecutive.
        """
        return (await self.spread(session, {partition: records}))[partition]

    async def spread(self, session: AsyncSession, records: Mapping[int, Sequence[pb.Record]]) -> Mapping[int, Sequence[int]]:
        """Writes the messages of several partitions as `add` does, in as few statements as for one."""
        packed = {
            partition: packs([record.SerializeToString() for record in messages], _PACK_MESSAGES)
            for partition, messages in sorted(records.items())
        }
        first = await self._put(session, {partition: [pack for pack, _ in some] for partition, some in packed.items()})
        return {
            partition: [position for position, (_, count) in enumerate(some, first[partition]) for _ in range(count)]
            for partition, some in packed.items()
        }

    async def purge(self, sessions: Sessions, log: StreamLog, partition: int, through: int) -> int:
        """Takes what was published up to a position out of the outbox and its stream; says how many entries are still to go.

        The newest entry of a stream has to stay. Where it is one of those that go, one without messages comes behind it: they
        are gone when the relay has published that, and this is called again.
        """
        own = (outbox.c.topic == self.topic, outbox.c.partition == partition, outbox.c.position <= through)
        async with sessions.begin() as session:
            given = (await self._heads(session, [partition])).get(partition, 0)
            if await session.scalar(select(func.count()).where(*own)) and given <= through:
                await self._put(session, {partition: [pb.Pack().SerializeToString()]})
        self.wake()
        last = min(through, (await log.head(self.topic, partition)).ms - 1)
        async with sessions.begin() as session:
            await session.execute(delete(outbox).where(*own, outbox.c.position <= last))
            left = await session.scalar(select(func.count()).where(*own)) or 0
        if last > 0:
            await log.trim(self.topic, partition, Position(last, 0))
        return left

    def wake(self) -> None:
        """Says that a transaction was committed, so that the relay need not wait for its next look."""
        self._committed.set()

    async def woken(self, seconds: float) -> None:
        """Waits for `wake`, at most so long."""
        if await happens(self._committed, seconds):
            self._committed.clear()

    async def _put(self, session: AsyncSession, packs_of: Mapping[int, Sequence[bytes]]) -> Mapping[int, int]:
        """Writes entries of partitions; answers the first position of each."""
        heads = await self._heads(session, packs_of)
        first = {partition: heads.get(partition, 0) + 1 for partition in packs_of}
        now = datetime.now(UTC)
        rows = [
            {"topic": self.topic, "partition": partition, "position": position, "pack": pack, "created_at": now}
            for partition, several in packs_of.items()
            for position, pack in enumerate(several, first[partition])
        ]
        if rows:
            await session.execute(insert(outbox), rows)
        ends = {partition: first[partition] + len(several) - 1 for partition, several in packs_of.items() if several}
        await upsert(session, outbox_heads, [{"topic": self.topic, "partition": p, "position": end} for p, end in ends.items()])
        return first

    async def _heads(self, session: AsyncSession, partitions: Collection[int]) -> Mapping[int, int]:
        """The last positions that were given, locked. Two first messages of a partition are told apart by the outbox's own key."""
        own = (outbox_heads.c.topic == self.topic, outbox_heads.c.partition.in_(sorted(partitions)))
        query = select(outbox_heads.c.partition, outbox_heads.c.position).where(*own).order_by(outbox_heads.c.partition)
        return {row.partition: row.position for row in await session.execute(query.with_for_update())}


class StateTopic(Outbox):
    """A topic whose messages each say all there is to say about their key, so that the newest of each key are its history.

    A key's messages share one partition, and are read in their order. Those of two keys are not: what a reader makes of
    several keys must not depend on which came first.
    """

    def __init__(self, topic: str, partitions: int) -> None:
        super().__init__(topic)
        self._partitions = partitions

    async def tell(self, session: AsyncSession, changes: Sequence[tuple[str, Message]]) -> None:
        """Writes messages under their keys into the caller's transaction. Best done last: positions stay locked until it ends."""
        by_partition: dict[int, list[tuple[str, Message]]] = defaultdict(list)
        for key, message in changes:
            by_partition[partition_of(key, self._partitions)].append((key, message))
        if not by_partition:
            return
        trace = traceparent()
        records = {
            partition: [pb.Record(type=m.DESCRIPTOR.full_name, payload=m.SerializeToString(), traceparent=trace) for _, m in told]
            for partition, told in by_partition.items()
        }
        rows: dict[str, dict[str, Any]] = {}
        for partition, positions in (await self.spread(session, records)).items():
            for ordinal, ((key, _), position) in enumerate(zip(by_partition[partition], positions, strict=True)):
                place = {"partition": partition, "position": position, "ordinal": ordinal}
                rows[key] = {"topic": self.topic, "key": key, **place, "payload": records[partition][ordinal].payload}
        await upsert(session, topic_state, [rows[key] for key in sorted(rows)])

    async def places(self, session: AsyncSession, keys: Iterable[str]) -> Mapping[int, int]:
        """Up to which position of which partitions the newest messages of these keys are published; of a key without any, none."""
        own = (topic_state.c.topic == self.topic, topic_state.c.key.in_(sorted(keys)))
        query = select(topic_state.c.partition, func.max(topic_state.c.position).label("last")).where(*own)
        return {row.partition: row.last for row in await session.execute(query.group_by(topic_state.c.partition))}

    async def forget(self, session: AsyncSession, keys: Iterable[str]) -> None:
        """Takes keys out of the history, in the caller's transaction: whoever starts there does not learn of them."""
        await session.execute(delete(topic_state).where(topic_state.c.topic == self.topic, topic_state.c.key.in_(sorted(keys))))

    async def history(self, sessions: Sessions, partition: int, after: int) -> AsyncIterator[tuple[int, Sequence[bytes]]]:
        """The newest message of each key that was published behind a position: by position, and in the order of their publishing."""
        own = (topic_state.c.topic == self.topic, topic_state.c.partition == partition)
        order = (topic_state.c.position, topic_state.c.ordinal)
        while True:
            async with sessions.reading() as session:
                ends = select(topic_state.c.position).where(*own, topic_state.c.position > after).order_by(*order).limit(_HISTORY_ROWS)
                last = await session.scalar(select(func.max(ends.subquery().c.position)))
                if last is None:
                    return
                query = select(topic_state.c.position, topic_state.c.payload).where(*own, topic_state.c.position.between(after + 1, last))
                rows = (await session.execute(query.order_by(*order))).all()
            for position, group in groupby(rows, key=lambda row: row.position):
                yield position, [row.payload for row in group]
            after = last


async def prepare_heads(sessions: Sessions, topic: str, partitions: int) -> None:
    """Makes the rows under which positions are given, so that no two first messages race for them."""
    async with sessions.reading() as session:
        known = set(await session.scalars(select(outbox_heads.c.partition).where(outbox_heads.c.topic == topic)))
    for partition in set(range(partitions)) - known:
        try:
            async with sessions.begin() as session:
                await session.execute(insert(outbox_heads).values(topic=topic, partition=partition, position=0))
        except IntegrityError:
            _log.debug("head made by another process", topic=topic, partition=partition)


class Relay:
    """Brings the outbox of one topic to its streams."""

    def __init__(self, sessions: Sessions, log: StreamLog, topic: str, *, keep: timedelta) -> None:
        self._sessions = sessions
        self._log = log
        self._topic = topic
        self._keep = keep
        self._published: dict[int, int] = {}
        """Up to where all that was committed is in the stream, as far as this relay has seen."""
        self._turns: dict[int, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def publish(self, places: Mapping[int, int], seconds: float) -> bool:
        """Publishes what was committed up to a position of each partition, whoever holds their leases; False when that took too long.

        Whoever answers only then has told what outlives it. What is not published in time is published later all the same.

        Raises:
            TopicAheadOfDatabase: the stream is ahead of the database.
        """
        try:
            async with asyncio.timeout(seconds):
                for partition, position in sorted(places.items()):
                    await self._reach(partition, position)
        except TimeoutError:
            return False
        return True

    async def _reach(self, partition: int, position: int) -> None:
        wait = 0.0
        # One after the other: what the first one publishes is most often what the others wait for.
        async with self._turns[partition]:
            while True:
                # What was known before the database was restored says nothing of positions that were given since.
                self._published.pop(partition, None)
                try:
                    await self.step(partition)
                except Exception as error:
                    if not is_outage(error):
                        raise
                if self._published.get(partition, -1) >= position:
                    return
                await asyncio.sleep(wait)
                wait = min(0.5, max(0.01, wait * 2))

    async def run(self, leases: Leases, outbox: Outbox) -> None:
        """Publishes the partitions it holds leases for, until cancelled. A partition that fails waits by itself."""
        renew_at = prune_at = 0.0
        held: set[int] = set()
        waits: dict[int, float] = {}
        not_before: dict[int, float] = {}
        loop = asyncio.get_running_loop()
        try:
            while True:
                if loop.time() >= renew_at:
                    held, renew_at = await leases.tick(), loop.time() + leases.interval
                pruning, more = loop.time() >= prune_at, False
                # What was restored, here or in the stream, is behind without anything having been committed.
                for partition in sorted(held if pruning else await self._behind(held)):
                    if loop.time() < not_before.get(partition, 0.0):
                        continue
                    try:
                        more |= await self.step(partition) == _ROWS
                        if pruning:
                            await self.prune(partition)
                        waits.pop(partition, None)
                    except Exception as error:  # noqa: BLE001 (the partition waits, whatever it is)
                        waits[partition] = (
                            _LONGEST_WAIT if isinstance(error, TopicAheadOfDatabase) else min(_LONGEST_WAIT, waits.get(partition, 0.05) * 2)
                        )
                        not_before[partition] = loop.time() + waits[partition]
                        self._complain(partition, error, waits[partition])
                if pruning:
                    prune_at = loop.time() + _PRUNE_SECONDS
                if not more:
                    await outbox.woken(min([_POLL_SECONDS, *waits.values()]))
        finally:
            await leases.release()

    def _complain(self, partition: int, error: Exception, seconds: float) -> None:
        if isinstance(error, TopicAheadOfDatabase):
            _log.error("relay stopped", topic=self._topic, partition=partition, reason=str(error))
        else:
            name, expected = type(error).__name__, is_outage(error)
            _log.warning(
                "relay waits", topic=self._topic, partition=partition, error=name, seconds=seconds, exc_info=None if expected else error
            )

    async def step(self, partition: int) -> int:
        """Publishes some of what is committed and not yet in the stream; says how many entries.

        Raises:
            TopicAheadOfDatabase: the stream is ahead of the database.
        """
        head = await self._log.head(self._topic, partition)
        own = (outbox.c.topic == self._topic, outbox.c.partition == partition)
        async with self._sessions.reading() as session:
            # The row of the stream's last entry, if it is still there, and those behind it.
            query = select(outbox.c.position, outbox.c.pack).where(*own, outbox.c.position >= head.ms).order_by(outbox.c.position)
            rows = (await session.execute(query.limit(_ROWS + 1))).all()
            known = (await self._committed(session)).get(partition, 0)
        if known < head.ms:
            message = f"the topic is at position {head.ms}, the database at {known}"
            raise TopicAheadOfDatabase(message)
        if rows and rows[0].position == head.ms:
            await self._compare(partition, head, rows[0].pack)
        rows = [row for row in rows if row.position > head.ms][:_ROWS]
        if not rows:
            self._published[partition] = head.ms
            return 0
        unpacked = [(row.position, row.pack, pb.Pack.FromString(row.pack)) for row in rows]
        parents = list(dict.fromkeys(record.traceparent for _, _, pack in unpacked for record in pack.records if record.traceparent))
        attributes: Mapping[str, str | int] = {Attribute.TOPIC: self._topic, Attribute.PARTITION: partition, Attribute.MESSAGES: len(rows)}
        with span(SpanName.PUBLISH, parent=parents[0] if parents else "", links=parents[1:], kind=SpanKind.PRODUCER, attributes=attributes):
            entries = [(position, pack, len(message.records)) for position, pack, message in unpacked]
            published = await self._log.publish(self._topic, partition, head=head, packs=entries)
        if not published:
            return 0
        self._published[partition] = rows[-1].position
        return len(rows)

    async def _behind(self, partitions: Collection[int]) -> Collection[int]:
        """Those of the partitions in which something was committed since; all, when the database does not say."""
        try:
            async with self._sessions.reading() as session:
                committed = await self._committed(session)
        except Exception as error:  # noqa: BLE001 (the partitions themselves say what is wrong)
            _log.debug("outbox not looked at", topic=self._topic, error=type(error).__name__)
            return partitions
        return [partition for partition in partitions if committed.get(partition, 0) != self._published.get(partition)]

    async def _committed(self, session: AsyncSession) -> Mapping[int, int]:
        """The last position that was given in each partition."""
        rows = await session.execute(select(outbox_heads.c.partition, outbox_heads.c.position).where(outbox_heads.c.topic == self._topic))
        return {row.partition: row.position for row in rows}

    async def _compare(self, partition: int, head: Position, ours: bytes) -> None:
        """A restored database gives positions anew that the topic has already: by then their messages are others."""
        entries = await self._log.read(self._topic, partition, Position(head.ms - 1, 0), limit=1, block_ms=0)
        if entries and entries[0].position == head and entries[0].pack != ours:
            message = f"at position {head.ms} the topic and the database hold different messages"
            raise TopicAheadOfDatabase(message)

    async def prune(self, partition: int) -> int:
        """Forgets rows that were published long ago, here and in the stream; says how many."""
        head = await self._log.head(self._topic, partition)
        # The newest entry stays: by it a consumer that is behind sees that it is, and a relay that the database is the one it knew.
        own = (outbox.c.topic == self._topic, outbox.c.partition == partition, outbox.c.position < head.ms)
        async with self._sessions.turns.follower(), self._sessions.begin() as session:
            old = (*own, outbox.c.created_at < datetime.now(UTC) - self._keep)
            oldest = select(outbox.c.position).where(*old).order_by(outbox.c.position).limit(_PRUNE_ROWS).subquery()
            last = await session.scalar(select(func.max(oldest.c.position)))
            if last is None:
                return 0
            gone = await rowcount(session, delete(outbox).where(*own, outbox.c.position <= last))
        await self._log.trim(self._topic, partition, Position(last, 0))
        return gone
