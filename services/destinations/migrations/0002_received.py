"""Received webhooks, and the payments that they name."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, Serial, UtcDateTime

revision = "destinations_0002"
down_revision = "destinations_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "received_webhooks",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("sender", Id(20), nullable=False),
        sa.Column("event_id", Id(), nullable=False),
        sa.Column("fact", Id(), nullable=False),
        sa.Column("kind", sa.String(100), nullable=False),
        sa.Column("effect", Id(20), nullable=False),
        sa.Column("order_id", Id(100)),
        sa.Column("payments", sa.String(600), nullable=False),
        sa.Column("request", sa.LargeBinary(length=2**24 - 1)),
        sa.Column("personal", sa.LargeBinary(length=2**24 - 1)),
        sa.Column("subject", Id(280)),
        sa.Column("happened_at", UtcDateTime, nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("state", Id(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("next_attempt_at", UtcDateTime, nullable=False),
        sa.Column("detail", sa.String(200), nullable=False),
        sa.Index("idx_received_event", "sender", "event_id", unique=True),
        sa.Index("idx_received_fact", "sender", "fact", unique=True),
        sa.Index("idx_received_due", "state", "next_attempt_at"),
        sa.Index("idx_received_subject", "subject"),
        sa.Index("idx_received_at", "received_at"),
        **MYSQL,
    )
    op.create_table(
        "received_payments",
        sa.Column("sender", Id(20), primary_key=True),
        sa.Column("payment", Id(), primary_key=True),
        sa.Column("order_id", Id(100), nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Index("idx_received_payments_at", "received_at"),
        **MYSQL,
    )
