"""The logs of fixtures' processes, for the report of a failed test."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

LINES = 30
"""Maximum for each log."""
_known: dict[Path, int] = {}
"""Logs, and the size of each when the test began."""
_ended: set[Path] = set()
"""Logs whose process has ended, which are irrelevant to the next test."""


def follow(log: Path) -> None:
    """From now on a failed test shows what was written to this log, or to the logs of this folder."""
    _ended.discard(log)
    for each in _files(log):
        _known.setdefault(each, _length(each))
    _known.setdefault(log, 0)


def leave(log: Path) -> None:
    """Marks the end of its process."""
    _ended.add(log)


@contextmanager
def followed(*logs: Path) -> Generator[None]:
    """Follows logs until the block ends."""
    for log in logs:
        follow(log)
    try:
        yield
    finally:
        for log in logs:
            leave(log)


def begin() -> None:
    """Marks the beginning of a test."""
    for log in _ended:
        for each in [known for known in _known if known == log or log in known.parents]:
            del _known[each]
    _ended.clear()
    for log in list(_known):
        for each in _files(log):
            _known[each] = _length(each)


def attach(report: pytest.TestReport) -> None:
    """Adds what was written since the test began to its report."""
    for each in sorted({file for log in _known for file in _files(log)}):
        lines = _since(each, _known.get(each, 0)).splitlines()
        if lines:
            report.sections.append((f"{each} (its last {min(len(lines), LINES)} lines)", "\n".join(lines[-LINES:])))


def _files(log: Path) -> Iterator[Path]:
    return log.glob("*.log") if log.is_dir() else iter([log])


def _length(log: Path) -> int:
    return log.stat().st_size if log.is_file() else 0


def _since(log: Path, start: int) -> str:
    if not log.is_file():
        return ""
    with log.open("rb") as file:
        # A rotated log starts over.
        file.seek(start if start <= _length(log) else 0)
        return file.read().decode(errors="replace")
