"""Imports exchange rates every day while a local mesh runs, if a source is configured."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.processes import last_lines, run_to_end

PUBLISHED = timedelta(hours=15, minutes=30)
"""Time of day, UTC, by which the European Central Bank has published the day's rates, in summer and in winter."""
RETRY = timedelta(hours=1)
"""Pause after an import that failed."""
LONGEST_SLEEP = timedelta(hours=1)
"""The interval of looking at the clock: after a machine slept, an import is late by no more than this."""


def next_publication(now: datetime) -> datetime:
    """The first moment after `now` at which a day's rates are published."""
    today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + PUBLISHED
    return today if today > now else today + timedelta(days=1)


class DailyRates:
    """Runs `pmp rates import` when the mesh is ready, and then once a day.

    Args:
        environment: the environment of the mesh: its databases and, in PMP_SITE_RATES_URL, the source of the rates.
        log: the file for the command's output.
        report: shows the outcome of each import to the user.
    """

    def __init__(self, environment: Mapping[str, str], log: Path, report: Callable[[str], None]) -> None:
        self._environment = environment
        self._log = log
        self._report = report

    async def run(self) -> None:
        """Imports until it is cancelled; returns at once when no source is configured."""
        if not self._environment.get("PMP_SITE_RATES_URL"):
            return
        while True:
            done = await self._import()
            now = datetime.now(UTC)
            await _sleep_until(next_publication(now) if done else now + RETRY)

    async def _import(self) -> bool:
        status = await run_to_end((sys.executable, "-m", "cli", "rates", "import"), self._environment, self._log)
        said = " ".join(last_lines(self._log, 1))
        self._report(f"exchange rates: {said}" if status == 0 else f"exchange rates were not imported, the next try is in an hour: {said}")
        return status == 0


async def _sleep_until(moment: datetime) -> None:
    while (left := moment - datetime.now(UTC)) > timedelta():  # noqa: ASYNC110 (a clock sets no event)
        await asyncio.sleep(min(left, LONGEST_SLEEP).total_seconds())
