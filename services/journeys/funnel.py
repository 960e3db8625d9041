"""How far people came along a chain of steps: pure, in one pass over their actions, in memory that grows with the people alone.

A person's chain is one action for each of the first steps, each later than the one before in the order of (timestamp, id),
and the last at most the window later than the first. It may start at any action that is the first step. A person came as far
as the longest of their chains.
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
    """Who came at least so far."""
    drop_off: int
    """Who came to the step before and no further."""
    conversion: float
    """Share of the step before that came so far; 1 for the first step."""
    median_time: timedelta | None
    """Time since the step before; None for the first step, and where nobody came so far."""


def steps_of(texts: Iterable[str]) -> list[str]:
    """The steps of a request, in which they are several texts, or one with commas.

    Raises:
        InvalidRequest: one is empty or too long, or they are too many.
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
        """The chain that came to the furthest step first."""
        self._latest: list[_Chain] = []
        """By step, the chain to it that started last: it leaves the most time for the steps to come."""

    def act(self, places: Sequence[int], at: datetime, window: timedelta | None) -> None:
        """Goes on to these places of the chain, given the furthest first: one action is one step, also where two have one name."""
        latest = self._latest
        for place in places:
            if place > len(latest):
                continue
            before = latest[place - 1] if place else ()
            if before and window is not None and at - before[0] > window:
                continue
            chain = (*before, at)
            if place == len(latest):
                latest.append(chain)
                self.furthest = chain
            elif chain[0] > latest[place][0]:
                latest[place] = chain


class Funnel:
    """Counts people along steps. Takes all actions that are steps, of all people, in the order of (timestamp, id)."""

    def __init__(self, steps: Sequence[str], window: timedelta | None = None) -> None:
        self._steps = steps
        self._window = window
        self._places = {step: [place for place in reversed(range(len(steps))) if steps[place] == step] for step in steps}
        self._people: defaultdict[str, _Person] = defaultdict(_Person)

    def add(self, actions: Iterable[tuple[str, str, datetime]]) -> None:
        """Takes in actions: (person, action, timestamp)."""
        people, places, window, length = self._people, self._places, self._window, len(self._steps)
        for person, action, at in actions:
            known = people[person]
            if len(known.furthest) < length:
                known.act(places[action], at, window)

    def count(self) -> list[Step]:
        """The funnel.

        A person's times are those of the chain that came to the furthest step first: of the chains that end there, the one that
        started last, and of its steps each the first that could be.
        """
        reached = [0] * len(self._steps)
        times: list[list[timedelta]] = [[] for _ in self._steps]
        for person in self._people.values():
            chain = person.furthest
            for place, at in enumerate(chain):
                reached[place] += 1
                if place:
                    times[place].append(at - chain[place - 1])
        counted: list[Step] = []
        for place, name in enumerate(self._steps):
            before = reached[place - 1] if place else reached[0]
            share = 1.0 if not place else reached[place] / before if before else 0.0
            counted.append(Step(name, reached[place], before - reached[place], share, _median(times[place])))
        return counted


def _median(times: Sequence[timedelta]) -> timedelta | None:
    microsecond = timedelta(microseconds=1)
    return timedelta(microseconds=int(median(time // microsecond for time in times))) if times else None
