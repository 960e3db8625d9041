"""Campaigns are found by their time, for they may be deleted once they are too old."""

from __future__ import annotations

from alembic import op

revision = "identity_0002"
down_revision = "identity_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the index."""
    op.create_index("idx_session_campaigns_at", "session_campaigns", ["at"])
