"""Where to reach, in other systems, the person that a request is about."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "gdpr_0004"
down_revision = "gdpr_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("subject_requests", sa.Column("contacts", sa.LargeBinary(length=2**24 - 1)))
