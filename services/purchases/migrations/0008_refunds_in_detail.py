"""Which payment a refund is of, and what it returned."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import Id

revision = "purchases_0008"
down_revision = "purchases_0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns. Stripe's reports so far have the payment in their reference: `ch_1:3000`."""
    for table in ("purchase_entries", "purchase_notices"):
        op.add_column(table, sa.Column("returned_lines", sa.JSON))
    op.add_column("purchase_notices", sa.Column("payment", Id, nullable=False, server_default=""))
    notices = sa.table("purchase_notices", *map(sa.column, ("kind", "source", "reference", "payment")))
    reference = notices.c.reference
    of_stripe = (notices.c.kind == "provider_refund", notices.c.source == "stripe", reference.contains(":"))
    named = sa.func.substr(reference, 1, sa.func.instr(reference, ":") - 1)
    op.execute(notices.update().where(*of_stripe).values(payment=named))
