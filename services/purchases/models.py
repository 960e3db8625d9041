"""Tables of purchases: orders, their lines, the ledger of money in and out, the reports about them, exchange rates."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Date, Index, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import Exact, Id, Serial, UtcDateTime

Money = Exact(23, 8)
"""An amount: twelve digits, and the minor unit of any currency."""


class Base(DeclarativeBase):
    """Tables of this service."""


class PurchaseRow(Base):
    """An order in its current state, which follows from its reports."""

    __tablename__ = "purchases"
    __table_args__ = (
        UniqueConstraint("site", "order_id", name="uq_purchases_order"),
        Index("idx_sold_at", "sold_at", "id"),
        Index("idx_user_id", "user_id"),
        Index("idx_timestamp", "timestamp", "id"),
        Index("idx_product_type", "product_type"),
        Index("idx_payment_status", "payment_status", "timestamp", "id"),
        Index("idx_wordpress_order_id", "wordpress_order_id"),
        Index("idx_subject", "subject", "timestamp", "id"),
        Index("idx_unpriced", "base_net_amount", "id"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    """Follows from site and order, so that two first reports at one instant are about the same purchase."""
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    user_id: Mapped[str | None] = mapped_column(Id)
    """As reported; empty for a guest."""
    wordpress_order_id: Mapped[int | None] = mapped_column(BigInteger)
    product_id: Mapped[str | None] = mapped_column(String(100))
    product_name: Mapped[str | None] = mapped_column(String(255))
    product_type: Mapped[str | None] = mapped_column(String(20))
    amount: Mapped[Decimal] = mapped_column(Money)
    currency: Mapped[str] = mapped_column(String(3))
    payment_method: Mapped[str | None] = mapped_column(String(50))
    payment_status: Mapped[str] = mapped_column(String(20))
    utm_attribution: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    billing_data: Mapped[bytes | None] = mapped_column(LargeBinary(2**24 - 1))
    """JSON, sealed."""
    visitor: Mapped[bytes | None] = mapped_column(LargeBinary(2**24 - 1))
    """What the report says of the buyer's browser: JSON, sealed."""
    details: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    site: Mapped[str] = mapped_column(Id(100))
    order_id: Mapped[str] = mapped_column(Id(100))
    subject: Mapped[str] = mapped_column(Id(280))
    """The strongest reported identifier of the buyer."""
    session_id: Mapped[str | None] = mapped_column(Id)
    email: Mapped[bytes | None] = mapped_column(LargeBinary(1100))
    """Sealed."""
    email_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    sold_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The time of the first payment, even if it was reversed since."""
    ordered_on: Mapped[date | None] = mapped_column(Date)
    """The day of the order where the shop is, which decides its rate. Set once the order is sold."""
    paid_amount: Mapped[Decimal] = mapped_column(Money)
    refunded_amount: Mapped[Decimal] = mapped_column(Money)
    rate_units: Mapped[Decimal | None] = mapped_column(Exact(24, 12))
    rate_base_units: Mapped[Decimal | None] = mapped_column(Exact(24, 12))
    """The rate, as units of either currency for one euro: pinned when the sale is booked."""
    base_currency: Mapped[str] = mapped_column(String(3))
    base_net_amount: Mapped[Decimal | None] = mapped_column(Money)
    """Paid less refunded in the base currency; NULL while a sold order has no rate."""
    is_test: Mapped[bool] = mapped_column(Boolean)
    is_staff: Mapped[bool] = mapped_column(Boolean)
    disputed: Mapped[bool] = mapped_column(Boolean)
    lines_fixed: Mapped[bool] = mapped_column(Boolean)
    """A paid report had the amount, and the lines are known: no undated report changes them."""
    discount_total: Mapped[Decimal | None] = mapped_column(Money)
    """Without taxes; NULL when not reported, like the other totals."""
    tax_total: Mapped[Decimal | None] = mapped_column(Money)
    shipping_total: Mapped[Decimal | None] = mapped_column(Money)
    """Without taxes."""
    coupon_codes: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """In lower case, sorted."""
    country: Mapped[str | None] = mapped_column(String(2))
    """ISO 3166-1 alpha-2 code of the country of the billing address."""
    referral_code: Mapped[str | None] = mapped_column(String(100))
    """The code of the partner who brought the buyer."""
    historical: Mapped[bool] = mapped_column(Boolean, default=False)
    """No live report made it what it is; see `history`."""


class LineRow(Base):
    """One line of an order."""

    __tablename__ = "purchase_lines"
    __table_args__ = (Index("idx_product_id", "product_id", "purchase_id"),)

    purchase_id: Mapped[str] = mapped_column(Id, primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    product_id: Mapped[str] = mapped_column(Id(100))
    product_name: Mapped[str] = mapped_column(String(255))
    product_type: Mapped[str] = mapped_column(String(20))
    quantity: Mapped[int] = mapped_column(Integer)
    amount: Mapped[Decimal] = mapped_column(Money)
    course_ids: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    """The courses that it gives access to; NULL where the shop states none."""


class EntryRow(Base):
    """An entry of the ledger, append-only: `base_amount` and `lines` alone are set later, once, if they were not known at first."""

    __tablename__ = "purchase_entries"
    __table_args__ = (
        UniqueConstraint("site", "order_id", "kind", "reference", name="uq_purchase_entries"),
        Index("idx_entry_purchase_id", "purchase_id", "id"),
        Index("idx_entry_timestamp", "timestamp"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    purchase_id: Mapped[str] = mapped_column(Id)
    site: Mapped[str] = mapped_column(Id(100))
    order_id: Mapped[str] = mapped_column(Id(100))
    kind: Mapped[str] = mapped_column(String(20))
    reference: Mapped[str] = mapped_column(Id, default="")
    amount: Mapped[Decimal] = mapped_column(Money)
    """Signed."""
    base_amount: Mapped[Decimal | None] = mapped_column(Money)
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    """Date of the sale, the refund or the correction."""
    booked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reason: Mapped[str] = mapped_column(String(20), default="")
    """The reason for a correction."""
    historical: Mapped[bool] = mapped_column(Boolean, default=False)
    """Booked by a historical report, and not confirmed in time by a live one."""
    lines: Mapped[list[dict[str, Any]] | None] = mapped_column("returned_lines", JSON(none_as_null=True))
    """What a refund returned; NULL while it is not known."""


class ReportRow(Base):
    """A report about an order, and what it changed, append-only. Every figure follows from these."""

    __tablename__ = "purchase_notices"
    __table_args__ = (Index("idx_notice_purchase_id", "purchase_id", "is_news", "id"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    purchase_id: Mapped[str] = mapped_column(Id)
    kind: Mapped[str] = mapped_column(String(20))
    reference: Mapped[str] = mapped_column(Id)
    """The report's own id or number, as reported."""
    status: Mapped[str | None] = mapped_column(String(20))
    amount: Mapped[Decimal | None] = mapped_column(Money)
    currency: Mapped[str] = mapped_column(String(3))
    refunded_total: Mapped[Decimal | None] = mapped_column(Money)
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    """The time at which it happened; of a purchase, the time of its payment."""
    source: Mapped[str] = mapped_column(String(50))
    reason: Mapped[str] = mapped_column(String(255))
    adds_facts: Mapped[bool] = mapped_column("is_news", Boolean)
    """It adds to the facts from which the order's state follows; a repeated report does not."""
    changed: Mapped[str] = mapped_column(String(500))
    """The columns of the order that it changed; empty for none."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    reported_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The time at which its source read the order."""
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """The time of the payment; NULL when not reported."""
    deleted: Mapped[bool] = mapped_column(Boolean, default=False)
    """As in a claim."""
    payment: Mapped[str] = mapped_column(Id, default="")
    """The payment that a refund is of; empty if it is not known."""
    lines: Mapped[list[dict[str, Any]] | None] = mapped_column("returned_lines", JSON(none_as_null=True))
    """What a refund returned; NULL when not reported."""


class RateRow(Base):
    """Units of a currency for one euro on a day."""

    __tablename__ = "exchange_rates"

    day: Mapped[date] = mapped_column(Date, primary_key=True)
    currency: Mapped[str] = mapped_column(String(3), primary_key=True)
    units: Mapped[Decimal] = mapped_column(Exact(24, 12))
    source: Mapped[str] = mapped_column(String(50))


class ComparisonRow(Base):
    """The outcome of comparing the ledger with the shop."""

    __tablename__ = "shop_comparisons"

    shop: Mapped[str] = mapped_column(Id(50), primary_key=True)
    """What it was compared with."""
    checked_at: Mapped[datetime] = mapped_column(UtcDateTime, primary_key=True)
    since: Mapped[datetime] = mapped_column(UtcDateTime)
    until: Mapped[datetime] = mapped_column(UtcDateTime)
    """The compared orders were placed from `since` on, and before `until`."""
    orders: Mapped[int] = mapped_column(BigInteger)
    found: Mapped[int] = mapped_column(BigInteger)
    """Orders that differed at first."""
    different: Mapped[int] = mapped_column(BigInteger)
    """Orders that differed in the end."""
