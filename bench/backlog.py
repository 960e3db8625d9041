"""The backlog of a mesh: messages that are not yet stored, published or applied."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager

from sqlalchemy import select

from bench.servers import BenchFailed
from cli.layout import databases
from cli.state import MeshState
from kit.database.engine import Database, open_database
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Offset
from kit.log.tables import offsets, outbox_heads
from services.ingestion.messages import RAW_TOPIC

LONGEST_SECONDS = 900.0
"""Timeout for the services to catch up."""
_POLL_SECONDS = 0.25


class Backlog:
    """The lag of all consumers and relays of a mesh together."""

    def __init__(self, log: RedisLog, databases: Mapping[str, Database], partitions: int) -> None:
        self._log = log
        self.databases = databases
        self._partitions = partitions

    async def count(self) -> int:
        """Messages of the raw log that are not stored, and entries of topics that are not published or not applied."""
        positions: dict[tuple[str, str, int], Offset] = {}
        published: dict[tuple[str, int], int] = {}
        for name, database in self.databases.items():
            async with database.sessions.reading() as session:
                for row in await session.execute(select(offsets)):
                    positions[name, row.topic, row.partition] = Offset.parse(row.position)
                for row in await session.execute(select(outbox_heads)):
                    published[row.topic, row.partition] = row.position
        raw = sum([await self._raw(p, positions.get(("ingestion", RAW_TOPIC, p), START)) for p in range(self._partitions)])
        heads = {each: (await self._log.head(*each)).ms for each in published}
        unpublished = sum(max(0, position - heads[each]) for each, position in published.items())
        lags = [heads[topic, p] - position.ms for (_, topic, p), position in positions.items() if (topic, p) in heads]
        return raw + unpublished + sum(each for each in lags if each > 0)

    async def drained(self) -> float:
        """Waits until nothing is left, and returns the seconds it took.

        Raises:
            BenchFailed: the services do not catch up.
        """
        started = time.monotonic()
        while left := await self.count():
            if time.monotonic() - started > LONGEST_SECONDS:
                raise BenchFailed(f"the services do not catch up: {left} messages are left")
            await asyncio.sleep(_POLL_SECONDS)
        return time.monotonic() - started

    async def _raw(self, partition: int, after: Offset) -> int:
        return sum((await self._log.backlog(RAW_TOPIC, partition, after)).pending.values())


@asynccontextmanager
async def open_backlog(mesh: MeshState) -> AsyncGenerator[Backlog]:
    """Opens the log and the databases of a running mesh."""
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(open_log(mesh.redis_url))
        opened = {
            name: await stack.enter_async_context(open_database(mesh.database_url.replace("{service}", name))) for name in databases()
        }
        yield Backlog(log, opened, mesh.log_partitions)
