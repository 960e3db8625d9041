"""Splits amounts by weight: to the smallest unit, and without favour for any name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, partial
from typing import Final, TypeAlias

Weights: TypeAlias = tuple[tuple[str, int], ...]
"""Weights of names: each name once, with more than 0."""

WHOLE: Final = 1 << 80
"""The parts of one order: shares of orders add up exactly, and each is more precise than a float."""


@dataclass(frozen=True, slots=True)
class Share:
    """The share of one name."""

    amount: Decimal
    orders: Fraction


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits the revenue of orders.

    Args:
        unit: the smallest amount of the base currency.
        tie: a keyed hash of an order and a name. It orders names with equal remainders, so that no name gains by its spelling.
    """

    unit: Decimal
    tie: Callable[[str, str], bytes]

    def split(self, total: Decimal, weights: Weights, order: str) -> Mapping[str, Decimal]:
        """Splits a total by weight.

        Args:
            total: the revenue.
            weights: of names, each once and more than 0.
            order: the id of the order, or a constant for the sum of several.
        """
        return split(total, weights, self.unit, partial(self.tie, order))


def split(total: Decimal, weights: Weights, unit: Decimal, tie: Callable[[str], bytes]) -> Mapping[str, Decimal]:
    """Splits an amount by weight into whole units that add up to it: units lost by rounding go to the largest remainders.

    Equal remainders are ordered by `tie`. A fraction of a unit goes to the largest weight.
    Source: the largest remainder method of Hamilton (en.wikipedia.org/wiki/Quota_method).

    Args:
        total: the amount, which may be negative.
        weights: of names, each once and more than 0; at least one.
        unit: the smallest amount.
        tie: the sort key of names with equal remainders.
    """
    if len(weights) == 1:
        return {weights[0][0]: total}
    units, rest = divmod(abs(total), unit)
    parts, tied, left = _split(int(units), weights)
    favoured = sorted(tied, key=tie)[:left] if left else ()
    signed = unit.copy_sign(total)
    amounts = {name: (part + (name in favoured)) * signed for name, part in parts}
    if rest:
        largest = max(weight for _, weight in weights)
        amounts[min((name for name, weight in weights if weight == largest), key=tie)] += rest.copy_sign(total)
    return amounts


@lru_cache(8192)
def _split(units: int, weights: Weights) -> tuple[Weights, Sequence[str], int]:
    """Returns the certain units of each name, the names that tie for one more, and how many of these get it."""
    whole = sum(weight for _, weight in weights)
    exact = [(name, *divmod(units * weight, whole)) for name, weight in weights]
    left = units - sum(part for _, part, _ in exact)
    least = sorted((remainder for _, _, remainder in exact), reverse=True)[left - 1] if left else whole
    parts = tuple((name, part + (remainder > least)) for name, part, remainder in exact)
    tied = [name for name, _, remainder in exact if remainder == least]
    return parts, tied, units - sum(part for _, part in parts)


@lru_cache(8192)
def parts_of(weights: Weights) -> Weights:
    """Splits one order by weight into `WHOLE` parts."""
    (first, _), *others = weights
    whole = sum(weight for _, weight in weights)
    parts = [(name, WHOLE * weight // whole) for name, weight in others]
    return ((first, WHOLE - sum(part for _, part in parts)), *parts)
