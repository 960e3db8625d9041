"""Events are found by their e-mail address, for requests about personal data."""

from __future__ import annotations

from alembic import op

revision = "ingestion_0002"
down_revision = "ingestion_0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the index."""
    op.create_index("idx_email_hash", "events", ["email_hash"])
