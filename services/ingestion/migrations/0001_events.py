"""The event store and the processing log."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "ingestion_0001"
down_revision = None
branch_labels = ("ingestion",)
depends_on = "kit_0001"


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "events",
        sa.Column("id", Id(), primary_key=True),
        sa.Column("timestamp", UtcDateTime, nullable=False),
        sa.Column("user_id", Id()),
        sa.Column("session_id", Id()),
        sa.Column("event_type", sa.String(100), nullable=False),
        sa.Column("event_category", sa.String(50)),
        sa.Column("platform", sa.String(50), nullable=False, server_default="wordpress"),
        sa.Column("source", sa.String(100)),
        sa.Column("page_url", sa.Text),
        sa.Column("referrer", sa.Text),
        sa.Column("utm_parameters", sa.JSON),
        sa.Column("event_data", sa.JSON, nullable=False),
        sa.Column("email_hash", sa.VARBINARY(32).with_variant(sa.LargeBinary(), "sqlite")),
        sa.Column("content_hash", sa.VARBINARY(32).with_variant(sa.LargeBinary(), "sqlite"), nullable=False),
        sa.Column("processed", sa.Boolean, nullable=False, server_default=sa.false()),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("client", sa.String(100), nullable=False),
        sa.Column("scope", sa.String(16), nullable=False),
        sa.Column("topic_partition", sa.Integer, nullable=False),
        sa.Column("topic_position", sa.BigInteger, nullable=False),
        sa.Column("topic_ordinal", sa.Integer, nullable=False),
        sa.Index("idx_user_id", "user_id"),
        sa.Index("idx_session_id", "session_id"),
        sa.Index("idx_event_type", "event_type"),
        sa.Index("idx_timestamp", "timestamp"),
        sa.Index("idx_platform", "platform"),
        sa.Index("idx_processed", "processed"),
        sa.Index("idx_topic_position", "topic_partition", "topic_position"),
        **MYSQL,
    )
    op.create_table(
        "event_processing_log",
        sa.Column("id", sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True),
        sa.Column("event_id", Id(), nullable=False),
        sa.Column("outcome", sa.String(32), nullable=False),
        sa.Column("received_at", UtcDateTime, nullable=False),
        sa.Column("processed_at", UtcDateTime, nullable=False),
        sa.Column("log_position", sa.String(64), nullable=False),
        sa.Index("idx_event_id", "event_id"),
        **MYSQL,
    )
