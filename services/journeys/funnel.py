"""Counts how far people get along a chain of steps: pure, in one pass over their actions, in memory that only grows with the people.

A person's chain is one action for each of the first steps, each later than the previous one in the order of (timestamp, id),
and the last at most the window later than the first. It may start at any action that is the first step. A person reached as many
steps as the longest of their chains has.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from statistics import median
from typing import Final, NamedTuple, TypeAlias

from kit.errors import InvalidRequest, Violation

MOST_STEPS: Final = 20
_LONGEST_STEP: Final = 100

_Chain: TypeAlias = tuple[datetime, ...]


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


class _Person:
    """The chains of one person so far."""

    __slots__ = ("_latest", "furthest")

    def __init__(self) -> None:
        self.furthest: _Chain = ()
        """The first chain that reached the furthest step."""
        self._latest: list[_Chain] = []
        """By step, the chain to it that started last: it leaves the most time for further steps."""

    def act(self, positions: Sequence[int], at: datetime, window: timedelta | None) -> None:
        """Continues chains at these positions, given the furthest first: one action is one step, even if two have the same name."""
        latest = self._latest
        for position in positions:
            if position > len(latest):
                continue
            before = latest[position - 1] if position else ()
            if before and window is not None and at - before[0] > window:
                continue
            chain = (*before, at)
            if position == len(latest):
                latest.append(chain)
                self.furthest = chain
            elif chain[0] > latest[position][0]:
                latest[position] = chain


class Funnel:
    """Counts people along steps. Takes all actions that are steps, of all people, ordered by (timestamp, id)."""

    def __init__(self, steps: Sequence[str], window: timedelta | None = None) -> None:
        self._steps = steps
        self._window = window
        self._positions = {step: [position for position in reversed(range(len(steps))) if steps[position] == step] for step in steps}
        self._people: defaultdict[str, _Person] = defaultdict(_Person)

    def add(self, actions: Iterable[tuple[str, str, datetime]]) -> None:
        """Adds actions: (person, action, timestamp)."""
        people, positions, window, length = self._people, self._positions, self._window, len(self._steps)
        for person, action, at in actions:
            known = people[person]
            if len(known.furthest) < length:
                known.act(positions[action], at, window)

    def count(self) -> list[Step]:
        """Returns the counted steps.

        A person's times are those of the first chain that reached the furthest step: of the chains that end there, the one that
        started last, each of its steps being the earliest possible.
        """
        reached = [0] * len(self._steps)
        times: list[list[timedelta]] = [[] for _ in self._steps]
        for person in self._people.values():
            chain = person.furthest
            for position, at in enumerate(chain):
                reached[position] += 1
                if position:
                    times[position].append(at - chain[position - 1])
        counted: list[Step] = []
        for position, name in enumerate(self._steps):
            before = reached[position - 1] if position else reached[0]
            share = 1.0 if not position else reached[position] / before if before else 0.0
            counted.append(Step(name, reached[position], before - reached[position], share, _median(times[position])))
        return counted


def _median(times: Sequence[timedelta]) -> timedelta | None:
    microsecond = timedelta(microseconds=1)
    return timedelta(microseconds=int(median(time // microsecond for time in times))) if times else None
