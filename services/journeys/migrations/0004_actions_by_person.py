"""Funnels are counted person by person: the index of actions has those of one identifier together."""

from __future__ import annotations

from alembic import op

revision = "journeys_0004"
down_revision = "journeys_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Replaces the index: in MySQL in one statement, since each is a transaction of its own there."""
    if op.get_bind().dialect.name == "mysql":
        op.execute(
            "ALTER TABLE user_journeys DROP INDEX idx_action_taken, ADD INDEX idx_action_taken (action_taken, subject, timestamp, id)"
        )
        return
    op.drop_index("idx_action_taken", "user_journeys")
    op.create_index("idx_action_taken", "user_journeys", ["action_taken", "subject", "timestamp", "id"])
