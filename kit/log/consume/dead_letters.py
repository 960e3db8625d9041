"""Dead letters: messages that were set aside for an operator to decide on.

A dead letter is `dead` until an operator marks it to be retried or drops it. The consumer retries it with its current handler;
the dead letter and its count in the books move in the transaction of its effect.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from pmp.log.v1 import log_pb2 as pb
from sqlalchemy import RowMapping, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import rowcount
from kit.log.streams import Delivery
from kit.log.tables import dead_letters as table

DEAD: Final = "dead"
RETRYING: Final = "retrying"
DROPPED: Final = "dropped"

_AT_ONCE: Final = 100


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was set aside."""

    id: int
    topic: str
    partition: int
    position: str
    ordinal: int
    hour: int
    record: pb.Record
    reason: str
    state: str
    created_at: datetime


async def add(session: AsyncSession, letters: Sequence[tuple[Delivery, str]]) -> None:
    """Sets messages aside, each with its reason."""
    if letters:
        now = datetime.now(UTC)
        rows = [
            {
                "topic": delivery.topic,
                "partition": delivery.partition,
                "position": str(delivery.offset),
                "ordinal": delivery.ordinal,
                "hour": delivery.hour,
                "type": delivery.record.type,
                "payload": delivery.record.payload,
                "traceparent": delivery.record.traceparent,
                "reason": reason[:255],
                "state": DEAD,
                "created_at": now,
            }
            for delivery, reason in letters
        ]
        await session.execute(insert(table), rows)


async def marked(session: AsyncSession, topic: str, partition: int) -> Sequence[DeadLetter]:
    """Returns the dead letters of a partition that wait for their retry, oldest first."""
    where = (table.c.state == RETRYING, table.c.topic == topic, table.c.partition == partition)
    rows = await session.execute(select(table).where(*where).order_by(table.c.id).limit(_AT_ONCE).with_for_update())
    return [_letter(row) for row in rows.mappings()]


async def marked_partitions(session: AsyncSession, topic: str) -> set[int]:
    """Returns the partitions in which dead letters wait for their retry."""
    return set(await session.scalars(select(table.c.partition).where(table.c.state == RETRYING, table.c.topic == topic).distinct()))


async def keep(session: AsyncSession, letter: int, reason: str) -> None:
    """Records that a retry failed."""
    await session.execute(update(table).where(table.c.id == letter).values(state=DEAD, reason=reason[:255]))


async def remove(session: AsyncSession, letter: int) -> None:
    """Removes a dead letter whose retry succeeded."""
    await session.execute(delete(table).where(table.c.id == letter))


async def find(session: AsyncSession, *, after: int = 0, limit: int = _AT_ONCE) -> Sequence[DeadLetter]:
    """Returns dead letters of all topics after an id, oldest first."""
    rows = await session.execute(select(table).where(table.c.id > after).order_by(table.c.id).limit(limit))
    return [_letter(row) for row in rows.mappings()]


async def get(session: AsyncSession, letter: int) -> DeadLetter | None:
    """Returns a dead letter; None where there is none."""
    row = (await session.execute(select(table).where(table.c.id == letter))).mappings().one_or_none()
    return _letter(row) if row else None


async def mark(session: AsyncSession, state: str, ids: Sequence[int] | None) -> int:
    """Marks dead letters (None: all that are `dead`) as `retrying` or `dropped`. The consumer does the rest.

    Returns:
        The number of rows updated.
    """
    where = [table.c.state == DEAD] + ([] if ids is None else [table.c.id.in_(ids)])
    return await rowcount(session, update(table).where(*where).values(state=state))


async def count(session: AsyncSession, state: str = DEAD) -> int:
    """Returns how many dead letters are in a state."""
    return await session.scalar(select(func.count()).select_from(table).where(table.c.state == state)) or 0


async def count_since(session: AsyncSession, topic: str, since: datetime, prefixes: Sequence[str]) -> int:
    """Returns how many messages of a topic were set aside since then, for reasons with one of these prefixes."""
    reasons = or_(*(table.c.reason.startswith(prefix, autoescape=True) for prefix in prefixes))
    query = select(func.count()).select_from(table).where(table.c.topic == topic, table.c.created_at >= since, reasons)
    return await session.scalar(query) or 0


def _letter(row: RowMapping) -> DeadLetter:
    fields: dict[str, Any] = {str(name): value for name, value in row.items()}
    record = pb.Record(type=fields.pop("type"), payload=fields.pop("payload"), traceparent=fields.pop("traceparent"))
    return DeadLetter(record=record, **fields)
