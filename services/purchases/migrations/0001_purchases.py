"""Orders, their lines, the ledger, the notices and exchange rates."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Exact, Id, Serial, UtcDateTime

revision = "purchases_0001"
down_revision = None
branch_labels = ("purchases",)
depends_on = "kit_0002"

_HASH = sa.VARBINARY(32).with_variant(sa.LargeBinary(), "sqlite")
_SEALED = sa.VARBINARY(1100).with_variant(sa.LargeBinary(), "sqlite")


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "purchases",
        sa.Column("id", Id(), primary_key=True),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("user_id", Id()),
        sa.Column("wordpress_order_id", sa.BigInteger),
        sa.Column("product_id", sa.String(100)),
        sa.Column("product_name", sa.String(255)),
        sa.Column("product_type", sa.String(20)),
        sa.Column("amount", Exact(), nullable=False),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("payment_method", sa.String(50)),
        sa.Column("payment_status", sa.String(20), nullable=False),
        sa.Column("utm_attribution", sa.JSON),
        sa.Column("billing_data", sa.LargeBinary(2**24 - 1)),
        sa.Column("metadata", sa.JSON),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Column("site", Id(100), nullable=False),
        sa.Column("order_id", Id(100), nullable=False),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("session_id", Id()),
        sa.Column("email", _SEALED),
        sa.Column("email_hash", _HASH),
        sa.Column("paid_at", UtcDateTime),
        sa.Column("paid_amount", Exact(), nullable=False),
        sa.Column("refunded_amount", Exact(), nullable=False),
        sa.Column("rate_units", Exact(24, 12)),
        sa.Column("rate_base_units", Exact(24, 12)),
        sa.Column("base_currency", sa.String(3), nullable=False),
        sa.Column("base_net_amount", Exact()),
        sa.Column("is_test", sa.Boolean, nullable=False),
        sa.Column("is_staff", sa.Boolean, nullable=False),
        sa.Column("disputed", sa.Boolean, nullable=False),
        sa.Column("lines_fixed", sa.Boolean, nullable=False),
        sa.UniqueConstraint("site", "order_id", name="uq_purchases_order"),
        sa.Index("idx_user_id", "user_id"),
        sa.Index("idx_timestamp", "timestamp", "id"),
        sa.Index("idx_product_type", "product_type"),
        sa.Index("idx_payment_status", "payment_status", "timestamp", "id"),
        sa.Index("idx_wordpress_order_id", "wordpress_order_id"),
        sa.Index("idx_subject", "subject", "timestamp", "id"),
        sa.Index("idx_unpriced", "base_net_amount", "id"),
        **MYSQL,
    )
    op.create_table(
        "purchase_lines",
        sa.Column("purchase_id", Id(), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("product_id", Id(100), nullable=False),
        sa.Column("product_name", sa.String(255), nullable=False),
        sa.Column("product_type", sa.String(20), nullable=False),
        sa.Column("quantity", sa.Integer, nullable=False),
        sa.Column("amount", Exact(), nullable=False),
        sa.Index("idx_product_id", "product_id", "purchase_id"),
        **MYSQL,
    )
    op.create_table(
        "purchase_entries",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("purchase_id", Id(), nullable=False),
        sa.Column("site", Id(100), nullable=False),
        sa.Column("order_id", Id(100), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("reference", Id(), nullable=False, server_default=""),
        sa.Column("amount", Exact(), nullable=False),
        sa.Column("base_amount", Exact()),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("booked_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("site", "order_id", "kind", "reference", name="uq_purchase_entries"),
        sa.Index("idx_entry_purchase_id", "purchase_id", "id"),
        sa.Index("idx_entry_timestamp", "timestamp"),
        **MYSQL,
    )
    op.create_table(
        "purchase_notices",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("purchase_id", Id(), nullable=False),
        sa.Column("kind", sa.String(20), nullable=False),
        sa.Column("reference", Id(), nullable=False),
        sa.Column("status", sa.String(20)),
        sa.Column("amount", Exact()),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("refunded_total", Exact()),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("source", sa.String(50), nullable=False),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("is_news", sa.Boolean, nullable=False),
        sa.Column("changed", sa.String(500), nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Index("idx_notice_purchase_id", "purchase_id", "is_news", "id"),
        **MYSQL,
    )
    op.create_table(
        "exchange_rates",
        sa.Column("day", sa.Date, primary_key=True),
        sa.Column("currency", sa.String(3), primary_key=True),
        sa.Column("units", Exact(24, 12), nullable=False),
        sa.Column("source", sa.String(50), nullable=False),
        **MYSQL,
    )
