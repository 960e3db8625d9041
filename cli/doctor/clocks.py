"""Compares the clocks of this machine, of Redis and of the databases."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from time import time
from typing import Any, Final

from sqlalchemy import text

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject, backend_of
from kit.database.engine import Database

_TOLERATED_SECONDS: Final = 1.0
_ACTION: Final = "have all machines follow the same time servers: `timedatectl` says whether one does"


async def clocks(subject: Subject, clock: Callable[[], float] = time) -> AsyncIterator[Finding]:
    """Finds clocks that differ by more than a second: offsets of the log, tokens and consents are compared by time."""
    shards = await subject.log.instances()
    servers = {"Redis" if len(shards) == 1 else f"shard {number} of Redis": _of_redis(redis) for number, redis in enumerate(shards, 1)}
    databases = [*subject.databases.values(), subject.keys]
    for database in databases:
        if backend_of(database) == "mysql":
            servers.setdefault(f"the database server at {database.engine.url.host}", _of_database(database))
    for name, ask in servers.items():
        before = clock()
        theirs = await ask()
        after = clock()
        off = theirs - (before + after) / 2
        if abs(off) - (after - before) / 2 > _TOLERATED_SECONDS:
            direction = "ahead of" if off > 0 else "slow against"
            yield Finding(what=f"the clock of {name} is {abs(off):,.1f} s {direction} this machine's", action=_ACTION)


def _of_redis(redis: Any) -> Callable[[], Awaitable[float]]:
    async def ask() -> float:
        seconds, microseconds = await redis.time()
        return seconds + microseconds / 1_000_000

    return ask


def _of_database(database: Database) -> Callable[[], Awaitable[float]]:
    async def ask() -> float:
        async with database.sessions.reading() as session:
            now: datetime | None = await session.scalar(text("SELECT UTC_TIMESTAMP(6)"))
        return now.replace(tzinfo=UTC).timestamp() if now else time()

    return ask
