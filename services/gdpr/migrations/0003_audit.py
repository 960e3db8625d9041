"""What was done with people's data, as a chain, and the receipts of it."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id

revision = "gdpr_0003"
down_revision = "gdpr_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table and the columns."""
    op.create_table(
        "audit_log",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("entry", sa.Text, nullable=False),
        sa.Column("prev_hash", Id(64), nullable=False),
        sa.Column("hash", Id(64), nullable=False),
        sa.UniqueConstraint("prev_hash", name="uq_audit_log_prev_hash"),
        **MYSQL,
    )
    op.add_column("subject_requests", sa.Column("receipt", sa.Text))
    op.add_column("subject_requests", sa.Column("signature", sa.String(128)))
