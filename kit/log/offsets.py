"""The offsets that a consumer has committed, in its own database."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Final

from sqlalchemy import ColumnElement, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions
from kit.log.streams import START, Offset, TopicPartition
from kit.log.tables import books
from kit.log.tables import offsets as table

_FOUND: Final = (
    select(table.c.partition, table.c.position)
    .where(table.c.topic == bindparam("own_topic"), table.c.partition.in_(bindparam("own_partitions", expanding=True)))
    .order_by(table.c.partition)
)
_LOCKED: Final = _FOUND.with_for_update()
_ADVANCE: Final = (
    update(table)
    .where(table.c.topic == bindparam("own_topic"), table.c.partition == bindparam("own_partition"))
    .values(position=bindparam("new"))
)


async def locked(session: AsyncSession, topic: str, partition: int) -> Offset:
    """Returns the offset, locked until the transaction ends: a partition's books change under this lock."""
    stored = await session.scalar(select(table.c.position).where(*_own(topic, partition)).with_for_update())
    return START if stored is None else Offset.parse(stored)


async def load(sessions: Sessions, topic: str, partitions: Collection[int]) -> Mapping[int, Offset]:
    """Returns the offsets of partitions; inserts rows where there are none yet."""
    async with sessions.reading() as session:
        stored = await _stored(session, topic, partitions, lock=False)
    for partition in set(partitions) - stored.keys():
        try:
            async with sessions.begin() as session:
                await session.execute(insert(table).values(topic=topic, partition=partition, position=str(START)))
        except IntegrityError:
            return await load(sessions, topic, partitions)
    return {partition: stored.get(partition, START) for partition in partitions}


async def advance(session: AsyncSession, topic: str, steps: Mapping[int, tuple[Offset, Offset]]) -> set[int]:
    """Commits offsets of partitions, from an old one to a new one, at the beginning of the transaction that writes the effect.

    Returns:
        The partitions whose stored offset was the old one. Of the others, another consumer has processed the messages.
    """
    stored = await _stored(session, topic, steps, lock=True)
    moved = {partition for partition, (old, _) in steps.items() if stored.get(partition) == old}
    if moved:
        rows = [{"own_topic": topic, "own_partition": each, "new": str(steps[each][1])} for each in sorted(moved)]
        await session.execute(_ADVANCE, rows)
    return moved


async def floors(sessions: Sessions, topic: str) -> Mapping[TopicPartition, Offset]:
    """Returns the offset of each partition of a topic: a new connection to the log appends nothing before it."""
    async with sessions.reading() as session:
        known = await session.execute(select(table.c.partition, table.c.position).where(table.c.topic == topic))
        return {TopicPartition(topic, row.partition): Offset.parse(row.position) for row in known}


async def topics(session: AsyncSession) -> Sequence[str]:
    """Returns the topics of other services that this database is a consumer of: not a raw log, which keeps books."""
    raw = select(books.c.topic)
    return (await session.scalars(select(table.c.topic).where(table.c.topic.not_in(raw)).distinct().order_by(table.c.topic))).all()


async def rewind(session: AsyncSession, topic: str) -> None:
    """Resets the consumer of a topic to the beginning, from where it reads the publisher's history again."""
    await session.execute(update(table).where(table.c.topic == topic).values(position=str(START)))


async def _stored(session: AsyncSession, topic: str, partitions: Collection[int], *, lock: bool) -> Mapping[int, Offset]:
    found = await session.execute(_LOCKED if lock else _FOUND, {"own_topic": topic, "own_partitions": sorted(partitions)})
    return {row.partition: Offset.parse(row.position) for row in found}


def _own(topic: str, partition: int) -> tuple[ColumnElement[bool], ...]:
    return table.c.topic == topic, table.c.partition == partition
