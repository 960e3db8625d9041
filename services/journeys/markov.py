"""What a chain of visits owes to each of its states, by the chance of a purchase that is lost without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final, TypeAlias

MOST_STATES: Final = 150
OTHER: Final = "(other)"
"""Stands for all but the most frequent names: the work grows with the cube of their number."""

_START: Final = "\0start"
_BOUGHT: Final = "\0bought"
_LOST: Final = "\0lost"
_ENDS: Final = (_BOUGHT, _LOST)


Steps: TypeAlias = Counter[tuple[str, str]]
"""How often each state of the chain was left for which."""


def steps_of(names: Sequence[str], *, bought: bool) -> Iterable[tuple[str, str]]:
    """The steps of one path through the chain.

    Args:
        names: along the path, at least one.
        bought: a purchase ended it.
    """
    return pairwise([_START, *names, _BOUGHT if bought else _LOST])


def removal_effects(steps: Steps) -> Mapping[str, Fraction]:
    """The removal effect of each name, brought to a sum of 1; empty when nobody bought anything.

    Visits are an absorbing first-order Markov chain: start -> names -> purchase or nothing. A transition is as likely as it was
    frequent. A name's removal effect is the share of purchases that do not come about when all that leads to it leads to
    nothing. With f the chance to ever come by the name and p that of a purchase from there, it is f * p out of the chance of a
    purchase at the start, since a chain forgets how it came to a state.

    Source: Anderl, Becker, von Wangenheim, Schumann: Mapping the customer journey. International Journal of Research in
    Marketing 33 (2016) 457-474, section 3; f by the fundamental matrix: Kemeny, Snell: Finite Markov Chains (1960), chapter 3.

    Args:
        steps: of all paths.
    """
    if not any(count for (_, to), count in steps.items() if to == _BOUGHT):
        return {}
    transitions = _folded(steps)
    states = sorted({state for state, _ in transitions})
    place = {state: number for number, state in enumerate(states)}
    leaving: Counter[str] = Counter()
    for (state, _), count in transitions.items():
        leaving[state] += count
    matrix = [[float(row == column) for column in range(len(states))] for row in range(len(states))]
    absorbed = [0.0] * len(states)
    for (state, to), count in sorted(transitions.items()):
        if to in place:
            matrix[place[state]][place[to]] -= count / leaving[state]
        elif to == _BOUGHT:
            absorbed[place[state]] += count / leaving[state]
    visits = _inverse(matrix)
    chance = [sum(times * share for times, share in zip(row, absorbed, strict=True)) for row in visits]
    start = place[_START]
    effects = {
        state: Fraction(max(0.0, visits[start][number] / visits[number][number] * chance[number]))
        for state, number in place.items()
        if number != start
    }
    total = sum(effects.values())
    return {state: effect / total for state, effect in effects.items()}


def _folded(steps: Steps) -> Steps:
    """The steps between the most frequent names and what stands for all others."""
    # A path comes to a name as often as it is on it.
    counts: Counter[str] = Counter()
    for (_, to), count in steps.items():
        counts[to] += count
    names = sorted((name for name, count in counts.items() if count and name not in _ENDS), key=lambda name: (-counts[name], name))
    rare = set(names[MOST_STATES - 1 :] if len(names) > MOST_STATES else ())
    folded: Steps = Counter()
    for (state, to), count in steps.items():
        if count:
            folded[OTHER if state in rare else state, OTHER if to in rare else to] += count
    return folded


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """The inverse, by Gauss and Jordan in place.

    The matrix is I - Q of an absorbing chain: its pivots are greater than 0 without exchanges.
    """
    rows = [list(row) for row in matrix]
    for pivot in range(len(rows)):
        scale = rows[pivot][pivot]
        rows[pivot][pivot] = 1.0
        rows[pivot] = own = [value / scale for value in rows[pivot]]
        for number, row in enumerate(rows):
            factor = row[pivot]
            if number != pivot and factor:
                row[pivot] = 0.0
                rows[number] = [value - factor * under for value, under in zip(row, own, strict=True)]
    return rows
