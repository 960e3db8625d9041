"""Attribution by a Markov chain of sessions: each state's share is the chance of a purchase that is lost without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import pairwise
from typing import Final, TypeAlias

MOST_STATES: Final = 150
OTHER: Final = "(other)"
"""Stands for all but the most frequent names: the cost grows with the cube of their number."""

_START: Final = "\0start"
_BOUGHT: Final = "\0bought"
_LOST: Final = "\0lost"
_ENDS: Final = (_BOUGHT, _LOST)


Steps: TypeAlias = Counter[tuple[str, str]]
"""How often each transition between two states occurred."""


def steps_of(names: Sequence[str], *, bought: bool) -> Iterable[tuple[str, str]]:
    """Returns the steps of one path through the chain.

    Args:
        names: along the path, at least one.
        bought: whether a purchase ended it.
    """
    return pairwise([_START, *names, _BOUGHT if bought else _LOST])


def removal_effects(steps: Steps) -> Mapping[str, Fraction]:
    """Returns the removal effect of each name, normalised to a sum of 1; empty without purchases.

    Sessions are an absorbing first-order Markov chain: start -> names -> purchase or nothing. The probability of a transition is
    its relative frequency. A name's removal effect is the share of purchases that are lost if every transition to it leads to
    nothing instead. With f the probability to ever reach the name and p that of a purchase from there, it is f * p divided by the
    probability of a purchase from the start, since a chain has no memory of how it reached a state.

    Source: Anderl, Becker, von Wangenheim, Schumann: Mapping the customer journey. International Journal of Research in
    Marketing 33 (2016) 457-474, section 3; f by the fundamental matrix: Kemeny, Snell: Finite Markov Chains (1960), chapter 3.

    Args:
        steps: of all paths.
    """
    if not any(count for (_, to), count in steps.items() if to == _BOUGHT):
        return {}
    transitions = _folded(steps)
    states = sorted({state for state, _ in transitions})
    index_of = {state: number for number, state in enumerate(states)}
    leaving: Counter[str] = Counter()
    for (state, _), count in transitions.items():
        leaving[state] += count
    matrix = [[float(row == column) for column in range(len(states))] for row in range(len(states))]
    absorbed = [0.0] * len(states)
    for (state, to), count in sorted(transitions.items()):
        if to in index_of:
            matrix[index_of[state]][index_of[to]] -= count / leaving[state]
        elif to == _BOUGHT:
            absorbed[index_of[state]] += count / leaving[state]
    expected = _inverse(matrix)
    chance = [sum(times * share for times, share in zip(row, absorbed, strict=True)) for row in expected]
    start = index_of[_START]
    effects = {
        state: Fraction(max(0.0, expected[start][number] / expected[number][number] * chance[number]))
        for state, number in index_of.items()
        if number != start
    }
    total = sum(effects.values())
    return {state: effect / total for state, effect in effects.items()}


def _folded(steps: Steps) -> Steps:
    """Replaces all but the most frequent names by one that stands for them."""
    # A name is entered as often as it occurs on paths.
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
    """Returns the inverse, by Gauss-Jordan elimination in place.

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
