"""The codes in which a shop may have sold, and their minor units.

`currencies.csv` has ISO 4217's codes of today (`iso`), those that were withdrawn (`withdrawn`: from Unicode CLDR's list of
currencies; the two decimals of most lose nothing where prices had fewer), and those in which WooCommerce sells beside them
(`woocommerce`). Lines are only ever added: amounts that are kept were rounded by them. Gold, funds and test codes have no minor unit.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Final


def _read() -> Mapping[str, str]:
    with (Path(__file__).parent / "currencies.csv").open(newline="") as file:
        return {row["code"]: row["decimals"] for row in csv.DictReader(file)}


_ROWS: Final = _read()
CODES: Final = frozenset(_ROWS)
"""All codes, those in which nobody pays among them."""
DECIMALS: Final = {code: int(decimals) for code, decimals in _ROWS.items() if decimals}
"""Digits of the minor unit by code, of those in which one can pay: 2 of USD, 0 of JPY."""


@cache
def minor_unit(code: str) -> Decimal:
    """The smallest amount of a currency in which one can pay: 0.01 of USD, 1 of JPY.

    Raises:
        KeyError: there is no such currency.
    """
    return Decimal(1).scaleb(-DECIMALS[code])
