"""What is known of the browser in which an order was placed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "purchases_0006"
down_revision = "purchases_0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("purchases", sa.Column("visitor", sa.LargeBinary(length=2**24 - 1)))
