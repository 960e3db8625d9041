"""To which affiliate an order is credited, and at which rate: pure."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from datetime import date
from decimal import Decimal
from typing import Annotated, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from services.analytics.breakdown import Credit
from services.analytics.days import Calendar
from services.analytics.orders import WHOLE, Order

Code: TypeAlias = Annotated[str, StringConstraints(strip_whitespace=True, to_lower=True, min_length=1, max_length=100)]
"""Codes are compared in lower case."""
Rate: TypeAlias = Annotated[Decimal, Field(ge=0, le=1, decimal_places=4)]
"""The commission as a part of what it is computed from: 0.2 is 20 %."""


class Affiliate(BaseModel):
    """What the shop has agreed with an affiliate."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    rate: Rate | dict[date, Rate] | None = None
    """The rate; or rates by the day from which each holds. Orders before the first of these days have no commission."""

    coupons: frozenset[Code] = frozenset()
    """Coupons of the affiliate: whoever uses one was brought by the affiliate."""

    sources: frozenset[Code] = frozenset()
    """Sources of sessions and orders that are the affiliate's, with any medium."""


class Affiliates(BaseModel):
    """The shop's affiliates, and the rules by which orders are credited to them."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)

    affiliates: dict[Code, Affiliate] = Field(default={})
    """Affiliates by code. A code that is not among them is credited at the default rate."""

    default_rate: Rate = Decimal(0)
    """The rate of affiliates without one of their own."""

    media: frozenset[Code] = frozenset({"affiliate"})
    """Media whose source is the code of an affiliate, unless another one lists the source."""

    @model_validator(mode="after")
    def _of_one_affiliate_each(self) -> Self:
        for name in ("coupons", "sources"):
            listed = [each for affiliate in self.affiliates.values() for each in getattr(affiliate, name)]
            if several := sorted({each for each in listed if listed.count(each) > 1}):
                message = f"{name}: {several[0]} is listed by several affiliates"
                raise ValueError(message)
        return self


class AffiliateProgram:
    """Credits orders to affiliates, by the settings of now.

    Args:
        rules: the affiliates.
        calendar: assigns sales to days, by which rates change.
    """

    def __init__(self, rules: Affiliates, calendar: Calendar) -> None:
        self._rules = rules
        self._calendar = calendar
        self._of_coupon = _by_value({code: each.coupons for code, each in rules.affiliates.items()})
        self._of_source = _by_value({code: each.sources for code, each in rules.affiliates.items()})

    def credited(self, order: Order) -> Order:
        """Returns the order with the affiliate to whom it is credited, if it was sold and there is one."""
        code = self._code(order) if order.sold_at is not None else ""
        if order.sold_at is None or not code:
            return order._replace(credit=None)
        rate = self._rate(code, date.fromordinal(self._calendar.day(order.sold_at)))
        return order._replace(credit=Credit(code, int(rate * WHOLE), code in self._rules.affiliates))

    def _code(self, order: Order) -> str:
        """Returns the code by coupon, else by the partner who brought the buyer, else by source; empty for none.

        Of several coupons, the first one in the alphabet counts.
        """
        by_coupon = (self._of_coupon[coupon] for coupon in order.breakdown.coupons if coupon in self._of_coupon)
        code = next(by_coupon, "") or order.breakdown.referral or self._of_source.get(order.source, "")
        return code or (order.source if order.medium in self._rules.media else "")

    def _rate(self, code: str, day: date) -> Decimal:
        known = self._rules.affiliates.get(code)
        rate = known.rate if known else None
        if isinstance(rate, dict):
            begun = [first for first in rate if first <= day]
            return rate[max(begun)] if begun else Decimal(0)
        return self._rules.default_rate if rate is None else rate


def _by_value(values: Mapping[str, Collection[str]]) -> Mapping[str, str]:
    return {each: code for code, several in values.items() for each in several}
