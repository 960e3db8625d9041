"""Destinations, deliveries, the messages these are made of, and answers to erasures."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, Serial, UtcDateTime

revision = "destinations_0001"
down_revision = None
branch_labels = ("destinations",)
depends_on = "kit_0002"


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "destinations",
        sa.Column("name", Id(50), primary_key=True),
        sa.Column("kind", Id(50), nullable=False),
        sa.Column("added_at", UtcDateTime, nullable=False),
        sa.Column("is_paused", sa.Boolean, nullable=False),
        sa.Column("pause_reason", sa.String(200), nullable=False),
        *(
            sa.Column(name, sa.Integer, nullable=False)
            for name in ("pending", "delivered", "withheld", "expired", "dead", "attempts", "failures", "opened")
        ),
        sa.Column("open_until", UtcDateTime),
        sa.Column("window_began_at", UtcDateTime),
        sa.Column("window_attempts", sa.Integer, nullable=False),
        sa.Column("window_failures", sa.Integer, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "deliveries",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("destination", Id(50), nullable=False),
        sa.Column("name", Id(120), nullable=False),
        sa.Column("key", Id(), nullable=False),
        sa.Column("about", Id(280), nullable=False),
        sa.Column("message_id", Id(100), nullable=False),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("order_by", Id(280), nullable=False),
        sa.Column("needs_consent", sa.Boolean, nullable=False),
        sa.Column("happened_at", UtcDateTime, nullable=False),
        sa.Column("state", Id(16), nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("claim", Id(32), nullable=False),
        sa.Column("not_before", UtcDateTime),
        sa.Column("next_attempt_at", UtcDateTime, nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Column("detail", sa.String(200), nullable=False),
        sa.Index("idx_deliveries_key", "destination", "key", unique=True),
        sa.Index("idx_deliveries_due", "destination", "state", "next_attempt_at"),
        sa.Index("idx_deliveries_age", "destination", "state", "decided_at"),
        sa.Index("idx_deliveries_order", "destination", "order_by", "state"),
        sa.Index("idx_deliveries_about", "about"),
        sa.Index("idx_deliveries_subject", "subject"),
        **MYSQL,
    )
    op.create_table(
        "delivery_messages",
        sa.Column("id", Id(100), primary_key=True),
        sa.Column("type", Id(100), nullable=False),
        sa.Column("payload", sa.LargeBinary(length=2**24 - 1), nullable=False),
        sa.Column("subject", Id(280)),
        sa.Column("session", Id(280)),
        sa.Column("email", Id(280)),
        sa.Column("stored_at", UtcDateTime, nullable=False),
        sa.Index("idx_delivery_messages_subject", "subject"),
        sa.Index("idx_delivery_messages_session", "session"),
        sa.Index("idx_delivery_messages_email", "email"),
        sa.Index("idx_delivery_messages_stored_at", "stored_at"),
        **MYSQL,
    )
    op.create_table(
        "destination_erasures",
        sa.Column("request", Id(64), primary_key=True),
        sa.Column("destination", Id(50), primary_key=True),
        sa.Column("answer", sa.String(200), nullable=False),
        sa.Column("answered_at", UtcDateTime, nullable=False),
        **MYSQL,
    )
