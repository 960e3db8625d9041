"""Orders of WooCommerce as the plugin reports them: same ids, same source, same fields. Pure.

The report of an order is dated with its last change (`reported_at`), not with the time of the import: so a report by the plugin,
which is dated when it was made, is never replaced by an import that was read before or after it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from cli.importing.items import Item, Kind
from services.destinations.received.shop_words import STATUSES, UNPLACED

SOURCE: Final = "plugin"
"""Both read the same shop: of their reports the newest counts."""
UNPAID: Final = "never paid"
"""Why an order is left out, as the plugin's backfill leaves it out."""
LEFT_OUT: Final = UNPLACED | {"trash"}
"""Statuses of orders that are no sale, and may become one."""
_PAID: Final = frozenset({"processing", "completed", "refunded"})
_MOST_LINES: Final = 200
_LARGEST_QUANTITY: Final = 1_000_000
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")
_ADDRESS: Final = re.compile(r"[^\s<>@]+@[^\s<>@]+")
_ID: Final = re.compile(r"[A-Za-z0-9._:-]{1,255}")


@dataclass(frozen=True, slots=True)
class ShopRefund:
    """A refund of an order."""

    id: str
    amount: float
    at: datetime
    reason: str = ""
    lines: Sequence[Mapping[str, Any]] = ()
    """What was returned, as in the contract."""


@dataclass(frozen=True, slots=True)
class Buyer:
    """Who bought, and what led there."""

    user_id: str = ""
    """The WordPress user, as digits."""
    email: str = ""
    session_id: str = ""
    billing: Mapping[str, str] = field(default_factory=dict[str, str])
    """By WooCommerce's names."""
    utm: Mapping[str, str] = field(default_factory=dict[str, str])
    referral_code: str = ""
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    is_staff: bool | None = False
    """None for a buyer of whom it is not known any more."""


@dataclass(frozen=True, slots=True)
class ShopOrder:
    """An order as a shop keeps it."""

    id: str
    placed_at: datetime
    status: str
    """WooCommerce's word, without `wc-`."""
    amount: float
    currency: str = ""
    """Empty for the shop's base currency."""
    paid_at: datetime | None = None
    changed_at: datetime | None = None
    """The last change; None if the source does not state it."""
    payment_method: str = ""
    lines: Sequence[Mapping[str, Any]] = ()
    """As in the contract."""
    discount: float | None = None
    tax: float | None = None
    shipping: float | None = None
    coupons: Sequence[str] = ()
    refunds: Sequence[ShopRefund] = ()
    refunded_total: float | None = None
    """None where the refunds are all that is known."""
    buyer: Buyer = field(default_factory=Buyer)

    @property
    def is_sold(self) -> bool:
        """It was ever paid."""
        return self.paid_at is not None or self.status in _PAID or bool(self.refunds) or bool(self.refunded_total)

    @property
    def read_at(self) -> datetime:
        """As of when this is its state: the last change that is known."""
        times = (self.changed_at, self.paid_at, self.placed_at, *(refund.at for refund in self.refunds))
        return max(each for each in times if each is not None)


def order_items(order: ShopOrder) -> Iterator[Item]:
    """The records of an order and its refunds."""
    origin = f"order {order.id}"
    total = order.refunded_total if order.refunded_total is not None else round(sum(refund.amount for refund in order.refunds), 8)
    for refund in order.refunds:
        yield Item(Kind.REFUNDS, f"refund {refund.id} of {origin}", _refund(order, refund, total), order.id)
    yield Item(Kind.PURCHASES, origin, _purchase(order, total))


def _purchase(order: ShopOrder, refunded_total: float) -> dict[str, Any]:
    first: Mapping[str, Any] = order.lines[0] if order.lines else {}
    buyer = order.buyer
    billing = {name: text(value, 255) for name, value in buyer.billing.items() if value}
    return given(
        id=f"wc-order-{order.id}-import",
        timestamp=rfc3339(order.placed_at),
        user_id=buyer.user_id,
        order_id=order.id,
        product_id=first.get("product_id"),
        product_name=first.get("product_name"),
        product_type=first.get("product_type"),
        amount=max(order.amount, 0.0),
        currency=order.currency.upper(),
        payment_method=text(order.payment_method, 50),
        payment_status=order.status if order.status in STATUSES else ("completed" if order.is_sold else "pending"),
        paid_at=rfc3339(order.paid_at) if order.paid_at else None,
        billing_address=billing,
        country=billing.get("country", "").upper(),
        utm_parameters={name: text(value, 255) for name, value in buyer.utm.items() if value},
        referral_code=text(buyer.referral_code, 100),
        metadata=dict(buyer.metadata),
        email=buyer.email,
        session_id=buyer.session_id if _ID.fullmatch(buyer.session_id) else "",
        lines=[*order.lines[:_MOST_LINES]],
        discount_total=order.discount,
        tax_total=order.tax,
        shipping_total=order.shipping,
        coupon_codes=sorted({text(code, 255).lower() for code in order.coupons} - {""}),
        refunded_total=refunded_total,
        is_staff=buyer.is_staff,
        source=SOURCE,
        reported_at=rfc3339(order.read_at),
        historical=True,
    )


def _refund(order: ShopOrder, refund: ShopRefund, total: float) -> dict[str, Any]:
    return given(
        reference=refund.id,
        amount=refund.amount,
        refunded_total=total,
        timestamp=rfc3339(refund.at),
        reason=_ADDRESS.sub("[e-mail]", text(refund.reason, 255)),
        source=SOURCE,
        reported_at=rfc3339(order.read_at),
        historical=True,
        lines=[*refund.lines[:_MOST_LINES]],
    )


def returned_line(*, product_id: str, quantity: float, amount: float) -> dict[str, Any]:
    """What was refunded of a line as the contract has it, with taxes. WooCommerce has the negative of each."""
    return {"product_id": text(product_id, 100), "quantity": min(abs(int(quantity)), _LARGEST_QUANTITY), "amount": abs(amount)}


def line(
    *, product_id: str, name: str, product_type: str, quantity: float, amount: float, course_ids: Iterable[str] = ()
) -> dict[str, Any]:
    """A line of an order as the contract has it; its amount with taxes."""
    return given(
        product_id=text(product_id, 100),
        product_name=text(name, 255),
        product_type=product_type,
        quantity=min(max(int(quantity), 1), _LARGEST_QUANTITY),
        amount=amount,
        course_ids=[*course_ids],
    )


def given(**fields: Any) -> dict[str, Any]:
    """The fields that have a value; zero and false are values."""
    return {name: value for name, value in fields.items() if value is not None and value not in ("", [], {})}


def text(value: str, length: int) -> str:
    """A text without control characters, of limited length."""
    return _CONTROL.sub(" ", value).strip()[:length]


def rfc3339(at: datetime) -> str:
    """A time as the plugin writes it."""
    at = at.astimezone(UTC)
    return at.strftime("%Y-%m-%dT%H:%M:%S") + (f".{at.microsecond:06d}" if at.microsecond else "") + "Z"
