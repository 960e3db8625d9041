"""The rows of an order as plain records. Their fields are the attributes of the mapped classes in `models`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from services.purchases.money import NOTHING, Rate


@dataclass(slots=True)
class PurchaseRecord:
    """An order in its current state."""

    id: str
    site: str
    order_id: str
    wordpress_order_id: int | None
    base_currency: str
    timestamp: datetime
    created_at: datetime
    updated_at: datetime
    subject: str = ""
    user_id: str | None = None
    session_id: str | None = None
    email: bytes | None = None
    email_hash: bytes | None = None
    product_id: str | None = None
    product_name: str | None = None
    product_type: str | None = None
    amount: Decimal = NOTHING
    currency: str = ""
    payment_method: str | None = None
    payment_status: str = ""
    utm_attribution: dict[str, str] | None = None
    billing_data: bytes | None = None
    visitor: bytes | None = None
    details: dict[str, Any] | None = None
    paid_at: datetime | None = None
    sold_at: datetime | None = None
    ordered_on: date | None = None
    paid_amount: Decimal = NOTHING
    refunded_amount: Decimal = NOTHING
    rate_units: Decimal | None = None
    rate_base_units: Decimal | None = None
    base_net_amount: Decimal | None = None
    is_test: bool = False
    is_staff: bool = False
    disputed: bool = False
    lines_fixed: bool = False
    discount_total: Decimal | None = None
    tax_total: Decimal | None = None
    shipping_total: Decimal | None = None
    coupon_codes: list[str] | None = None
    country: str | None = None
    referral_code: str | None = None
    historical: bool = False

    @property
    def is_known(self) -> bool:
        """True once the order itself was reported; until then, reports are held for it."""
        return bool(self.currency)

    @property
    def rate_day(self) -> date:
        """The day whose rate the order gets."""
        return self.ordered_on or self.timestamp.date()

    @property
    def rate(self) -> Rate | None:
        """The pinned rate; None while there is none."""
        return None if self.rate_units is None or self.rate_base_units is None else Rate(self.rate_units, self.rate_base_units)

    @rate.setter
    def rate(self, rate: Rate | None) -> None:
        self.rate_units, self.rate_base_units = rate or (None, None)


@dataclass(slots=True)
class LineRecord:
    """One line of an order."""

    purchase_id: str
    number: int
    product_id: str
    product_name: str
    product_type: str
    quantity: int
    amount: Decimal
    course_ids: Sequence[str] | None = None
    """None for none."""


@dataclass(slots=True)
class EntryRecord:
    """An entry of the ledger."""

    purchase_id: str
    site: str
    order_id: str
    kind: str
    reference: str
    amount: Decimal
    base_amount: Decimal | None
    timestamp: datetime
    booked_at: datetime
    reason: str
    historical: bool = False
    lines: Sequence[Mapping[str, Any]] | None = None
    """None while they are not known."""
    id: int | None = None
    """None for one that is not stored yet."""
