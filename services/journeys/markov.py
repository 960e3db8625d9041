"""What a chain of visits owes to each of its states, by the chance of a purchase that is lost without it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from itertools import chain, pairwise
from typing import Final

MOST_STATES: Final = 150
OTHER: Final = "(other)"
"""Stands for all but the most frequent names: the work grows with the cube of their number."""

_START: Final = "\0start"
_BOUGHT: Final = "\0bought"
_LOST: Final = "\0lost"


def removal_effects(bought: Sequence[Sequence[str]], lost: Sequence[Sequence[str]]) -> Mapping[str, Fraction]:
    """The removal effect of each name, brought to a sum of 1; empty when nobody bought anything.

    Visits are an absorbing first-order Markov chain: start -> names -> purchase or nothing. A transition is as likely as it was
    frequent. A name's removal effect is the share of purchases that do not come about when all that leads to it leads to
    nothing. With f the chance to ever come by the name and p that of a purchase from there, it is f * p out of the chance of a
    purchase at the start, since a chain forgets how it came to a state.

    Source: Anderl, Becker, von Wangenheim, Schumann: Mapping the customer journey. International Journal of Research in
    Marketing 33 (2016) 457-474, section 3; f by the fundamental matrix: Kemeny, Snell: Finite Markov Chains (1960), chapter 3.

    Args:
        bought: the names along each path to a purchase.
        lost: those along each path to none.
    """
    if not bought:
        return {}
    transitions = _transitions(bought, lost)
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


def _transitions(bought: Sequence[Sequence[str]], lost: Sequence[Sequence[str]]) -> Counter[tuple[str, str]]:
    frequent = _frequent(chain(bought, lost))
    transitions: Counter[tuple[str, str]] = Counter()
    for paths, end in ((bought, _BOUGHT), (lost, _LOST)):
        for path, times in Counter(tuple(path) for path in paths).items():
            named = [name if name in frequent else OTHER for name in path]
            for step in pairwise([_START, *named, end]):
                transitions[step] += times
    return transitions


def _frequent(paths: Iterable[Sequence[str]]) -> frozenset[str]:
    counts = Counter(name for path in paths for name in path)
    if len(counts) <= MOST_STATES:
        return frozenset(counts)
    return frozenset(sorted(counts, key=lambda name: (-counts[name], name))[: MOST_STATES - 1])


def _inverse(matrix: Sequence[Sequence[float]]) -> list[list[float]]:
    """The inverse, by Gauss and Jordan. The matrix is I - Q of an absorbing chain: its pivots are greater than 0 without exchanges."""
    size = len(matrix)
    rows = [[*row, *(float(number == column) for column in range(size))] for number, row in enumerate(matrix)]
    for pivot in range(size):
        scale = rows[pivot][pivot]
        rows[pivot] = own = [value / scale for value in rows[pivot]]
        for number, row in enumerate(rows):
            factor = row[pivot]
            if number != pivot and factor:
                rows[number] = [value - factor * under for value, under in zip(row, own, strict=True)]
    return [row[size:] for row in rows]
