"""The newest messages of a topic, and who is who."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "kit_0002"
down_revision = "kit_0001"
branch_labels = None
depends_on = None

_PAYLOAD = sa.LargeBinary(length=2**24 - 1)


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "topic_state",
        sa.Column("topic", Id(100), primary_key=True),
        sa.Column("key", Id(600), primary_key=True),
        sa.Column("partition", sa.Integer, nullable=False),
        sa.Column("position", sa.BigInteger, nullable=False),
        sa.Column("ordinal", sa.Integer, nullable=False),
        sa.Column("payload", _PAYLOAD, nullable=False),
        sa.Index("idx_topic_state_position", "topic", "partition", "position", "ordinal"),
        **MYSQL,
    )
    op.create_table(
        "person_aliases",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("user_id", Id(), primary_key=True),
        sa.Column("linked_at", UtcDateTime, nullable=False),
        sa.Index("idx_person_aliases_user_id", "user_id"),
        **MYSQL,
    )
    op.create_table(
        "person_users",
        sa.Column("user_id", Id(), primary_key=True),
        sa.Column("merged_into", Id()),
        sa.Index("idx_person_users_merged_into", "merged_into"),
        **MYSQL,
    )
    op.create_table(
        "persons",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("person_id", Id()),
        sa.Index("idx_persons_person_id", "person_id"),
        **MYSQL,
    )
