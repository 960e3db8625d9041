"""Links to archives of what is held of persons."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "gdpr_0005"
down_revision = "gdpr_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "archive_links",
        sa.Column("owner", Id(32), primary_key=True),
        sa.Column("asked_for", Id(32), primary_key=True),
        sa.Column("request_id", Id(36), nullable=False),
        sa.Column("name", sa.LargeBinary(length=1000), nullable=False),
        sa.Column("expires_at", UtcDateTime, nullable=False),
        sa.Column("held_until", UtcDateTime),
        sa.UniqueConstraint("request_id", name="uq_archive_links_request_id"),
        sa.Index("idx_archive_links_expires_at", "expires_at"),
        **MYSQL,
    )
