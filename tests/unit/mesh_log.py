"""What the tests of consumers, outbox and books share: messages, and a handler whose effect is a row."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from uuid import uuid4

from pmp.log.v1 import log_pb2 as pb
from sqlalchemy import insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.log import books
from kit.log.consume.handler import Outcome
from kit.log.packs import packs
from kit.log.streams import Append, Delivery, StreamLog, Turn
from services.ingestion.models import ProcessingRow
from tests.simulation.memory_log import MemoryLog, MemoryRedis

TOPIC = "intake"
HOUR = int(time.time() // 3600)
BAD = "bad"


def memory_log() -> MemoryLog:
    clock = iter(range(1_000, 1_000_000))
    return MemoryLog(MemoryRedis(lambda: next(clock)))


def record(text: str) -> pb.Record:
    return pb.Record(type="pmp.Test", payload=text.encode())


def packed(*texts: str) -> list[tuple[bytes, int]]:
    """Messages as they are in the log."""
    return packs([record(text).SerializeToString() for text in texts])


def group(partition: int, packs: Sequence[tuple[bytes, int]], hour: int, counters: Mapping[str, int]) -> Append:
    """What a process appends that does so once."""
    return Append(partition, packs, hour, counters, Turn(uuid4().hex, 0, 1))


async def append(log: StreamLog, *texts: str, partition: int = 0, hour: int = HOUR) -> None:
    """Appends messages as one group."""
    [verdict] = await log.append(TOPIC, [group(partition, packed(*texts), hour, {"received": len(texts)})])
    assert verdict is None


async def store(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler of a topic: writes a row for each message; those that are `bad` never succeed."""
    now = datetime.now(UTC)
    texts = [delivery.record.payload.decode() for delivery in deliveries]
    rows = [
        {"event_id": text, "outcome": "stored", "received_at": now, "processed_at": now, "log_position": str(delivery.offset)}
        for text, delivery in zip(texts, deliveries, strict=True)
    ]
    await session.execute(insert(ProcessingRow), rows)
    if BAD in texts:
        raise ValueError("an unreadable message")


async def store_events(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
    """Handler of the raw log: the same, with the outcome of each message."""
    await store(session, deliveries)
    return [books.STORED] * len(deliveries)


async def stored(database: Database) -> list[str]:
    """What the handler wrote, in order."""
    async with database.sessions() as session:
        return list(await session.scalars(select(ProcessingRow.event_id).order_by(ProcessingRow.id)))
