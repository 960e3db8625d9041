"""A process knows what it appended, whatever the log confirmed and whatever it lost since."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from sqlalchemy import select, text
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.errors import Unavailable
from kit.log import books, offsets
from kit.log.consume.consumer import RawLogConsumer
from kit.log.intake.account import Account, Receipts, Sender
from kit.log.intake.appender import Appender
from kit.log.tables import log_counters
from tests.simulation.memory_log import MemoryLog, MemoryRedis
from tests.unit.mesh_log import HOUR, TOPIC, record, store_events

SENDER = Sender("shop", "site", HOUR * 3_600_000_000)


class Intake:
    """One process that appends to one partition; `breaks` names the point at which its next append breaks."""

    def __init__(self, database: Database) -> None:
        clock = iter(range(1_000, 1_000_000))
        self.server = MemoryRedis(lambda: next(clock))
        self.breaks = ""
        self.database = database
        self.kept: list[Receipts] = []
        self.account = Account(database.sessions, TOPIC, self._keep)
        log = MemoryLog(self.server, pause=self._pause, floors=lambda: offsets.floors(database.sessions, TOPIC))
        self.appender = Appender(log, TOPIC, 1, self.account, max_bytes=1 << 30, used_bytes=log.used_bytes, clock=lambda: HOUR * 3600)

    async def _pause(self, point: str) -> None:
        if self.breaks and point == self.breaks:
            self.breaks = ""
            raise ConnectionResetError

    async def _keep(self, _session: AsyncSession, receipts: Sequence[Receipts]) -> None:
        self.kept += receipts

    async def append(self, *ids: str) -> None:
        call = asyncio.create_task(
            self.appender.append([("user", record(name).SerializeToString()) for name in ids], ids=ids, sender=SENDER)
        )
        await asyncio.sleep(0)
        await self.appender.step()
        await call

    async def doubtful(self, *ids: str, after_effect: bool) -> None:
        self.breaks = "append done" if after_effect else "append to 0"
        with pytest.raises(Unavailable):
            await self.append(*ids)

    async def store(self) -> None:
        """The worker stores what lies in the log."""
        consumer = RawLogConsumer(self.database.sessions, MemoryLog(self.server), TOPIC, store_events)
        while await consumer.step(0):
            pass

    async def books(self) -> books.Account:
        [account] = (await books.accounts(self.database.sessions, MemoryLog(self.server), TOPIC, 1)).values()
        return account

    async def written(self) -> int:
        async with self.database.sessions() as session:
            own = log_counters.c.epoch == self.account.writer
            return await session.scalar(select(log_counters.c["count"]).where(own, log_counters.c.name == books.RECEIVED)) or 0

    def named(self) -> list[str]:
        return [name for receipts in self.kept for _, ids in receipts.calls for name in ids]


@pytest.fixture
def intake(ingestion_database: Database) -> Intake:
    return Intake(ingestion_database)


async def test_what_was_answered_and_lost_is_missing(intake: Intake) -> None:
    await intake.append("a", "b")
    await intake.account.write()
    intake.server.flush()
    await intake.append("c")
    intake.server.flush()
    await intake.append("d")
    await intake.account.write()
    await intake.store()
    account = await intake.books()
    assert (account.received, account.stored, account.missing) == (4, 1, 3)
    assert intake.named() == ["a", "b", "c", "d"]


async def test_what_was_not_confirmed_and_took_place_is_counted_once(intake: Intake) -> None:
    await intake.append("a")
    await intake.doubtful("b", after_effect=True)
    await intake.append("c")
    await intake.account.write()
    await intake.store()
    assert await intake.books() == books.Account(received=3, stored=3)
    assert intake.named() == ["a", "b", "c"]


async def test_what_was_not_confirmed_and_did_not_take_place_is_not_counted(intake: Intake) -> None:
    await intake.append("a")
    await intake.doubtful("b", after_effect=False)
    await intake.doubtful("b", after_effect=False)
    await intake.append("c")
    await intake.account.write()
    await intake.store()
    assert await intake.books() == books.Account(received=2, stored=2)
    assert intake.named() == ["a", "c"]


async def test_what_was_not_confirmed_and_is_stored_hides_no_loss_of_others(intake: Intake) -> None:
    await intake.append("a")
    backup = intake.server.snapshot()
    await intake.doubtful("b", after_effect=True)
    await intake.store()
    intake.server.restore(backup)
    await intake.append("c")
    await intake.account.write()
    intake.server.flush()
    account = await intake.books()
    assert (account.received, account.stored, account.missing) == (3, 2, 1)
    assert intake.named() == ["a", "b", "c"]


async def test_a_database_that_is_away_stops_no_append_and_is_written_later(intake: Intake) -> None:
    async with intake.database.sessions.begin() as session:
        await session.execute(text("ALTER TABLE log_counters RENAME TO away"))
    for name in ("a", "b"):
        await intake.append(name)
        with pytest.raises(Exception, match="log_counters"):
            await intake.account.write()
    async with intake.database.sessions.begin() as session:
        await session.execute(text("ALTER TABLE away RENAME TO log_counters"))
    await intake.append("c")
    await intake.account.write()
    assert await intake.written() == 3
    assert [name for receipts in intake.kept for _, ids in receipts.calls for name in ids] == ["a", "b", "c"]


async def test_the_end_of_a_process_is_written_down_and_nothing_at_rest(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.log.intake.account._EVERY_SECONDS", 0.01)
    running = asyncio.create_task(intake.appender.run())
    for name in ("a", "b"):
        await intake.appender.append([("user", record(name).SerializeToString())], ids=[name], sender=SENDER)
        for _ in range(500):
            await asyncio.sleep(0.01)
            if intake.named()[-1:] == [name]:
                break
    assert len(intake.kept) == 2
    monkeypatch.setattr("kit.log.intake.account._EVERY_SECONDS", 3600)
    await intake.appender.append([("user", record("c").SerializeToString())], ids=["c"], sender=SENDER)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert intake.named() == ["a", "b", "c"]
    assert await intake.written() == 3


async def test_of_more_than_can_be_kept_the_numbers_are_recorded(intake: Intake, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kit.log.intake.account._MOST_IDS", 2)
    monkeypatch.setattr("kit.log.intake.account._PAGE_IDS", 1)
    for name in ("a", "b", "c"):
        await intake.append(name)
    await intake.account.write()
    assert await intake.written() == 3
    assert intake.named() == ["a", "b"]
    await intake.append("d")
    await intake.account.write()
    assert intake.named() == ["a", "b", "d"]
