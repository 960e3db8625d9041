"""Commands that a local mesh runs once a day."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cli.processes import last_lines, run_to_end

RETRY = timedelta(hours=1)
"""Pause after a command that failed."""
LONGEST_SLEEP = timedelta(hours=1)
"""The interval of looking at the clock: after a machine slept, a command is late by no more than this."""


@dataclass(frozen=True, slots=True)
class DailyCommand:
    """A command of `pmp` that is run once a day."""

    arguments: Sequence[str]
    """Of `pmp`."""
    setting: str
    """The variable without which it is not run."""
    due: Callable[[datetime, Mapping[str, str]], datetime]
    """Returns the first moment after another one at which it is to be run, given the environment of the mesh."""
    done: str
    """What the user reads before the last line of its output when it has run."""
    failed: str
    """What the user reads when it failed, before the last line of its output."""
    statuses: frozenset[int] = frozenset({0})
    """Exit statuses of a command that has run."""
    wait: timedelta = timedelta()
    """Pause before it is run for the first time."""
    at_start: bool = True
    """Whether it is run when the mesh starts; otherwise first when it is due."""

    async def run(self, environment: Mapping[str, str], log: Path, report: Callable[[str], None]) -> None:
        """Runs it until it is cancelled; returns at once where its setting is missing.

        Args:
            environment: the environment of the mesh.
            log: the file for its output.
            report: shows the outcome of each run to the user.
        """
        if not environment.get(self.setting):
            return
        now = datetime.now(UTC)
        await _sleep_until(now + self.wait if self.at_start else self.due(now, environment))
        while True:
            try:
                is_done = await run_to_end((sys.executable, "-m", "cli", *self.arguments), environment, log) in self.statuses
                outcome = " ".join(last_lines(log, 1))
            except OSError as error:  # it could not be started: the disk is full, or there are too many processes
                is_done, outcome = False, str(error)
            report(f"{self.done if is_done else self.failed}: {outcome}")
            now = datetime.now(UTC)
            await _sleep_until(self.due(now, environment) if is_done else now + RETRY)


def every_day_at(time_of_day: timedelta) -> Callable[[datetime, Mapping[str, str]], datetime]:
    """Returns what `DailyCommand.due` is for a time of day, UTC."""

    def due(now: datetime, _environment: Mapping[str, str]) -> datetime:
        today = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0) + time_of_day
        return today if today > now else today + timedelta(days=1)

    return due


async def _sleep_until(moment: datetime) -> None:
    while (left := moment - datetime.now(UTC)) > timedelta():  # noqa: ASYNC110 (a clock sets no event)
        await asyncio.sleep(min(left, LONGEST_SLEEP).total_seconds())
