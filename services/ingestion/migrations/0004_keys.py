"""The keys of browsers have a mark, by which they are one character longer."""

from __future__ import annotations

from alembic import op

from kit.database.columns import Id

revision = "ingestion_0004"
down_revision = "ingestion_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Widens the column. SQLite does not bound texts."""
    if op.get_bind().dialect.name == "mysql":
        op.alter_column("events", "id", existing_type=Id(), type_=Id(256), existing_nullable=False)
