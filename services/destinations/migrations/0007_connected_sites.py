"""The shop's site that was connected by a code."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "destinations_0007"
down_revision = "destinations_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "connected_sites",
        sa.Column("name", Id(50), primary_key=True),
        sa.Column("url", sa.String(2000), nullable=False),
        sa.Column("connected_at", UtcDateTime, nullable=False),
        **MYSQL,
    )
