"""Positions, outbox, books and dead letters: what every service of the mesh keeps beside its own tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "kit_0001"
down_revision = None
branch_labels = ("kit",)
depends_on = None

# SQLite numbers rows by itself only for a column declared INTEGER.
_BIG = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_PACK = sa.LargeBinary(length=2**24 - 1)


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "stream_offsets",
        sa.Column("topic", Id(100), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", Id(41), nullable=False),
        **MYSQL,
    )
    op.create_table(
        "outbox",
        sa.Column("topic", Id(100), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pack", _PACK, nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "outbox_heads",
        sa.Column("topic", Id(100), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "books",
        sa.Column("topic", Id(100), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("outcome", Id(32), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "log_counters",
        sa.Column("topic", Id(100), primary_key=True),
        sa.Column("partition", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", Id(36), primary_key=True),
        sa.Column("hour", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", Id(32), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "dead_letters",
        sa.Column("id", _BIG, primary_key=True, autoincrement=True),
        sa.Column("topic", Id(100), nullable=False),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("position", Id(41), nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("hour", sa.Integer, nullable=False),
        sa.Column("type", sa.String(255), nullable=False),
        sa.Column("payload", _PACK, nullable=False),
        sa.Column("traceparent", sa.String(64), nullable=False),
        sa.Column("reason", sa.String(255), nullable=False),
        sa.Column("state", Id(16), nullable=False),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.UniqueConstraint("topic", "partition", "position", "ordinal", name="uq_dead_letters_origin"),
        sa.Index("idx_dead_letters_state", "state", "topic", "partition"),
        **MYSQL,
    )
