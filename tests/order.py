"""The longest modules first, so that no long one runs alone at the end."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest

RECORD = Path(__file__).with_name("durations.json")
"""Recorded duration of each module in seconds, the longest first."""
UNKNOWN_SECONDS = 60.0
"""Assumed for unknown modules, which may be long."""


def sort(items: list[pytest.Item]) -> None:
    """Sorts the modules into the order in which they are scheduled; the order within each is kept."""
    seconds: dict[str, float] = json.loads(RECORD.read_text())
    items.sort(key=lambda item: -seconds.get(_module(item.nodeid), UNKNOWN_SECONDS))


class Recorder:
    """Measures the duration of each module, and stores it at the end."""

    def __init__(self) -> None:
        self._seconds: Counter[str] = Counter()

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[_module(report.nodeid)] += report.duration  # pyright: ignore[reportArgumentType]  (seconds)

    def pytest_sessionfinish(self) -> None:
        known: dict[str, float] = json.loads(RECORD.read_text())
        now = {module: round(seconds, 1) for module, seconds in self._seconds.items()}
        kept = {module: seconds for module, seconds in (known | now).items() if (RECORD.parents[1] / module).exists()}
        RECORD.write_text(json.dumps(dict(sorted(kept.items(), key=lambda each: -each[1])), indent=1) + "\n")


def _module(nodeid: str) -> str:
    return nodeid.partition("::")[0]
