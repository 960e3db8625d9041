"""The courses that a line of an order gives access to."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "purchases_0004"
down_revision = "purchases_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("purchase_lines", sa.Column("course_ids", sa.JSON))
