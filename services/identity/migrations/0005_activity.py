"""When persons were last active, and what they paid in each currency."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import Exact, UtcDateTime

revision = "identity_0005"
down_revision = "identity_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. The look for inactive persons fills those of users; orders have theirs once purchases is replayed."""
    op.add_column("users", sa.Column("lifetime_values", sa.JSON))
    op.add_column("users", sa.Column("last_active_at", UtcDateTime))
    op.add_column("users", sa.Column("inactive", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_index("idx_inactive", "users", ["inactive", "last_active_at"])
    op.add_column("user_orders", sa.Column("currency", sa.String(3), nullable=False, server_default=""))
    op.add_column("user_orders", sa.Column("net_amount", Exact(), nullable=False, server_default="0"))
    op.add_column("user_orders", sa.Column("sold_at", UtcDateTime))
