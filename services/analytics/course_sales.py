"""What an order is for each of its courses: pure.

A line counts for each of its courses in equal parts. Of a payment, a refund or a correction a course gets as much as its parts of the lines
are of what was paid for the order. Parts are rounded such that they add up: those of all courses to those of their lines, and those of all
entries to what is left of the order.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import NamedTuple


class Sold(NamedTuple):
    """A line of an order: what is sold of its courses."""

    courses: Sequence[str]
    quantity: int
    amount: int


class Part(NamedTuple):
    """The part of one course in one ledger entry, in the units of the entry."""

    course: str
    entry: int
    """Position of the entry."""
    amount: int
    base: int | None
    """None without an exchange rate."""


def pieces_of(lines: Iterable[Sold]) -> Mapping[str, int]:
    """Returns the courses of lines, with how many pieces of each were sold."""
    pieces: dict[str, int] = {}
    for line in lines:
        for course in line.courses:
            pieces[course] = pieces.get(course, 0) + line.quantity
    return pieces


def parts_of(lines: Iterable[Sold], entries: Sequence[tuple[int, int | None]], paid: int) -> Iterable[Part]:
    """Yields the parts of courses in entries.

    Args:
        lines: the lines of the order.
        entries: amount and amount in the base currency of each ledger entry, signed, in the order in which they were booked.
        paid: what was paid for the order; nothing is yielded if that is nothing.
    """
    if paid <= 0:
        return
    share_before = Fraction()
    for course, amount in _amounts(lines).items():
        share = share_before + amount / paid
        total, base_total = 0, 0
        for position, (entry, base) in enumerate(entries):
            own = _between(share_before, share, total, total + entry)
            in_base = None if base is None else _between(share_before, share, base_total, base_total + base)
            yield Part(course, position, own, in_base)
            total, base_total = total + entry, base_total + (base or 0)
        share_before = share


def _amounts(lines: Iterable[Sold]) -> Mapping[str, Fraction]:
    """Returns the parts of courses in the amounts of lines."""
    amounts: dict[str, Fraction] = {}
    for line in lines:
        for course in line.courses:
            amounts[course] = amounts.get(course, Fraction()) + Fraction(line.amount, len(line.courses))
    return amounts


def _between(share_before: Fraction, share: Fraction, total_before: int, total: int) -> int:
    """Returns the part of one share in the difference of two totals: rounded so that parts add up over shares and over totals."""
    now, before = (_rounded(share * each) - _rounded(share_before * each) for each in (total, total_before))
    return now - before


def _rounded(number: Fraction) -> int:
    """Rounds to a whole number; halves away from zero."""
    whole = (2 * abs(number.numerator) + number.denominator) // (2 * number.denominator)
    return whole if number >= 0 else -whole
