"""Tables of identity: users, the links and merges of the identity graph, and what other topics state of persons."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Enum, Index, Integer, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import Exact, Id, UtcDateTime

USER_TYPES = ("prospect", "lead", "customer", "subscriber")
"""How far a person has come with the shop, in this order."""


class Base(DeclarativeBase):
    """Tables of this service."""


class UserRow(Base):
    """One user: its profile, and the lifecycle stage of the person it belongs to."""

    __tablename__ = "users"
    __table_args__ = (
        Index("idx_email", "email_hash", unique=True),
        Index("idx_wordpress_id", "wordpress_id", unique=True),
        Index("idx_user_type", "user_type"),
        Index("idx_registration_date", "registration_date"),
        Index("idx_inactive", "inactive", "last_active_at"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    wordpress_id: Mapped[int | None] = mapped_column(BigInteger)
    email: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Sealed. NULL beside a hash: only the hash is known so far."""
    email_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Keyed hash of the address."""
    first_name: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Sealed."""
    last_name: Mapped[bytes | None] = mapped_column(LargeBinary)
    """Sealed."""
    registration_date: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_login: Mapped[datetime | None] = mapped_column(UtcDateTime)
    user_type: Mapped[str] = mapped_column(Enum(*USER_TYPES, name="user_type"), default=USER_TYPES[0])
    """The person's, like the next six columns."""
    lifetime_value: Mapped[Decimal] = mapped_column(Exact, default=Decimal(0))
    """In the shop's base currency; 0 for a merged user, since the value is kept with the user that stands for the person."""
    lifetime_values: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    """By the currencies of the orders, as text; NULL without any."""
    utm_attribution: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    paid_orders: Mapped[int] = mapped_column(Integer, default=0)
    last_active_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the person last visited, logged in, registered or bought; NULL for a user from before it was kept, until `Inactivity`."""
    inactive: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether that was long ago, by the last look of `Inactivity`."""
    preferences: Mapped[dict[str, Any]] = mapped_column(JSON, default=dict)
    field_times: Mapped[dict[str, int]] = mapped_column(JSON, default=dict)
    """When each field was written, as stated by its writer, in microseconds since 1970; preferences as `preferences.<name>`."""
    lead_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the user first left its e-mail address."""
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)
    historical: Mapped[bool] = mapped_column(Boolean, default=False)
    """Created by a historical report, and not registered anew since."""


class LinkRow(Base):
    """A link of the identity graph: an identifier, and a user that was seen with it."""

    __tablename__ = "identity_links"
    __table_args__ = (Index("idx_identity_links_user_id", "user_id"),)

    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    kind: Mapped[str] = mapped_column(String(16))
    evidence: Mapped[str] = mapped_column(String(16))
    """registration, identify, update, event or purchase."""
    linked_at: Mapped[datetime] = mapped_column(UtcDateTime)
    withdrawn: Mapped[bool] = mapped_column(Boolean)


class MergeRow(Base):
    """A user merged into another, or whose merge was undone."""

    __tablename__ = "user_merges"
    __table_args__ = (Index("idx_user_merges_user_id", "user_id"),)

    merged_user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    user_id: Mapped[str] = mapped_column(Id)
    reason: Mapped[str] = mapped_column(String(255))
    evidence: Mapped[str] = mapped_column(String(16))
    """merge or registration."""
    merged_at: Mapped[datetime] = mapped_column(UtcDateTime)
    undone_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class SubscriptionRow(Base):
    """A mailing list that a user is on, or has left."""

    __tablename__ = "email_subscriptions"

    user_id: Mapped[str] = mapped_column(Id, primary_key=True)
    list: Mapped[str] = mapped_column(Id(100), primary_key=True)
    subscribed: Mapped[bool] = mapped_column(Boolean)
    changed_at: Mapped[datetime] = mapped_column(UtcDateTime)


class OrderRow(Base):
    """The part of an order that decides its buyer's lifecycle stage, as reported by the topic `purchases`."""

    __tablename__ = "user_orders"
    __table_args__ = (Index("idx_user_orders_subject", "subject"),)

    purchase_id: Mapped[str] = mapped_column(Id, primary_key=True)
    subject: Mapped[str] = mapped_column(Id(280))
    base_net_amount: Mapped[Decimal] = mapped_column(Exact)
    """Paid less refunded in the base currency; 0 when there was no rate."""
    currency: Mapped[str] = mapped_column(String(3))
    """ISO 4217; empty for an order that was stored before it was kept."""
    net_amount: Mapped[Decimal] = mapped_column(Exact)
    """Paid less refunded in that currency."""
    paid: Mapped[bool] = mapped_column(Boolean)
    """It was paid, whatever was refunded later."""
    sold_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When it was first paid; NULL if it never was."""
    membership: Mapped[bool] = mapped_column(Boolean)
    excluded: Mapped[bool] = mapped_column(Boolean)


class CampaignRow(Base):
    """The first campaign seen with an identifier. It belongs to the person that the identifier leads to, now or later."""

    __tablename__ = "session_campaigns"
    __table_args__ = (Index("idx_session_campaigns_at", "at"),)

    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    at: Mapped[datetime] = mapped_column(UtcDateTime)
    utm: Mapped[dict[str, Any]] = mapped_column(JSON)


class GraphLockRow(Base):
    """A single row, locked by each transaction that changes the identity graph."""

    __tablename__ = "identity_graph"

    id: Mapped[int] = mapped_column(Integer, primary_key=True)
