"""Requests about a person's data, the steps they take, and the names they suppress."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import MYSQL, Id, UtcDateTime

revision = "gdpr_0002"
down_revision = "gdpr_0001"
branch_labels = None
depends_on = "kit_0004"

_NAMES = sa.LargeBinary(length=2**24 - 1)


def upgrade() -> None:
    """Creates the tables."""
    op.create_table(
        "subject_requests",
        sa.Column("id", Id(36), primary_key=True),
        sa.Column("kind", Id(16), nullable=False),
        sa.Column("state", Id(16), nullable=False),
        sa.Column("client", sa.String(100), nullable=False),
        sa.Column("pseudonym", Id(40), nullable=False),
        sa.Column("names", _NAMES),
        sa.Column("requested_at", UtcDateTime, nullable=False),
        sa.Column("due_at", UtcDateTime, nullable=False),
        sa.Column("finished_at", UtcDateTime),
        sa.Index("idx_subject_requests_state", "state", "requested_at"),
        **MYSQL,
    )
    op.create_table(
        "request_steps",
        sa.Column("request_id", Id(36), primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("name", Id(64), nullable=False),
        sa.Column("state", Id(16), nullable=False),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("error", sa.String(100), nullable=False),
        sa.Column("started_at", UtcDateTime),
        sa.Column("next_at", UtcDateTime),
        sa.Column("finished_at", UtcDateTime),
        sa.Column("tables", sa.JSON, nullable=False),
        sa.Column("places", sa.JSON, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "suppressed_names",
        sa.Column("digest", Id(32), primary_key=True),
        sa.Column("request_id", Id(36)),
        sa.Index("idx_suppressed_names_request_id", "request_id"),
        **MYSQL,
    )
