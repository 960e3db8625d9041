"""How much an erasure took."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id

revision = "kit_0005"
down_revision = "kit_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "erased_rows",
        sa.Column("task", Id(128), primary_key=True),
        sa.Column("table_name", Id(64), primary_key=True),
        sa.Column("count", sa.BigInteger, nullable=False),
        **MYSQL,
    )
