"""What an order consists of beside its lines, and to which affiliate it is credited: pure."""

from __future__ import annotations

from typing import NamedTuple

from services.analytics.counts import Revenue
from services.analytics.sessions import OTHER


class Breakdown(NamedTuple):
    """What an order's total consists of, in ten-thousandths of its currency and of the base currency. What was not reported is 0."""

    total: int = 0
    discounts: int = 0
    taxes: int = 0
    shipping: int = 0
    base_discounts: int = 0
    """0 without an exchange rate, like the other amounts in the base currency."""
    base_taxes: int = 0
    base_shipping: int = 0
    country: str = ""
    """ISO 3166-1 alpha-2 code; empty if it is not known."""
    coupons: tuple[str, ...] = ()
    """In lower case."""
    referral: str = ""
    """The code of the partner who brought the buyer."""

    @property
    def commissionable(self) -> int:
        """What remains of the total without taxes and shipping."""
        return max(0, self.total - self.taxes - self.shipping)

    def anonymous(self) -> Breakdown:
        """Returns it as it counts after the erasure of the buyer: without texts that may identify her."""
        return self._replace(coupons=(OTHER,) if self.coupons else (), referral="")


class Credit(NamedTuple):
    """The affiliate to whom an order is credited."""

    affiliate: str
    """The affiliate's code, in lower case."""
    rate: int
    """The commission, in ten-thousandths of what it is computed from."""
    is_listed: bool
    """Whether the settings name the affiliate."""

    def anonymous(self) -> Credit:
        """Returns it as it counts after the erasure of the buyer: a code that no setting names may identify her."""
        return self if self.is_listed else self._replace(affiliate=OTHER)


def count_breakdown(sold: Revenue, breakdown: Breakdown, times: int) -> None:
    """Adds what an order consists of to the figures of the day on which it was sold."""
    sold.discounts += breakdown.discounts * times
    sold.taxes += breakdown.taxes * times
    sold.shipping += breakdown.shipping * times
    sold.base_discounts += breakdown.base_discounts * times
    sold.base_taxes += breakdown.base_taxes * times
    sold.base_shipping += breakdown.base_shipping * times
