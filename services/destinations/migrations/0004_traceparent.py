"""Messages carry the trace context with which they were published, so that their deliveries continue the trace."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "destinations_0004"
down_revision = "destinations_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("delivery_messages", sa.Column("traceparent", sa.String(64), nullable=False, server_default=""))
