"""What attribution is read from: paths, and totals by day. All that is there is to be worked off."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, LongText, Serial, UtcDateTime

revision = "journeys_0003"
down_revision = "journeys_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "attribution_paths",
        sa.Column("owner", Id(280), primary_key=True),
        sa.Column("ending", Id(280), primary_key=True),
        sa.Column("ended_at", UtcDateTime, nullable=False),
        sa.Column("bought", sa.Boolean, nullable=False),
        sa.Column("payload", LongText, nullable=False),
        sa.Index("idx_paths_ending", "ending"),
        sa.Index("idx_paths_ended_at", "ended_at", "bought"),
        **MYSQL,
    )
    op.create_table(
        "attribution_totals",
        sa.Column("model", Id(16), primary_key=True),
        sa.Column("group_by", Id(16), primary_key=True),
        sa.Column("day", Id(10), primary_key=True),
        sa.Column("payload", LongText, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "attribution_pending",
        sa.Column("id", Serial, primary_key=True, autoincrement=True),
        sa.Column("subject", Id(280), nullable=False),
        **MYSQL,
    )
    op.create_index("idx_orders_session_id", "journey_orders", ["session_id"])
    # In the order of time: what is worked off together is of few days, of which each has its totals.
    op.execute("""
        INSERT INTO attribution_pending (subject)
        SELECT subject FROM (
            SELECT subject, started_at AS at FROM journey_sessions UNION ALL SELECT subject, paid_at FROM journey_orders
        ) AS seen GROUP BY subject ORDER BY MIN(at)
    """)
