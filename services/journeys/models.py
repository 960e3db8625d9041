"""Tables of journeys: touchpoints, conversions, sessions, orders, and the paths of attribution."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import Any, Final, cast

from sqlalchemy import JSON, BigInteger, Boolean, Index, Integer, LargeBinary, String, Table, Text
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import Exact, Id, LongText, Serial, UtcDateTime


class Base(DeclarativeBase):
    """Tables of this service."""


class TouchpointRow(Base):
    """One touchpoint: an event, a paid order, or one that a client tracked."""

    __tablename__ = "user_journeys"
    __table_args__ = (
        Index("idx_user_id", "user_id"),
        Index("idx_session_id", "session_id"),
        Index("idx_stage", "stage"),
        Index("idx_timestamp", "timestamp"),
        Index("idx_touchpoint", "touchpoint"),
        Index("idx_subject", "subject", "timestamp", "id"),
        Index("idx_action_taken", "action_taken", "subject", "timestamp", "id"),
    )

    id: Mapped[str] = mapped_column(Id(280), primary_key=True)
    """The idempotency key of the event or the client's touchpoint; of an order `purchase/<id>`, which no client can use."""
    user_id: Mapped[str | None] = mapped_column(Id)
    """The user as reported."""
    session_id: Mapped[str | None] = mapped_column(Id)
    stage: Mapped[str] = mapped_column(String(50))
    touchpoint: Mapped[str] = mapped_column(String(100))
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    source: Mapped[str | None] = mapped_column(String(255))
    medium: Mapped[str | None] = mapped_column(String(255))
    campaign: Mapped[str | None] = mapped_column(String(255))
    page_url: Mapped[str | None] = mapped_column(Text)
    action_taken: Mapped[str] = mapped_column(Id(100))
    value_generated: Mapped[Decimal] = mapped_column(Exact)
    """In the shop's base currency."""
    time_spent: Mapped[int] = mapped_column(Integer)
    """Seconds."""
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    subject: Mapped[str] = mapped_column(Id(280))
    """The identifier of its person. Which person that is, is looked up on reading."""
    channel: Mapped[str] = mapped_column(String(16))
    """The channel of an event's session, as the enrichment names it; empty if it isn't an event."""
    origin: Mapped[str] = mapped_column(String(16))
    """event, purchase or client."""
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """The version of the hash, and a keyed hash of what the client tracked."""


class ConversionRow(Base):
    """One conversion that a client tracked."""

    __tablename__ = "conversions"
    __table_args__ = (
        Index("idx_conversions_subject", "subject", "timestamp"),
        Index("idx_conversions_type", "conversion_type", "timestamp"),
        Index("idx_conversions_timestamp", "timestamp"),
    )

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    subject: Mapped[str] = mapped_column(Id(280))
    user_id: Mapped[str | None] = mapped_column(Id)
    session_id: Mapped[str | None] = mapped_column(Id)
    conversion_type: Mapped[str] = mapped_column(String(100))
    value: Mapped[Decimal | None] = mapped_column(Exact)
    currency: Mapped[str] = mapped_column(String(3))
    email_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Keyed hash by which the e-mail address is found; the address itself is not stored."""
    source: Mapped[str | None] = mapped_column(String(100))
    page_url: Mapped[str | None] = mapped_column(Text)
    utm_parameters: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    content_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SessionRow(Base):
    """A session as far as one identifier was seen in it. One that begins anonymously and ends with a user has two rows.

    The columns hold the earliest values, so that they are independent of the order of arrival.
    """

    __tablename__ = "journey_sessions"
    __table_args__ = (
        Index("idx_sessions_subject", "subject", "started_at"),
        Index("idx_sessions_started_at", "started_at"),
    )

    session: Mapped[str] = mapped_column(Id(280), primary_key=True)
    """`session:` and the client's session id, or `visitor:` and the daily pseudonym of a visitor."""
    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Time of its first touchpoint; NULL only while the row is being created."""
    external_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Time of its first touchpoint that states where the session came from; NULL without one."""
    external_id: Mapped[str | None] = mapped_column(Id(280))
    source: Mapped[str | None] = mapped_column(String(255))
    """Where that one came from; NULL for a direct session."""
    medium: Mapped[str | None] = mapped_column(String(255))
    campaign: Mapped[str | None] = mapped_column(String(255))


class OrderRow(Base):
    """An order as the last applied change of the topic `purchases` states it."""

    __tablename__ = "journey_orders"
    __table_args__ = (
        Index("idx_orders_subject", "subject", "paid_at"),
        Index("idx_orders_paid_at", "paid_at"),
        Index("idx_orders_session_id", "session_id"),
    )

    purchase_id: Mapped[str] = mapped_column(Id, primary_key=True)
    subject: Mapped[str] = mapped_column(Id(280))
    session_id: Mapped[str | None] = mapped_column(Id)
    ordered_at: Mapped[datetime] = mapped_column(UtcDateTime)
    paid_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """NULL for an unpaid order, which counts nowhere."""
    status: Mapped[str] = mapped_column(String(32))
    net: Mapped[Decimal | None] = mapped_column(Exact)
    """Paid less refunded in the base currency; NULL without an exchange rate."""
    excluded: Mapped[bool] = mapped_column(Boolean)
    """A test order, or one of the shop's own staff."""
    position: Mapped[int] = mapped_column(BigInteger)
    """Offset of the last applied change in the topic's partition: changes before it are older."""
    ordinal: Mapped[int] = mapped_column(Integer)


class PathRow(Base):
    """The path of an order, or one that led to none (`attribution.Path`). It is derived from sessions, orders and persons."""

    __tablename__ = "attribution_paths"
    __table_args__ = (
        Index("idx_paths_ending", "ending"),
        Index("idx_paths_ended_at", "ended_at", "bought"),
    )

    owner: Mapped[str] = mapped_column(Id(280), primary_key=True)
    ending: Mapped[str] = mapped_column(Id(280), primary_key=True)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    bought: Mapped[bool] = mapped_column(Boolean)
    """Whether an order ended it."""
    payload: Mapped[str] = mapped_column(LongText)
    """The path as JSON."""


class TotalsRow(Base):
    """A model's totals of all paths that ended on a day, in UTC (`attribution.Totals`). It is derived from the rows of paths."""

    __tablename__ = "attribution_totals"

    model: Mapped[str] = mapped_column(Id(16), primary_key=True)
    group_by: Mapped[str] = mapped_column(Id(16), primary_key=True)
    day: Mapped[str] = mapped_column(Id(10), primary_key=True)
    """YYYY-MM-DD."""
    payload: Mapped[str] = mapped_column(LongText)
    """The totals as JSON."""


class PendingRow(Base):
    """A change of sessions, orders or persons not yet applied to paths: written in the transaction of the change."""

    __tablename__ = "attribution_pending"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    subject: Mapped[str] = mapped_column(Id(280))
    """The identifier of the person or session that changed."""


touchpoints: Final = cast("Table", TouchpointRow.__table__)
conversions: Final = cast("Table", ConversionRow.__table__)
sessions: Final = cast("Table", SessionRow.__table__)
orders: Final = cast("Table", OrderRow.__table__)
paths: Final = cast("Table", PathRow.__table__)
totals: Final = cast("Table", TotalsRow.__table__)
pending: Final = cast("Table", PendingRow.__table__)
