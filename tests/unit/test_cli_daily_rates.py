"""Exchange rates are imported once a day, again in an hour after a failure, and only if it is said where they are."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.daily_rates import DailyRates, next_publication
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
    assert next_publication(datetime.fromisoformat(now)) == datetime.fromisoformat(then)
    assert next_publication(datetime.now(UTC)) > datetime.now(UTC)


async def test_nothing_is_fetched_unless_it_is_said_where(tmp_path: Path) -> None:
    await DailyRates({**os.environ, "PMP_SITE_RATES_URL": ""}, tmp_path / "rates.log", lambda _: None).run()
    assert not (tmp_path / "rates.log").exists()


async def test_a_failed_import_is_reported(tmp_path: Path) -> None:
    said: asyncio.Queue[str] = asyncio.Queue()
    databases = f"sqlite+aiosqlite:///{tmp_path}/{{service}}.db"
    environment = {**os.environ, "PMP_SITE_RATES_URL": f"http://127.0.0.1:{free_port()}/rates.csv", "PMP_DATABASE_URL": databases}
    run = asyncio.create_task(DailyRates(environment, tmp_path / "rates.log", said.put_nowait).run())
    text = await said.get()
    run.cancel()
    assert text.startswith("exchange rates were not imported, the next try is in an hour: pmp: http://127.0.0.1:")
    assert "can't be read" in text
