"""Where the feed of content was read up to, and the alarms that have not ended."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "destinations_0003"
down_revision = "destinations_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "content_cursors",
        sa.Column("feed", Id(50), primary_key=True),
        sa.Column("cursor", Id(50), nullable=False),
        **MYSQL,
    )
    op.create_table(
        "alarms",
        sa.Column("alarm", Id(100), primary_key=True),
        sa.Column("since", UtcDateTime, nullable=False),
        **MYSQL,
    )
