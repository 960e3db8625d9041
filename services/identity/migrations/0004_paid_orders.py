"""How many orders a person has paid."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "identity_0004"
down_revision = "identity_0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Adds the column, and counts the orders that are known."""
    op.add_column("users", sa.Column("paid_orders", sa.Integer, nullable=False, server_default="0"))
    users = sa.table("users", sa.column("id", sa.String), sa.column("paid_orders", sa.Integer))
    persons = sa.table("persons", sa.column("subject", sa.String), sa.column("person_id", sa.String))
    orders = sa.table("user_orders", sa.column("subject", sa.String), sa.column("paid", sa.Boolean), sa.column("excluded", sa.Boolean))
    own, buyers = persons.alias("own"), persons.alias("buyers")
    is_user = own.c.subject == sa.literal("user:").concat(users.c.id)
    person = sa.select(own.c.person_id).where(is_user).correlate(users).scalar_subquery()
    paid = (
        sa.select(sa.func.count())
        .select_from(orders.join(buyers, buyers.c.subject == orders.c.subject))
        .where(buyers.c.person_id == person, orders.c.paid.is_(sa.true()), orders.c.excluded.is_(sa.false()))
    )
    op.execute(users.update().values(paid_orders=paid.correlate(users).scalar_subquery()))
