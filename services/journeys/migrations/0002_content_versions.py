"""A content's hash says by which version it was made, for which it needs room."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "journeys_0002"
down_revision = "journeys_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widens the columns. SQLite does not bound them."""
    if op.get_bind().dialect.name == "mysql":
        op.alter_column("user_journeys", "content_hash", existing_type=sa.VARBINARY(16), type_=sa.VARBINARY(32), existing_nullable=True)
        op.alter_column("conversions", "content_hash", existing_type=sa.VARBINARY(16), type_=sa.VARBINARY(32), existing_nullable=False)
