"""Exact amounts of money: decimals in the minor units of their currency."""

from __future__ import annotations

from collections.abc import Iterable
from decimal import ROUND_HALF_UP, Context, Decimal
from typing import Final, NamedTuple

from kit.rules import DECIMALS, minor_unit

_EXACT: Final = Context(prec=60)  # the digits of an amount times those of a rate, and room
NOTHING: Final = Decimal(0)


class Rate(NamedTuple):
    """An exchange rate as two quotes against the same anchor: their quotient would have to be rounded."""

    units: Decimal
    """Units of the currency."""
    base_units: Decimal
    """Units of the base currency, of the same value."""

    @property
    def ratio(self) -> Decimal:
        """Units of the currency for one of the base currency."""
        return self.units / self.base_units


PAR: Final = Rate(Decimal(1), Decimal(1))
"""A currency against itself."""


def is_currency(code: str) -> bool:
    """True for a currency of today or of the past; gold and test codes, which have no minor unit, are none."""
    return code in DECIMALS


def exact(amount: float | Decimal, currency: str) -> Decimal:
    """The amount in whole minor units; halves go up. The number as written counts, not the nearest binary fraction."""
    return _rounded(amount if isinstance(amount, Decimal) else Decimal(repr(amount)), currency)


def in_base(amount: Decimal, rate: Rate, base: str) -> Decimal:
    """The amount in whole minor units of the base currency; halves go up."""
    return _rounded(_EXACT.divide(_EXACT.multiply(amount, rate.base_units), rate.units), base)


def entries_in_base(amounts: Iterable[Decimal], rate: Rate, base: str) -> list[Decimal]:
    """The amounts of a ledger's entries in the base currency, in the order of the entries.

    Each is the difference that it makes to the rounded balance: an order that is refunded in full adds up to zero to the
    cent, and the order of the entries does not change their sum.
    """
    booked: list[Decimal] = []
    balance = before = NOTHING
    for amount in amounts:
        balance += amount
        after = in_base(balance, rate, base)
        booked.append(after - before)
        before = after
    return booked


def _rounded(amount: Decimal, currency: str) -> Decimal:
    return amount.quantize(minor_unit(currency), ROUND_HALF_UP, _EXACT)
