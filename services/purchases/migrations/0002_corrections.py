"""Reports with the time of their reading, dates of sales, reasons of corrections, and amounts with the eight decimals of a bitcoin."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import Exact, UtcDateTime

revision = "purchases_0002"
down_revision = "purchases_0001"
branch_labels = None
depends_on = None

_AMOUNTS = {
    "purchases": {"amount": False, "paid_amount": False, "refunded_amount": False, "base_net_amount": True},
    "purchase_lines": {"amount": False},
    "purchase_entries": {"amount": False, "base_amount": True},
    "purchase_notices": {"amount": True, "refunded_total": True},
}
"""Columns of amounts by table, and whether they may be empty."""


def upgrade() -> None:
    """Adds the columns, and widens those of amounts; SQLite keeps amounts as text of any length."""
    op.add_column("purchases", sa.Column("sold_at", UtcDateTime))
    op.add_column("purchases", sa.Column("ordered_on", sa.Date))
    op.execute("UPDATE purchases SET sold_at = paid_at WHERE paid_at IS NOT NULL")
    op.create_index("idx_sold_at", "purchases", ["sold_at", "id"])
    op.add_column("purchase_entries", sa.Column("reason", sa.String(20), nullable=False, server_default=""))
    op.add_column("purchase_notices", sa.Column("reported_at", UtcDateTime))
    op.add_column("purchase_notices", sa.Column("paid_at", UtcDateTime))
    op.add_column("purchase_notices", sa.Column("deleted", sa.Boolean, nullable=False, server_default=sa.false()))
    if op.get_bind().dialect.name == "mysql":
        for table, columns in _AMOUNTS.items():
            for column, empty in columns.items():
                op.alter_column(table, column, type_=Exact(23, 8), existing_nullable=empty)
