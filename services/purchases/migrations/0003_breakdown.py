"""What an order's amount consists of, its coupons, its country, and the partner who brought the buyer."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from kit.database.columns import Exact

revision = "purchases_0003"
down_revision = "purchases_0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the columns; orders that were reported before have none of it."""
    for name in ("discount_total", "tax_total", "shipping_total"):
        op.add_column("purchases", sa.Column(name, Exact(23, 8)))
    op.add_column("purchases", sa.Column("coupon_codes", sa.JSON))
    op.add_column("purchases", sa.Column("country", sa.String(2)))
    op.add_column("purchases", sa.Column("referral_code", sa.String(100)))
