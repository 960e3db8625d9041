"""Names of persons who were erased."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "kit_0004"
down_revision = "kit_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table("suppressions", sa.Column("digest", Id(32), primary_key=True), sa.Column("erased_at", UtcDateTime), **MYSQL)
