"""The databases of the simulated mesh, and what its downstream reader does."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from pmp.ingestion.v1 import event_pb2 as pb
from sqlalchemy import Column, Integer, MetaData, Table, insert
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.columns import Id
from kit.database.engine import open_database
from kit.log.publish.outbox import prepare_heads
from kit.log.streams import Delivery
from kit.migrate import migrate
from services.ingestion.messages import TOPIC
from tests.simulation.inline_sqlite import Disk, Server, open_server

MOST_PARTITIONS: Final = 2

_metadata = MetaData()
projected = Table(
    "projected",
    _metadata,
    Column("partition", Integer, primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("ordinal", Integer, primary_key=True),
    Column("id", Id()),
)
"""The downstream reader's projection of the topic: a row for each message. A second effect violates the key."""


async def project(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler of the topic: a row for each message."""
    rows = [
        {
            "partition": delivery.partition,
            "position": delivery.offset.ms,
            "ordinal": delivery.ordinal,
            "id": pb.EventStored.FromString(delivery.record.payload).event.id,
        }
        for delivery in deliveries
    ]
    await session.execute(insert(projected), rows)


@dataclass(slots=True)
class Shop:
    """Databases and templates that many runs share."""

    folder: Path
    ingestion: Server
    reader: Server
    ingestion_template: bytes
    reader_template: bytes


@asynccontextmanager
async def open_shop(folder: Path) -> AsyncGenerator[Shop]:
    """Makes the databases once."""
    for name in ("ingestion", "reader"):
        await migrate("ingestion", f"sqlite+aiosqlite:///{folder}/{name}.db")
    async with open_database(f"sqlite+aiosqlite:///{folder}/reader.db") as database, database.engine.begin() as connection:
        await connection.run_sync(_metadata.create_all)
    async with open_server() as ingestion, open_server() as reader:
        templates = [Disk(folder, f"template-{name}", b"", _nowhere) for name in ("ingestion", "reader")]
        for disk, name in zip(templates, ("ingestion", "reader"), strict=True):
            disk.path.unlink()
            (folder / f"{name}.db").rename(disk.path)
        shop = Shop(folder, ingestion, reader, templates[0].snapshot(), templates[1].snapshot())
        await ingestion.use(templates[0])
        await prepare_heads(ingestion.database.sessions, TOPIC, MOST_PARTITIONS)
        await ingestion.database.engine.dispose()
        shop.ingestion_template = templates[0].snapshot()
        yield shop


async def _nowhere(_point: str) -> None:
    return
