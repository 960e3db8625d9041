"""Orders and entries that are history: reported by an import or a backfill."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "purchases_0005"
down_revision = "purchases_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; what was reported before counts as live."""
    for table in ("purchases", "purchase_entries"):
        op.add_column(table, sa.Column("historical", sa.Boolean, nullable=False, server_default=sa.false()))
