"""Keys of persons."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "subject_keys_0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "subject_keys",
        sa.Column("owner", Id(32), primary_key=True),
        sa.Column("generation", sa.SmallInteger, primary_key=True, autoincrement=False),
        sa.Column("wrapped", sa.VARBINARY(255).with_variant(sa.LargeBinary(), "sqlite")),
        sa.Column("wrapped_by", Id(16)),
        sa.Column("created_at", UtcDateTime, nullable=False),
        sa.Column("destroyed_at", UtcDateTime),
        **MYSQL,
    )
