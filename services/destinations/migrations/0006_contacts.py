"""Under which addresses destinations keep persons."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "destinations_0006"
down_revision = "destinations_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the table."""
    op.create_table(
        "destination_contacts",
        sa.Column("destination", Id(50), primary_key=True),
        sa.Column("subject", Id(280), primary_key=True),
        sa.Column("user_id", Id(), nullable=False),
        sa.Column("email", sa.LargeBinary(length=1000), nullable=False),
        sa.Column("is_former", sa.Boolean, nullable=False),
        sa.Column("sent_at", UtcDateTime, nullable=False),
        sa.Index("idx_destination_contacts_user", "user_id", "destination"),
        sa.Index("idx_destination_contacts_subject", "subject"),
        **MYSQL,
    )
