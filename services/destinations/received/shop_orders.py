"""Orders as WooCommerce's REST API represents them. Pure.

https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, TypeAlias

from pmp.purchases.v1 import purchases_pb2 as pb
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from kit.times import timestamp
from services.destinations.received.shop_words import STATUSES, UNPLACED, campaign, is_anonymised, product_of

SOURCE: Final = "woocommerce"
"""The source of reports by WooCommerce's own webhooks."""

_MOST_LINES: Final = 1000
_MOST_COUPONS: Final = 100
_MOST_CHARACTERS: Final = 255
"""Of a coupon's code, or one line of an address."""
_MOST_UTM: Final = 100
"""Characters of a part of a campaign."""


def _utc(at: datetime) -> datetime:
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)


_Time: TypeAlias = Annotated[datetime, AfterValidator(_utc)]
_OptionalTime: TypeAlias = Annotated[_Time | None, BeforeValidator(lambda value: value or None)]
_Money: TypeAlias = Annotated[float, BeforeValidator(lambda value: 0 if value in (None, "") else value), Field(allow_inf_nan=False)]
_Text: TypeAlias = Annotated[str, BeforeValidator(lambda value: "" if value is None else str(value))]


class Line(BaseModel):
    """A line of an order."""

    id: int
    name: _Text = ""
    product_id: int = 0
    variation_id: int = 0
    quantity: _Money = 1
    total: _Money
    total_tax: _Money = 0


class Refund(BaseModel):
    """A refund of an order."""

    total: _Money


class _Meta(BaseModel):
    key: _Text
    value: Any = None


class Coupon(BaseModel):
    """A coupon that was used."""

    code: _Text


class Order(BaseModel):
    """An order."""

    id: int = Field(gt=0)
    number: _Text = ""
    status: str
    currency: str
    total: _Money
    date_created_gmt: _Time
    date_modified_gmt: _Time
    date_paid_gmt: _OptionalTime = None
    discount_total: _Money = 0
    total_tax: _Money = 0
    shipping_total: _Money = 0
    payment_method: _Text = ""
    created_via: _Text = ""
    customer_id: int = 0
    billing: Annotated[dict[str, Any], BeforeValidator(lambda value: value or {})] = {}
    line_items: Annotated[list[Line], BeforeValidator(lambda value: value or [])] = []
    refunds: Annotated[list[Refund], BeforeValidator(lambda value: value or [])] = []
    coupon_lines: Annotated[list[Coupon], BeforeValidator(lambda value: value or [])] = []
    meta_data: Annotated[list[_Meta], BeforeValidator(lambda value: value or [])] = []

    @property
    def is_placed(self) -> bool:
        """False for a draft of the checkout or of the shop's staff."""
        return self.status not in UNPLACED

    @property
    def is_anonymised(self) -> bool:
        """True once the shop has erased the buyer: only the sale is left."""
        return is_anonymised(self._stated_email, self.meta)

    @property
    def meta(self) -> Mapping[str, Any]:
        """The metadata by key."""
        return {each.key: each.value for each in self.meta_data}

    @property
    def user_id(self) -> str:
        """The buyer's account; empty for a guest or an anonymised buyer."""
        return str(self.customer_id) if self.customer_id > 0 and not self.is_anonymised else ""

    @property
    def email(self) -> str:
        """The buyer's e-mail address; empty for none or an anonymised buyer."""
        return "" if self.is_anonymised else self._stated_email

    @property
    def address(self) -> Mapping[str, Any]:
        """The billing address; empty for an anonymised buyer."""
        return {} if self.is_anonymised else self.billing

    @property
    def _stated_email(self) -> str:
        stated = self.billing.get("email")
        return stated.strip() if isinstance(stated, str) and "@" in stated else ""


def purchase_of(order: Order, read_at: datetime) -> pb.Purchase:
    """The report of an order without what is personal: order number and ids are those of the plugin.

    Args:
        order: the order.
        read_at: when it was as it is represented: as a rule the time of its last modification.
    """
    return pb.Purchase(
        id=f"wc-webhook-{order.id}",
        timestamp=timestamp(order.date_created_gmt),
        order_id=str(order.id),
        amount=order.total,
        currency=order.currency,
        payment_method=order.payment_method[:50],
        payment_status=_status(order),
        paid_at=timestamp(order.date_paid_gmt),
        reason="trashed" if order.status == "trash" else "",
        lines=list(map(_line, order.line_items[:_MOST_LINES])),
        refunded_total=sum(abs(refund.total) for refund in order.refunds),
        discount_total=order.discount_total,
        tax_total=order.total_tax,
        shipping_total=order.shipping_total,
        country=_country(order.address),
        source=SOURCE,
        reported_at=timestamp(read_at),
    )


def personal_of(order: Order) -> pb.Purchase:
    """What is personal in an order, as a part of its report.

    The billing address is left out where the buyer has no identifier, and everything but coupons where the buyer is anonymised.
    """
    personal = pb.Purchase(
        user_id=order.user_id,
        email=order.email,
        coupon_codes=[coupon.code[:_MOST_CHARACTERS] for coupon in order.coupon_lines[:_MOST_COUPONS]],
    )
    if order.is_anonymised:
        return personal
    address = {name: value[:_MOST_CHARACTERS] for name, value in order.address.items() if isinstance(value, str) and value}
    if order.user_id or order.email:
        personal.billing_address.update(address)
    for name, value in campaign(order.meta).items():
        setattr(personal.utm_parameters, name, value[:_MOST_UTM])
    number = order.number if order.number != str(order.id) else ""
    personal.metadata.update({name: value for name, value in (("created_via", order.created_via), ("order_number", number)) if value})
    return personal


def deleted(known: pb.RecordedPurchase, at: datetime) -> pb.Purchase:
    """The report that the shop has deleted an order, which else is as it was known."""
    return pb.Purchase(
        id=f"wc-webhook-{known.order_id}-deleted",
        timestamp=known.timestamp,
        order_id=known.order_id,
        amount=known.amount,
        currency=known.currency,
        payment_method=known.payment_method,
        payment_status="cancelled",
        paid_at=known.paid_at if known.HasField("paid_at") else None,
        reason="deleted",
        lines=known.lines,
        refunded_total=known.refunded_amount,
        is_test=known.is_test,
        is_staff=known.is_staff,
        source=SOURCE,
        reported_at=timestamp(at),
    )


def _line(line: Line) -> pb.PurchaseLine:
    return pb.PurchaseLine(
        product_id=product_of(line.variation_id, line.product_id, line.id),
        product_name=line.name[:255],
        quantity=min(max(int(line.quantity), 1), 1_000_000),
        amount=line.total + line.total_tax,
    )


def _status(order: Order) -> str:
    """A custom status counts as paid if the order has a date of payment."""
    if order.status == "trash":
        return "cancelled"
    if order.status in STATUSES:
        return order.status
    return "completed" if order.date_paid_gmt else "pending"


def _country(billing: Mapping[str, Any]) -> str:
    country = billing.get("country")
    return country if isinstance(country, str) and country.isascii() and country.isalpha() and len(country) == len("DE") else ""
