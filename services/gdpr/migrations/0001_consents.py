"""The history of consent."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, Serial, UtcDateTime

revision = "gdpr_0001"
down_revision = None
branch_labels = ("gdpr",)
depends_on = "kit_0003"


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "consents",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("purpose", Id(32), nullable=False),
        sa.Column("granted", sa.Boolean, nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Column("source", Id(16), nullable=False),
        sa.Column("policy_version", Id(100), nullable=False),
        sa.Column("client", sa.String(100), nullable=False),
        sa.Column("recorded_at", UtcDateTime, nullable=False),
        sa.Index("idx_consents_choice", "subject", "purpose", "decided_at", "granted", "source", "policy_version", unique=True),
        sa.Index("idx_consents_decided_at", "subject", "decided_at", "id"),
        **MYSQL,
    )
