"""What people allow."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "kit_0003"
down_revision = "kit_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "person_consents",
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("analytics_tracking", sa.Boolean),
        sa.Column("analytics_tracking_at", UtcDateTime),
        sa.Column("marketing_emails", sa.Boolean),
        sa.Column("marketing_emails_at", UtcDateTime),
        sa.Column("third_party_sharing", sa.Boolean),
        sa.Column("third_party_sharing_at", UtcDateTime),
        **MYSQL,
    )
