"""Counts how far people get along a chain of steps: pure, one person after the other, in memory that only grows with the people.

A person's chain is one action for each of the first steps, each later than the previous one in the order of (timestamp, id),
and the last at most the window later than the first. It may start at any action that is the first step. A person reached as many
steps as the longest of their chains has.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final, NamedTuple, TypeAlias

from kit.errors import InvalidRequest, Violation

MOST_STEPS: Final = 20
_LONGEST_STEP: Final = 100
_MICROSECOND: Final = timedelta(microseconds=1)

_TIMESTAMP: Final = 26
"""Characters of a moment's timestamp."""

Actions: TypeAlias = Mapping[str, Sequence[str]]
"""What one person did: by action the moments at which it was done, in their order.

A moment is the timestamp in UTC as `2026-11-22 09:30:00.000000` and, without a space, the action's id. No two are equal.
"""


class Step(NamedTuple):
    """One step of a counted funnel."""

    name: str
    people: int
    """People who reached it."""
    drop_off: int
    """People who reached the previous step and not this one."""
    conversion: float
    """Share of the previous step's people who reached it; 1 for the first step."""
    median_time: timedelta | None
    """Time since the previous step; None for the first step, and if nobody reached it."""


def steps_of(texts: Iterable[str]) -> list[str]:
    """Parses the steps of a request: several texts, or one with commas.

    Raises:
        InvalidRequest: one is empty or too long, or there are too many.
    """
    steps = [step.strip() for text in texts for step in text.split(",")]
    if not all(steps):
        raise InvalidRequest([Violation("steps", "steps has an empty step")])
    if any(len(step) > _LONGEST_STEP for step in steps):
        raise InvalidRequest([Violation("steps", f"steps has a step of more than {_LONGEST_STEP} characters")])
    if len(steps) > MOST_STEPS:
        raise InvalidRequest([Violation("steps", f"steps has more than {MOST_STEPS} steps")])
    return steps


class Funnel:
    """Counts people along steps."""

    def __init__(self, steps: Sequence[str], window: timedelta | None = None) -> None:
        self._steps = steps
        self._window = window
        self._reached = [0] * len(steps)
        self._times = [array("q") for _ in steps]
        """By step, the microseconds that each person took from the previous one."""

    def add(self, people: Iterable[Actions]) -> None:
        """Adds people, each with all of their actions.

        A person's times are those of the first chain that reached the furthest step: of the chains that end there, the one that
        started last, each of its steps being the earliest possible.
        """
        for actions in people:
            steps = [actions.get(step, ()) for step in self._steps]
            before: datetime | None = None
            for position, moment in enumerate(_latest(_furthest(steps, self._window), steps)):
                at = _time(moment)
                self._reached[position] += 1
                if before is not None:
                    self._times[position].append((at - before) // _MICROSECOND)
                before = at

    def count(self) -> list[Step]:
        """Returns the counted steps."""
        counted: list[Step] = []
        for position, name in enumerate(self._steps):
            reached = self._reached[position]
            before = self._reached[position - 1] if position else reached
            share = 1.0 if not position else reached / before if before else 0.0
            counted.append(Step(name, reached, before - reached, share, _median(self._times[position])))
        return counted


def _furthest(steps: Sequence[Sequence[str]], window: timedelta | None) -> Sequence[str]:
    """Returns the chain that reached the furthest step first; of those that end there, any. Empty without an action that is the first step.

    The later a chain starts, the later it gets to each step. So what one lacks, all later ones lack, and what comes too late for
    the window of one also comes too late for all that start up to a window before it.
    """
    furthest: list[str] = []
    starts = steps[0]
    start = 0
    while start < len(starts):
        chain = [starts[start]]
        late = ""
        for moments in steps[1:]:
            place = bisect_right(moments, chain[-1])
            if place == len(moments):
                break
            if window is not None and _time(moments[place]) - _time(chain[0]) > window:
                late = moments[place]
                break
            chain.append(moments[place])
        if len(chain) > len(furthest):
            furthest = chain
        if not late or window is None:
            break
        start = bisect_left(starts, (_time(late) - window).isoformat(" ", "microseconds"))
    return furthest


def _latest(chain: Sequence[str], steps: Sequence[Sequence[str]]) -> Sequence[str]:
    """Returns the chain that starts last of those with the same length and end, each of its steps being the earliest possible."""
    if not chain:
        return chain
    start = chain[-1]
    for moments in reversed(steps[: len(chain) - 1]):
        start = moments[bisect_left(moments, start) - 1]
    latest = [start]
    for moments in steps[1 : len(chain)]:
        latest.append(moments[bisect_right(moments, latest[-1])])
    return latest


def _time(moment: str) -> datetime:
    return datetime.fromisoformat(moment[:_TIMESTAMP])


def _median(microseconds: Sequence[int]) -> timedelta | None:
    return timedelta(microseconds=int(median(microseconds))) if microseconds else None
