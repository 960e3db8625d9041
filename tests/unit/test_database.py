"""What goes into a database comes out as it was, on each kind of server."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
import uvloop
from sqlalchemy import delete, insert, select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database, open_database
from kit.database.group_commit import GroupCommit
from kit.database.transactions import transact, upsert
from kit.errors import NotFound, Overloaded, Unavailable
from kit.log.tables import offsets, outbox, outbox_heads
from kit.outages import is_outage
from kit.overload import expect

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


@pytest.mark.parametrize("count", [0, 1, 999, 1000, 1001, 2500])
async def test_all_rows_are_read_at_once_or_as_a_stream(ingestion_database: Database, count: int) -> None:
    sessions = ingestion_database.sessions
    async with sessions.begin() as session:
        rows = [{"topic": "t", "partition": number, "position": str(number)} for number in range(count)]
        if rows:
            await session.execute(insert(offsets), rows)
    query = select(offsets.c.partition).where(offsets.c.topic == "t").order_by(offsets.c.partition)
    async with sessions.reading() as session:
        assert list(await session.scalars(query)) == list(range(count))
        assert await session.scalar(query) == (0 if count else None)
        assert [number async for number in await session.stream_scalars(query)] == list(range(count))
        streamed = await session.stream_scalars(query)
        assert await anext(aiter(streamed), None) == (0 if count else None)
        await streamed.close()
    async with sessions.begin() as session:
        await session.execute(delete(offsets))


async def test_only_what_may_pass_is_outage(ingestion_database: Database, database_url: str) -> None:
    with pytest.raises((ProgrammingError, OperationalError)) as missing:
        async with ingestion_database.sessions() as session:
            await session.execute(text("SELECT * FROM nothing"))
    assert not is_outage(missing.value)
    row: dict[str, Any] = {"topic": "t", "partition": 0, "position": 1, "pack": b"", "created_at": datetime.now(UTC)}
    with pytest.raises(IntegrityError) as twice:
        async with ingestion_database.sessions.begin() as session:
            await session.execute(insert(outbox), [row, row])
    assert not is_outage(twice.value)
    nowhere = "mysql+aiomysql://mesh:mesh@127.0.0.1:1/x" if database_url.startswith("mysql") else "sqlite+aiosqlite:////nowhere/x.db"
    async with open_database(nowhere) as database:
        with pytest.raises(OperationalError) as unreachable:
            await database.check()
    assert is_outage(unreachable.value)


async def heads(database: Database) -> dict[int, int]:
    async with database.sessions() as session:
        rows = await session.execute(select(outbox_heads.c.partition, outbox_heads.c.position))
        return {row.partition: row.position for row in rows}


async def test_an_upsert_makes_rows_and_changes_those_that_are_there(ingestion_database: Database) -> None:
    for position in (1, 2):
        async with ingestion_database.sessions.begin() as session:
            await upsert(session, outbox_heads, [{"topic": "t", "partition": p, "position": p + position} for p in (3, 4, position)])
            await upsert(session, outbox_heads, [])
    assert await heads(ingestion_database) == {1: 2, 2: 4, 3: 5, 4: 6}


async def test_a_lost_race_is_run_again(ingestion_database: Database) -> None:
    """All of them find no row at first, and each of them counts."""

    async def count(session: AsyncSession) -> int:
        known = await session.scalar(select(outbox_heads.c.position).where(outbox_heads.c.partition == 7).with_for_update())
        if known is None:
            await asyncio.sleep(0.05)
            await session.execute(insert(outbox_heads).values(topic="t", partition=7, position=1))
        else:
            await upsert(session, outbox_heads, [{"topic": "t", "partition": 7, "position": known + 1}])
        return (known or 0) + 1

    counted = await asyncio.gather(*(transact(ingestion_database.sessions, count) for _ in range(6)))
    assert sorted(counted) == [1, 2, 3, 4, 5, 6]
    assert await heads(ingestion_database) == {7: 6}


async def test_what_is_no_race_is_not_run_again(ingestion_database: Database) -> None:
    runs: list[int] = []

    async def wrong(session: AsyncSession) -> None:
        runs.append(1)
        await session.execute(text("SELECT no_such_column FROM outbox"))

    with pytest.raises((OperationalError, ProgrammingError)):
        await transact(ingestion_database.sessions, wrong)
    assert len(runs) == 1


def test_a_write_on_a_closed_connection_may_succeed_later() -> None:
    """uvloop alone raises for it, and neither driver knows the error."""

    async def written_too_late() -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            _, writer = await asyncio.open_connection(*server.getsockname())
            writer.transport.abort()
            await asyncio.sleep(0)
            writer.writelines([b"PING"])

    with pytest.raises(RuntimeError) as closed:
        uvloop.run(written_too_late())
    assert is_outage(closed.value)
    assert not is_outage(RuntimeError("a defect"))


class _Ledger:
    """Notes work in a table, together; a name that starts with `bad` fails when its turn comes."""

    def __init__(self) -> None:
        self.companies: list[list[str]] = []

    async def __call__(self, session: AsyncSession, names: Sequence[str]) -> Sequence[str]:
        self.companies.append(list(names))
        for name in names:
            await session.execute(insert(outbox_heads).values(topic=name, partition=len(self.companies), position=1))
            if name.startswith("bad"):
                raise LookupError(name)
        return [name.upper() for name in names]


async def test_what_is_asked_for_at_once_shares_a_transaction(ingestion_database: Database) -> None:
    ledger = _Ledger()
    together = GroupCommit(ingestion_database.sessions, ledger)
    assert await asyncio.gather(*(together(name) for name in ("a", "b", "c"))) == ["A", "B", "C"]
    assert await together("d") == "D"
    assert ledger.companies == [["a", "b", "c"], ["d"]]


async def test_callers_who_ask_again_at_once_share_the_next_transaction(ingestion_database: Database) -> None:
    companies: list[int] = []

    async def do(_: AsyncSession, names: Sequence[str]) -> Sequence[str]:
        companies.append(len(names))
        await asyncio.sleep(0.1)
        return names

    async def caller(name: str) -> None:
        for _ in range(5):
            await together(name)
            await asyncio.sleep(0.001)

    together = GroupCommit(ingestion_database.sessions, do)
    early = asyncio.gather(*map(caller, "abcd"))
    await asyncio.sleep(0.05)
    await asyncio.gather(early, *map(caller, "efgh"))
    assert sum(companies) == 40
    assert len(companies) <= 8, "both halves take turns"


async def test_who_fails_in_company_fails_alone(ingestion_database: Database) -> None:
    ledger = _Ledger()
    together = GroupCommit(ingestion_database.sessions, ledger)
    a, bad, c = await asyncio.gather(*(together(name) for name in ("a", "bad", "c")), return_exceptions=True)
    assert (a, str(bad), c) == ("A", "bad", "C")
    assert isinstance(bad, LookupError)
    assert ledger.companies == [["a", "bad", "c"], ["a"], ["bad", "c"], ["bad"], ["c"]]
    async with ingestion_database.sessions() as session:
        stored = (await session.scalars(select(outbox_heads.c.topic).where(outbox_heads.c.topic.in_(["a", "bad", "c"])))).all()
    assert sorted(stored) == ["a", "c"]


async def test_one_of_hundred_that_fails_is_found_by_halving(ingestion_database: Database) -> None:
    ledger = _Ledger()
    together = GroupCommit(ingestion_database.sessions, ledger)
    names = [f"{number}" for number in range(100)]
    done = await asyncio.gather(*(together("bad" if name == "70" else name) for name in names), return_exceptions=True)
    assert [name for name, result in zip(names, done, strict=True) if result != name] == ["70"]
    assert len(ledger.companies) <= 15


async def test_work_of_one_caller_is_done_as_if_asked_for_one_by_one(ingestion_database: Database) -> None:
    async def do(_: AsyncSession, names: Sequence[str]) -> Sequence[str]:
        for name in names:
            if name in refusals:
                raise refusals[name]
        return [name.upper() for name in names]

    refusals: dict[str, Exception] = {"unknown": NotFound("unknown")}
    together = GroupCommit(ingestion_database.sessions, do)
    first, refused, last = await together.each(["a", "unknown", "c"])
    assert (first, str(refused), last) == ("A", "unknown", "C")
    assert isinstance(refused, NotFound)
    assert await together.each([]) == []
    for fault in (ConnectionResetError(), Overloaded("busy"), Unavailable("down"), LookupError("a defect")):
        refusals["fault"] = fault
        with pytest.raises(type(fault)):
            await together.each(["a", "unknown", "fault"])


async def test_work_of_one_key_has_no_company_of_its_own_kind(ingestion_database: Database) -> None:
    ledger = _Ledger()
    together = GroupCommit(ingestion_database.sessions, ledger, key=lambda name: name[0])
    await asyncio.gather(*(together(name) for name in ("a1", "a2", "b1", "a3")))
    assert ledger.companies == [["a1", "b1"], ["a2"], ["a3"]]


async def test_a_caller_that_goes_away_takes_only_itself_along(ingestion_database: Database) -> None:
    ledger = _Ledger()
    together = GroupCommit(ingestion_database.sessions, ledger)
    calls = [asyncio.create_task(together(name)) for name in ("a", "b", "c")]
    await asyncio.sleep(0)
    calls[1].cancel()
    done = await asyncio.gather(*calls, return_exceptions=True)
    assert (done[0], done[2]) == ("A", "C")
    assert isinstance(done[1], asyncio.CancelledError)
    assert await together("d") == "D"


async def test_an_outage_is_the_answer_to_all(ingestion_database: Database) -> None:
    tried: list[int] = []

    async def do(_: AsyncSession, names: Sequence[str]) -> Sequence[str]:
        tried.append(len(names))
        raise ConnectionResetError

    together = GroupCommit(ingestion_database.sessions, do)
    answers = await asyncio.gather(*(together(name) for name in ("a", "b")), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionResetError, ConnectionResetError]
    assert tried == [2]


async def test_work_that_would_be_done_too_late_is_not_begun(ingestion_database: Database) -> None:
    done: list[str] = []

    async def do(_: AsyncSession, names: Sequence[str]) -> Sequence[str]:
        done.extend(names)
        await asyncio.sleep(0.3)
        return names

    async def late(name: str, seconds: float | None) -> str:
        expect(seconds)
        return await together(name)

    together = GroupCommit(ingestion_database.sessions, do)
    assert await together("a") == "a"
    with pytest.raises(Overloaded, match="nothing was kept"):
        await asyncio.create_task(late("b", 0.2))
    assert await asyncio.gather(late("c", 3600), late("d", None)) == ["c", "d"]
    assert done == ["a", "c", "d"]


async def test_one_slow_transaction_does_not_refuse_work_for_ever(ingestion_database: Database) -> None:
    slow = [3.0]

    async def do(_: AsyncSession, names: Sequence[str]) -> Sequence[str]:
        await asyncio.sleep(slow.pop() if slow else 0)
        return names

    async def late(name: str) -> str:
        expect(2.5)
        return await together(name)

    together = GroupCommit(ingestion_database.sessions, do)
    assert await together("a") == "a"
    with pytest.raises(Overloaded):
        await asyncio.create_task(late("b"))
    assert await asyncio.create_task(late("c")) == "c"


async def test_what_nobody_waits_for_is_done_after_the_calls(ingestion_database: Database) -> None:
    order: list[str] = []

    async def note(name: str, *, follows: bool) -> None:
        async def work(session: AsyncSession) -> None:
            await session.execute(text("SELECT 1"))
            order.append(name)

        await transact(ingestion_database.sessions, work, follows=follows)

    async with ingestion_database.sessions.turns.call():
        tasks = [asyncio.create_task(note("follower", follows=True))]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(note("call", follows=False)))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert order == ["call", "follower"]


async def test_nothing_of_an_overwritten_row_stays_in_sqlites_files(tmp_path: Path) -> None:
    """Rows that move to other pages leave copies, which overwriting them does not reach."""
    async with open_database(f"sqlite+aiosqlite:///{tmp_path / 'rows.db'}") as database:
        async with database.engine.begin() as connection:
            await connection.execute(text("CREATE TABLE sessions (id INTEGER PRIMARY KEY, name TEXT)"))
            await connection.execute(text("CREATE INDEX by_name ON sessions (name)"))
        async with database.engine.begin() as connection:
            names = [*(f"session-of-ada-{1815 + 37 * (number % 2)}" for number in range(300)), *["session-of-bob"] * 400]
            await connection.execute(text("INSERT INTO sessions (name) VALUES (:name)"), [{"name": name} for name in names])
        async with database.engine.begin() as connection:
            await connection.execute(text("UPDATE sessions SET name = 'x' WHERE name LIKE 'session-of-ada%'"))
        assert await database.scrub()
    content = _content(tmp_path)
    assert (b"session-of-bob" in content, b"session-of-ada" in content) == (True, False)


def _content(folder: Path) -> bytes:
    return b"".join(path.read_bytes() for path in folder.iterdir())
