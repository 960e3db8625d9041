"""Users that are history: created by an import or a backfill."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "identity_0003"
down_revision = "identity_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column; users that were created before count as live."""
    op.add_column("users", sa.Column("historical", sa.Boolean, nullable=False, server_default=sa.false()))
