"""Conflicts between the mesh and the shop's site."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "destinations_0005"
down_revision = "destinations_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "conflicts",
        sa.Column("id", Id(), primary_key=True),
        sa.Column("subject", Id(280), nullable=False),
        sa.Column("field", Id(50), nullable=False),
        sa.Column("kept", Id(16), nullable=False),
        sa.Column("site_value", sa.LargeBinary(length=2048), nullable=False),
        sa.Column("mesh_value", sa.LargeBinary(length=2048), nullable=False),
        sa.Column("decided_at", UtcDateTime, nullable=False),
        sa.Index("idx_conflicts_subject", "subject"),
        sa.Index("idx_conflicts_decided_at", "decided_at", "id"),
        **MYSQL,
    )
