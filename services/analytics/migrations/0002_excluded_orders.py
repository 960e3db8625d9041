"""Orders that are excluded from totals are kept as well, for who asks to include them."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "analytics_0002"
down_revision = "analytics_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column and its index."""
    op.add_column("analytics_orders", sa.Column("is_excluded", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("idx_analytics_orders_is_excluded", "analytics_orders", ["is_excluded"])
