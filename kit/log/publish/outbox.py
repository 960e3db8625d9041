"""The outbox: a message is a row committed with the change it reports.

Offsets are consecutive per topic and partition, and they are the ids of the stream's entries.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Final

import structlog
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy import and_, bindparam, delete, func, insert, or_, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, upsert
from kit.log.packs import packs
from kit.log.runner import wait_until_set
from kit.log.streams import Offset, StreamLog
from kit.log.tables import outbox, outbox_heads

_log = structlog.get_logger(__name__)

_ASSIGNED: Final = select(outbox_heads.c.partition, outbox_heads.c.position).where(outbox_heads.c.topic == bindparam("own_topic"))
_INSERT: Final = insert(outbox)
_HEADS: Final = (
    select(outbox_heads.c.partition, outbox_heads.c.position)
    .where(outbox_heads.c.topic == bindparam("own_topic"), outbox_heads.c.partition.in_(bindparam("own_partitions", expanding=True)))
    .order_by(outbox_heads.c.partition)
    .with_for_update()
)
_PACK_MESSAGES: Final = 128
"""An entry is the least that a consumer applies in one transaction."""


class Outbox:
    """The messages that a service publishes on its topic."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self._committed = asyncio.Event()

    async def add(self, session: AsyncSession, partition: int, records: Sequence[pb.Record]) -> Sequence[int]:
        """Writes messages into the caller's transaction, in order.

        The partition's offsets stay locked until the transaction ends, so that they are consecutive.

        Returns:
            The offset of each message.
        """
        return (await self.add_to_partitions(session, {partition: records}))[partition]

    async def add_to_partitions(self, session: AsyncSession, records: Mapping[int, Sequence[pb.Record]]) -> Mapping[int, Sequence[int]]:
        """Writes the messages of several partitions as `add` does, in as few statements as for one."""
        packed = {
            partition: packs([record.SerializeToString() for record in messages], _PACK_MESSAGES)
            for partition, messages in sorted(records.items())
        }
        first = await self._insert(session, {partition: [pack for pack, _ in some] for partition, some in packed.items()})
        return {
            partition: [offset for offset, (_, count) in enumerate(some, first[partition]) for _ in range(count)]
            for partition, some in packed.items()
        }

    async def purge(self, sessions: Sessions, log: StreamLog, partition: int, through: int) -> int:
        """Deletes what was published up to an offset from the outbox and from its stream.

        The newest entry of a stream has to stay. Where it is one of those to delete, an empty one is added after it; they are
        deleted when the relay has published that one and this is called again.

        Returns:
            The number of entries that are still to be deleted.
        """
        own = (outbox.c.topic == self.topic, outbox.c.partition == partition, outbox.c.position <= through)
        async with sessions.begin() as session:
            head = (await self._heads(session, [partition])).get(partition, 0)
            if await session.scalar(select(func.count()).where(*own)) and head <= through:
                await self._insert(session, {partition: [pb.Pack().SerializeToString()]})
        self.wake()
        last = min(through, (await log.head(self.topic, partition)).ms - 1)
        async with sessions.begin() as session:
            await session.execute(delete(outbox).where(*own, outbox.c.position <= last))
            left = await session.scalar(select(func.count()).where(*own)) or 0
        if last > 0:
            await log.trim(self.topic, partition, Offset(last, 0))
        return left

    def wake(self) -> None:
        """Signals that a transaction was committed, so that the relay need not wait for its next poll."""
        self._committed.set()

    async def woken(self, seconds: float) -> None:
        """Waits for `wake`, at most so long."""
        if await wait_until_set(self._committed, seconds):
            self._committed.clear()

    async def _insert(self, session: AsyncSession, packs_of: Mapping[int, Sequence[bytes]]) -> Mapping[int, int]:
        """Inserts entries of partitions, and returns the first offset of each."""
        heads = await self._heads(session, packs_of)
        first = {partition: heads.get(partition, 0) + 1 for partition in packs_of}
        now = datetime.now(UTC)
        rows = [
            {"topic": self.topic, "partition": partition, "position": offset, "pack": pack, "created_at": now}
            for partition, several in packs_of.items()
            for offset, pack in enumerate(several, first[partition])
        ]
        if rows:
            await session.execute(_INSERT, rows)
        ends = {partition: first[partition] + len(several) - 1 for partition, several in packs_of.items() if several}
        await upsert(session, outbox_heads, [{"topic": self.topic, "partition": p, "position": end} for p, end in ends.items()])
        return first

    async def _heads(self, session: AsyncSession, partitions: Collection[int]) -> Mapping[int, int]:
        """The last offsets that were assigned, locked. Two first messages of a partition are kept apart by the outbox's own key."""
        found = await session.execute(_HEADS, {"own_topic": self.topic, "own_partitions": sorted(partitions)})
        return {row.partition: row.position for row in found}


async def prepare_heads(sessions: Sessions, topic: str, partitions: int) -> None:
    """Inserts the rows that hold the last offsets, so that no two first messages race for them."""
    async with sessions.reading() as session:
        known = await assigned(session, topic)
    for partition in set(range(partitions)) - known.keys():
        try:
            async with sessions.begin() as session:
                await session.execute(insert(outbox_heads).values(topic=topic, partition=partition, position=0))
        except IntegrityError:
            _log.debug("head made by another process", topic=topic, partition=partition)


async def count_partitions(session: AsyncSession, topic: str) -> int:
    """The number of partitions that `prepare_heads` made for a topic; 0 when its service has never run."""
    return len(await assigned(session, topic))


async def first_committed_at(session: AsyncSession, topic: str, after: Mapping[int, int]) -> datetime | None:
    """Returns when the oldest of the entries was written that follow an offset of each partition; None where none do."""
    following = [and_(outbox.c.partition == partition, outbox.c.position == offset + 1) for partition, offset in sorted(after.items())]
    return await session.scalar(select(func.min(outbox.c.created_at)).where(outbox.c.topic == topic, or_(*following)))


async def assigned(session: AsyncSession, topic: str) -> Mapping[int, int]:
    """Returns the last offset that was assigned in each partition of a topic."""
    rows = await session.execute(_ASSIGNED, {"own_topic": topic})
    return {row.partition: row.position for row in rows}
