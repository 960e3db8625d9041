"""Touchpoints, conversions, sessions and orders."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Exact, Id, UtcDateTime

revision = "journeys_0001"
down_revision = None
branch_labels = ("journeys",)
depends_on = "kit_0002"


def _hash(length: int) -> sa.types.TypeEngine[bytes]:
    return sa.VARBINARY(length).with_variant(sa.LargeBinary(), "sqlite")


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "user_journeys",
        sa.Column("id", Id(280), primary_key=True),
        sa.Column("user_id", Id()),
        sa.Column("session_id", Id()),
        sa.Column("stage", sa.String(50), nullable=False),
        sa.Column("touchpoint", sa.String(100), nullable=False),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("source", sa.String(255)),
        sa.Column("medium", sa.String(255)),
        sa.Column("campaign", sa.String(255)),
        sa.Column("page_url", sa.Text),
        sa.Column("action_taken", Id(100), nullable=False),
        sa.Column("value_generated", Exact(), nullable=False, server_default="0"),
        sa.Column("time_spent", sa.Integer, nullable=False, server_default="0"),
        sa.Column("metadata", sa.JSON),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("channel", sa.String(16), nullable=False),
        sa.Column("origin", sa.String(16), nullable=False),
        sa.Column("content_hash", _hash(16)),
        sa.Index("idx_user_id", "user_id"),
        sa.Index("idx_session_id", "session_id"),
        sa.Index("idx_stage", "stage"),
        sa.Index("idx_timestamp", "timestamp"),
        sa.Index("idx_touchpoint", "touchpoint"),
        sa.Index("idx_subject", "subject", "timestamp", "id"),
        sa.Index("idx_action_taken", "action_taken", "timestamp", "id", "subject"),
        **MYSQL,
    )
    op.create_table(
        "conversions",
        sa.Column("id", Id(), primary_key=True),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("user_id", Id()),
        sa.Column("session_id", Id()),
        sa.Column("conversion_type", sa.String(100), nullable=False),
        sa.Column("value", Exact()),
        sa.Column("currency", sa.String(3), nullable=False),
        sa.Column("email_hash", _hash(32)),
        sa.Column("source", sa.String(100)),
        sa.Column("page_url", sa.Text),
        sa.Column("utm_parameters", sa.JSON),
        sa.Column("metadata", sa.JSON),
        sa.Column("content_hash", _hash(16), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Index("idx_conversions_subject", "subject", "timestamp"),
        sa.Index("idx_conversions_type", "conversion_type", "timestamp"),
        sa.Index("idx_conversions_timestamp", "timestamp"),
        **MYSQL,
    )
    op.create_table(
        "journey_sessions",
        sa.Column("session", Id(280), primary_key=True),
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("started_at", UtcDateTime),
        sa.Column("external_at", UtcDateTime),
        sa.Column("external_id", Id(280)),
        sa.Column("source", sa.String(255)),
        sa.Column("medium", sa.String(255)),
        sa.Column("campaign", sa.String(255)),
        sa.Index("idx_sessions_subject", "subject", "started_at"),
        sa.Index("idx_sessions_started_at", "started_at"),
        **MYSQL,
    )
    op.create_table(
        "journey_orders",
        sa.Column("purchase_id", Id(), primary_key=True),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("session_id", Id()),
        sa.Column("ordered_at", UtcDateTime, nullable=False),
        sa.Column("paid_at", UtcDateTime),
        sa.Column("status", sa.String(32), nullable=False),
        sa.Column("net", Exact()),
        sa.Column("excluded", sa.Boolean, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Index("idx_orders_subject", "subject", "paid_at"),
        sa.Index("idx_orders_paid_at", "paid_at"),
        **MYSQL,
    )
