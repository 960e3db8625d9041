"""What destinations answered to an erasure."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "gdpr_0006"
down_revision = "gdpr_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("request_steps", sa.Column("answers", sa.JSON))
