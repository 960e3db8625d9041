"""Facts of sessions, orders and registrations, and totals by day. Tables that are read by ranges of their keys are ordered by them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, LongText, Serial, UtcDateTime

revision = "analytics_0001"
down_revision = None
branch_labels = ("analytics",)
depends_on = "kit_0002"


def _counts(*names: str) -> list[sa.Column[int]]:
    return [sa.Column(name, sa.BigInteger, nullable=False) for name in names]


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "analytics_sessions",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("carrier", Id(280), nullable=False),
        sa.Column("subject", Id(280)),
        sa.Column("started_at", UtcDateTime, nullable=False),
        sa.Column("ended_at", UtcDateTime, nullable=False),
        sa.Column("payload", LongText, nullable=False),
        sa.Index("idx_analytics_sessions_carrier", "carrier", "ended_at"),
        sa.Index("idx_analytics_sessions_subject", "subject"),
        sa.Index("idx_analytics_sessions_started_at", "started_at"),
        **MYSQL,
    )
    op.create_table(
        "analytics_orders",
        sa.Column("purchase_id", Id(), primary_key=True),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("carrier", Id(280)),
        sa.Column("visitor", Id(280)),
        sa.Column("sold_at", UtcDateTime),
        sa.Column("net", sa.BigInteger, nullable=False),
        sa.Column("payload", LongText, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Index("idx_analytics_orders_subject", "subject"),
        sa.Index("idx_analytics_orders_carrier", "carrier"),
        sa.Index("idx_analytics_orders_visitor", "visitor"),
        sa.Index("idx_analytics_orders_sold_at", "sold_at"),
        **MYSQL,
    )
    op.create_table(
        "analytics_products",
        sa.Column("product_id", Id(100), primary_key=True),
        sa.Column("title", sa.String(255), nullable=False),
        **MYSQL,
    )
    op.create_table(
        "analytics_courses",
        sa.Column("course_id", Id(), primary_key=True),
        sa.Column("title", sa.String(255), nullable=False),
        **MYSQL,
    )
    op.create_table(
        "analytics_registrations",
        sa.Column("user_id", Id(), primary_key=True),
        sa.Column("day", sa.Integer, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "analytics_presences",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("audience", Id(280), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("visitor", Id(280), nullable=False),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Index("idx_analytics_presences_visitor", "visitor"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "analytics_customer_months",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("month", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("customer", Id(280), nullable=False),
        sa.Column("orders", sa.Integer, nullable=False),
        sa.Column("net", sa.BigInteger, nullable=False),
        sa.Column("registrations", sa.Integer, nullable=False),
        sa.Index("idx_analytics_customer_months_customer", "customer"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "analytics_cohorts",
        sa.Column("basis", Id(16), primary_key=True),
        sa.Column("cohort", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("month", sa.Integer, primary_key=True, autoincrement=False),
        *_counts("members", "net"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "analytics_audiences",
        sa.Column("audience", Id(280), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("previous_day", sa.Integer, primary_key=True, autoincrement=False),
        *_counts("members"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "analytics_traffic",
        sa.Column("dimension", Id(16), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", Id(), primary_key=True),
        *_counts("visits", "bounces", "seconds", "page_views", "events", "leads", "registrations", "enrolments", "completions"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "analytics_revenue",
        sa.Column("dimension", Id(16), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", Id(), primary_key=True),
        sa.Column("currency", Id(3), primary_key=True),
        *_counts("orders", "quantity", "gross", "refunds", "corrections", "base_gross", "base_refunds", "base_corrections"),
        *_counts("entries", "unrated", "discounts", "taxes", "shipping", "base_discounts", "base_taxes", "base_shipping"),
        *_counts("base_commissions"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
    op.create_table(
        "analytics_content",
        sa.Column("dimension", Id(16), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("course", Id(), primary_key=True),
        sa.Column("value", Id(), primary_key=True),
        *_counts("visits", "orders", "base_gross", "base_refunds", "base_corrections"),
        sqlite_with_rowid=False,
        **MYSQL,
    )
