"""Users, the identity graph, and what is known of persons from other topics."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Exact, Id, UtcDateTime

revision = "identity_0001"
down_revision = None
branch_labels = ("identity",)
depends_on = "kit_0002"


def _bytes(length: int) -> sa.types.TypeEngine[bytes]:
    return sa.VARBINARY(length).with_variant(sa.LargeBinary(), "sqlite")


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "users",
        sa.Column("id", Id(), primary_key=True),
        sa.Column("wordpress_id", sa.BigInteger),
        sa.Column("email", _bytes(1100)),
        sa.Column("email_hash", _bytes(32)),
        sa.Column("first_name", _bytes(440)),
        sa.Column("last_name", _bytes(440)),
        sa.Column("registration_date", UtcDateTime),
        sa.Column("last_login", UtcDateTime),
        sa.Column("user_type", sa.Enum("prospect", "lead", "customer", "subscriber", name="user_type"), nullable=False),
        sa.Column("lifetime_value", Exact(), nullable=False),
        sa.Column("utm_attribution", sa.JSON),
        sa.Column("preferences", sa.JSON, nullable=False),
        sa.Column("field_times", sa.JSON, nullable=False),
        sa.Column("lead_at", UtcDateTime),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("updated_at", UtcDateTime, nullable=False),
        sa.Index("idx_email", "email_hash", unique=True),
        sa.Index("idx_wordpress_id", "wordpress_id", unique=True),
        sa.Index("idx_user_type", "user_type"),
        sa.Index("idx_registration_date", "registration_date"),
        **MYSQL,
    )
    op.create_table(
        "identity_links",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("user_id", Id(), primary_key=True),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("evidence", sa.String(16), nullable=False),
        sa.Column("linked_at", UtcDateTime, nullable=False),
        sa.Column("withdrawn", sa.Boolean, nullable=False),
        sa.Index("idx_identity_links_user_id", "user_id"),
        **MYSQL,
    )
    op.create_table(
        "user_merges",
        sa.Column("merged_user_id", Id(), primary_key=True),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("evidence", sa.String(16), nullable=False),
        sa.Column("merged_at", UtcDateTime, nullable=False),
        sa.Column("undone_at", UtcDateTime),
        sa.Index("idx_user_merges_user_id", "user_id"),
        **MYSQL,
    )
    op.create_table(
        "email_subscriptions",
        sa.Column("user_id", Id(), primary_key=True),
        sa.Column("list", Id(100), primary_key=True),
        sa.Column("subscribed", sa.Boolean, nullable=False),
        sa.Column("changed_at", UtcDateTime, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "user_orders",
        sa.Column("purchase_id", Id(), primary_key=True),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("base_net_amount", Exact(), nullable=False),
        sa.Column("paid", sa.Boolean, nullable=False),
        sa.Column("membership", sa.Boolean, nullable=False),
        sa.Column("excluded", sa.Boolean, nullable=False),
        sa.Index("idx_user_orders_subject", "subject"),
        **MYSQL,
    )
    op.create_table(
        "session_campaigns",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("at", UtcDateTime, nullable=False),
        sa.Column("utm", sa.JSON, nullable=False),
        **MYSQL,
    )
    lock = op.create_table("identity_graph", sa.Column("id", sa.Integer, primary_key=True, autoincrement=False), **MYSQL)
    op.bulk_insert(lock, [{"id": 1}])
