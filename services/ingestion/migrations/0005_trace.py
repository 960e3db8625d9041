"""Each delivery of an event names its trace, by which `pmp trace` finds the spans."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import Id

revision = "ingestion_0005"
down_revision = "ingestion_0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column."""
    op.add_column("event_processing_log", sa.Column("trace_id", Id(32)))
