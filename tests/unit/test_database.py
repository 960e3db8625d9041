"""What goes into a database comes out as it was, on each kind of server."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from sqlalchemy import insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError

from kit.database import Database, is_transient, open_database
from kit.log.tables import outbox

TEXTS = [
    "",
    "plain",
    "it's",
    "''",
    "\\",
    "\\'",
    "a\\\\'b",
    '"double"',
    "%s %(x)s :x",
    "\0\n\r\t\x1a",
    "naïve ✓ 🎓",
    "'; DROP TABLE events; --",
]


@pytest.mark.parametrize("value", TEXTS)
async def test_a_text_comes_back_as_it_was(ingestion_database: Database, value: str) -> None:
    async with ingestion_database.sessions() as session:
        assert await session.scalar(text("SELECT :value"), {"value": value}) == value


async def test_bytes_and_times_come_back_as_they_were(ingestion_database: Database) -> None:
    when = datetime(2026, 3, 29, 3, 30, 15, 123456, tzinfo=timezone(timedelta(hours=2)))
    row: dict[str, Any] = {"topic": "t'", "partition": 0, "position": 2**53, "pack": bytes(range(256)), "created_at": when}
    async with ingestion_database.sessions.begin() as session:
        await session.execute(insert(outbox), [row, {**row, "position": 2**53 + 1, "pack": b""}])
    async with ingestion_database.sessions() as session:
        first, second = (await session.execute(select(outbox).order_by(outbox.c.position))).all()
    assert (first.topic, first.position, first.pack, first.created_at) == ("t'", 2**53, bytes(range(256)), when)
    assert first.created_at.tzinfo is UTC
    assert second.pack == b""


async def test_only_what_may_pass_is_transient(ingestion_database: Database, database_url: str) -> None:
    with pytest.raises((ProgrammingError, OperationalError)) as missing:
        async with ingestion_database.sessions() as session:
            await session.execute(text("SELECT * FROM nothing"))
    assert not is_transient(missing.value)
    row: dict[str, Any] = {"topic": "t", "partition": 0, "position": 1, "pack": b"", "created_at": datetime.now(UTC)}
    with pytest.raises(IntegrityError) as twice:
        async with ingestion_database.sessions.begin() as session:
            await session.execute(insert(outbox), [row, row])
    assert not is_transient(twice.value)
    nowhere = "mysql+aiomysql://mesh:mesh@127.0.0.1:1/x" if database_url.startswith("mysql") else "sqlite+aiosqlite:////nowhere/x.db"
    async with open_database(nowhere) as database:
        with pytest.raises(OperationalError) as unreachable:
            await database.check()
    assert is_transient(unreachable.value)
