"""The outcomes of comparing the ledger with the shop."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "purchases_0007"
down_revision = "purchases_0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "shop_comparisons",
        sa.Column("shop", Id(50), primary_key=True),
        sa.Column("checked_at", UtcDateTime, primary_key=True),
        sa.Column("since", UtcDateTime, nullable=False),
        sa.Column("until", UtcDateTime, nullable=False),
        sa.Column("orders", sa.BigInteger, nullable=False),
        sa.Column("found", sa.BigInteger, nullable=False),
        sa.Column("different", sa.BigInteger, nullable=False),
        **MYSQL,
    )
