"""The feed of changes of content. What is known so far is the first change of each row."""

from __future__ import annotations

import secrets

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id

revision = "analytics_0003"
down_revision = "analytics_0002"
branch_labels = None
depends_on = None

_ROWS = """
INSERT INTO analytics_content_changes (dimension, day, course, value, id, version)
SELECT dimension, day, course, value, number, number FROM (
    SELECT dimension, day, course, value, ROW_NUMBER() OVER (ORDER BY day, dimension, course, value) AS number
    FROM analytics_content WHERE day > 0 AND dimension IN ('landing_page', 'video', 'campaign')
) AS numbered
"""


def upgrade() -> None:
    """Creates the tables, and numbers the rows of content."""
    op.create_table(
        "analytics_content_changes",
        sa.Column("dimension", Id(16), primary_key=True),
        sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("course", Id(), primary_key=True),
        sa.Column("value", Id(), primary_key=True),
        sa.Column("id", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Index("idx_analytics_content_changes_version", "version", unique=True),
        **MYSQL,
    )
    op.create_table(
        "analytics_content_removals",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Index("idx_analytics_content_removals_version", "version", unique=True),
        **MYSQL,
    )
    feed = op.create_table(
        "analytics_content_feed",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("epoch", Id(16), nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.execute(_ROWS)
    known = sa.text("(SELECT COALESCE(MAX(version), 0) FROM analytics_content_changes)")
    op.execute(feed.insert().values(id=1, epoch=secrets.token_hex(8), version=known))
