"""The offsets that a consumer has committed, in its own database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, rowcount
from kit.log.streams import START, Offset, TopicPartition
from kit.log.tables import books
from kit.log.tables import offsets as table


class OffsetConflict(Exception):
    """Another consumer has processed these messages."""


async def locked(session: AsyncSession, topic: str, partition: int) -> Offset:
    """Returns the offset, locked until the transaction ends: a partition's books change under this lock."""
    stored = await session.scalar(select(table.c.position).where(*_own(topic, partition)).with_for_update())
    return START if stored is None else Offset.parse(stored)


async def load(sessions: Sessions, topic: str, partition: int) -> Offset:
    """Returns the offset; inserts the row where there is none yet."""
    async with sessions.reading() as session:
        stored = await session.scalar(select(table.c.position).where(*_own(topic, partition)))
    if stored is not None:
        return Offset.parse(stored)
    try:
        async with sessions.begin() as session:
            await session.execute(insert(table).values(topic=topic, partition=partition, position=str(START)))
    except IntegrityError:
        return await load(sessions, topic, partition)
    return START


async def advance(session: AsyncSession, topic: str, partition: int, old: Offset, new: Offset) -> None:
    """Commits an offset, as the first statement of the transaction that writes the effect.

    Raises:
        OffsetConflict: the stored offset is not `old` any more.
    """
    moved = await rowcount(session, update(table).where(*_own(topic, partition), table.c.position == str(old)).values(position=str(new)))
    if moved != 1:
        raise OffsetConflict


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


def _own(topic: str, partition: int) -> tuple[ColumnElement[bool], ...]:
    return table.c.topic == topic, table.c.partition == partition
