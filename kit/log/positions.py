"""How far a consumer has read each partition, in its own database."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import ColumnElement, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, rowcount
from kit.log.streams import START, Position
from kit.log.tables import books, offsets


class OffsetConflict(Exception):
    """Somebody else has processed these messages."""


async def locked(session: AsyncSession, topic: str, partition: int) -> Position:
    """The position, locked until the transaction ends: under this lock a partition's books change."""
    stored = await session.scalar(select(offsets.c.position).where(*_own(topic, partition)).with_for_update())
    return START if stored is None else Position.parse(stored)


async def load(sessions: Sessions, topic: str, partition: int) -> Position:
    """The position; the row is made where there is none yet."""
    async with sessions.reading() as session:
        stored = await session.scalar(select(offsets.c.position).where(*_own(topic, partition)))
    if stored is not None:
        return Position.parse(stored)
    try:
        async with sessions.begin() as session:
            await session.execute(insert(offsets).values(topic=topic, partition=partition, position=str(START)))
    except IntegrityError:
        return await load(sessions, topic, partition)
    return START


async def advance(session: AsyncSession, topic: str, partition: int, old: Position, new: Position) -> None:
    """Moves the position on, as the first statement of the transaction that writes the effect.

    Raises:
        OffsetConflict: it is not `old` any more.
    """
    moved = await rowcount(
        session, update(offsets).where(*_own(topic, partition), offsets.c.position == str(old)).values(position=str(new))
    )
    if moved != 1:
        raise OffsetConflict


async def topics(session: AsyncSession) -> Sequence[str]:
    """Topics of other services that this database is a consumer of. A raw log, which keeps books, is none of them."""
    raw = select(books.c.topic)
    return (await session.scalars(select(offsets.c.topic).where(offsets.c.topic.not_in(raw)).distinct().order_by(offsets.c.topic))).all()


async def rewind(session: AsyncSession, topic: str) -> None:
    """Sends the consumer of a topic back to its beginning, where it reads the publisher's history again."""
    await session.execute(update(offsets).where(offsets.c.topic == topic).values(position=str(START)))


def _own(topic: str, partition: int) -> tuple[ColumnElement[bool], ...]:
    return offsets.c.topic == topic, offsets.c.partition == partition
