"""Runs a command once a day while a local mesh runs, if the setting that it depends on is there."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

from cli.processes import last_lines, run_to_end

RETRY = timedelta(hours=1)
"""Pause after a failure."""
LONGEST_SLEEP = timedelta(hours=1)
"""The interval of looking at the clock: after a machine slept, the command is late by no more than this."""


class DailyCommand(NamedTuple):
    """A command of `pmp` that runs once a day."""

    arguments: tuple[str, ...]
    setting: str
    """The environment variable without which it does not run."""
    subject: str
    """What it is about, for the user: `exchange rates`."""
    failure: str
    """What has not happened when it fails: `exchange rates were not imported`."""
    due: Callable[[datetime], datetime]
    """Returns the first moment after another one at which it is due."""


class Daily:
    """Runs a command when the mesh is ready, and then whenever it is due; an hour after a failure it is tried again.

    Args:
        command: what runs.
        environment: the environment of the mesh: its databases, and the settings of the shop.
        log: the file for the command's output.
        report: shows the outcome of each run to the user.
    """

    def __init__(self, command: DailyCommand, environment: Mapping[str, str], log: Path, report: Callable[[str], None]) -> None:
        self._command = command
        self._environment = environment
        self._log = log
        self._report = report

    async def run(self) -> None:
        """Runs until it is cancelled; returns at once without the setting."""
        if not self._environment.get(self._command.setting):
            return
        while True:
            done = await self._once()
            now = datetime.now(UTC)
            await _sleep_until(self._command.due(now) if done else now + RETRY)

    async def _once(self) -> bool:
        status = await run_to_end((sys.executable, "-m", "cli", *self._command.arguments), self._environment, self._log)
        said = " ".join(last_lines(self._log, 1))
        self._report(f"{self._command.subject}: {said}" if status == 0 else f"{self._command.failure}, the next try is in an hour: {said}")
        return status == 0


async def _sleep_until(moment: datetime) -> None:
    while (left := moment - datetime.now(UTC)) > timedelta():  # noqa: ASYNC110 (a clock sets no event)
        await asyncio.sleep(min(left, LONGEST_SLEEP).total_seconds())
