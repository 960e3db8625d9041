"""Amounts in parts: to the smallest unit, and without favour for any name."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache, partial
from typing import Final, TypeAlias

Weights: TypeAlias = tuple[tuple[str, int], ...]
"""In what proportion names are owed something: each name once, with more than 0."""

WHOLE: Final = 1 << 80
"""The parts in which an order is counted: shares of orders are exact in sum, and by themselves more exact than a float."""


@dataclass(frozen=True, slots=True)
class Share:
    """What is owed to one name."""

    amount: Decimal
    orders: Fraction


@dataclass(frozen=True, slots=True)
class Splitter:
    """Splits what orders brought.

    Args:
        unit: the smallest amount of the base currency.
        tie: a keyed hash of an order and a name: by it goes who comes first of those with the same claim to a unit that is left, so that
            no name gains by how it is spelt.
    """

    unit: Decimal
    tie: Callable[[str, str], bytes]

    def split(self, total: Decimal, weights: Weights, order: str) -> Mapping[str, Decimal]:
        """What names get of a total, by weight.

        Args:
            total: what was brought.
            weights: of names, each once and more than 0.
            order: the id of the order that brought it, or what stands for several.
        """
        return split(total, weights, self.unit, partial(self.tie, order))


def split(total: Decimal, weights: Weights, unit: Decimal, tie: Callable[[str], bytes]) -> Mapping[str, Decimal]:
    """An amount in parts by weight, in whole units that add up to it: what rounding down leaves goes to the largest remainders.

    Of equal remainders the one comes first that `tie` puts first. Less than a unit of the amount goes to the largest weight.
    Source: the largest remainder method of Hamilton (en.wikipedia.org/wiki/Quota_method).

    Args:
        total: the amount, which may be negative.
        weights: of names, each once and more than 0; at least one.
        unit: the smallest amount.
        tie: the place of a name among those with the same claim.
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
    """The units that are certain by name, the names with the same claim to one more, and how many of these get it."""
    whole = sum(weight for _, weight in weights)
    exact = [(name, *divmod(units * weight, whole)) for name, weight in weights]
    left = units - sum(part for _, part, _ in exact)
    least = sorted((remainder for _, _, remainder in exact), reverse=True)[left - 1] if left else whole
    parts = tuple((name, part + (remainder > least)) for name, part, remainder in exact)
    tied = [name for name, _, remainder in exact if remainder == least]
    return parts, tied, units - sum(part for _, part in parts)


@lru_cache(8192)
def parts_of(weights: Weights) -> Weights:
    """One order in parts by weight, `WHOLE` in all."""
    (first, _), *others = weights
    whole = sum(weight for _, weight in weights)
    parts = [(name, WHOLE * weight // whole) for name, weight in others]
    return ((first, WHOLE - sum(part for _, part in parts)), *parts)
