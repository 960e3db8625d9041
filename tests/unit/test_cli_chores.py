"""Rates are imported and the shop is compared once a day, again in an hour after a failure, and only if it is said where they are."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from cli.chores import BACKUP, CHORES, COMPARISON, RATES
from tests.receiver import SECRET
from tests.servers import free_port


@pytest.mark.parametrize(
    ("now", "then"),
    [
        ("2026-07-01T15:29:59+00:00", "2026-07-01T15:30:00+00:00"),
        ("2026-07-01T15:30:00+00:00", "2026-07-02T15:30:00+00:00"),
        ("2026-12-31T23:00:00-05:00", "2027-01-01T15:30:00+00:00"),
    ],
)
def test_the_next_rates_are_those_of_the_afternoon(now: str, then: str) -> None:
    assert RATES.due(datetime.fromisoformat(now), {}) == datetime.fromisoformat(then)
    assert all(each.due(datetime.now(UTC), {}) > datetime.now(UTC) for each in CHORES.values())


@pytest.mark.parametrize("name", CHORES)
async def test_nothing_is_fetched_unless_it_is_said_where(name: str, tmp_path: Path) -> None:
    await CHORES[name].run({**os.environ, CHORES[name].setting: ""}, tmp_path / "chore.log", lambda _: None)
    assert not (tmp_path / "chore.log").exists()


async def test_a_start_makes_no_backup(tmp_path: Path) -> None:
    """A mesh that is restarted often would have kept backups of one day alone."""
    for command in (BACKUP, replace(BACKUP, at_start=True)):
        run = asyncio.create_task(command.run({**os.environ, "PMP_BACKUPS": str(tmp_path)}, tmp_path / "backup.log", lambda _: None))
        await asyncio.sleep(0.2)
        run.cancel()
        assert (tmp_path / "backup.log").exists() is command.at_start


async def test_a_failed_import_is_reported(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    databases = f"sqlite+aiosqlite:///{tmp_path}/{{service}}.db"
    environment = {**os.environ, "PMP_SITE_RATES_URL": f"http://127.0.0.1:{free_port()}/rates.csv", "PMP_DATABASE_URL": databases}
    run = asyncio.create_task(RATES.run(environment, tmp_path / "rates.log", said.put_nowait))
    text = await said.get()
    run.cancel()
    assert text.startswith("exchange rates were not imported, the next try is in an hour: pmp: http://127.0.0.1:")
    assert "can't be read" in text


async def test_a_command_that_can_not_be_started_is_reported_and_tried_again(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    environment = {**os.environ, "PMP_SITE_RATES_URL": "http://shop.example/rates.csv"}
    run = asyncio.create_task(RATES.run(environment, tmp_path / "no folder" / "rates.log", said.put_nowait))
    text = await said.get()
    assert text.startswith("exchange rates were not imported, the next try is in an hour: ")
    assert not run.done()
    run.cancel()


async def test_a_failed_comparison_is_reported(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    environment = {**os.environ, "PMP_SITE_ORDERS_URL": "http://shop.example/wp-json/pmp/v1/orders", "PMP_SITE_ERASURE_SECRET": SECRET}
    at_once = replace(COMPARISON, wait=timedelta())
    run = asyncio.create_task(at_once.run(environment, tmp_path / "reconcile.log", said.put_nowait))
    text = await said.get()
    run.cancel()
    assert text.startswith("the ledger was not compared with the shop, the next try is in an hour: ")
    assert text.endswith("read on the way")
