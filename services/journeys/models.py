"""Tables of journeys: touchpoints, conversions, visits, and what is known of orders."""

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
    """One touchpoint: an event, a paid order, or what a client told."""

    __tablename__ = "user_journeys"
    __table_args__ = (
        Index("idx_user_id", "user_id"),
        Index("idx_session_id", "session_id"),
        Index("idx_stage", "stage"),
        Index("idx_timestamp", "timestamp"),
        Index("idx_touchpoint", "touchpoint"),
        Index("idx_subject", "subject", "timestamp", "id"),
        Index("idx_action_taken", "action_taken", "timestamp", "id", "subject"),
    )

    id: Mapped[str] = mapped_column(Id(280), primary_key=True)
    """The idempotency key of the event or the client's touchpoint; of an order `purchase/<id>`, which no client can give."""
    user_id: Mapped[str | None] = mapped_column(Id)
    """The user as told."""
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
    """Whose it is: the name under which it was told. Who that is, is looked up when it is asked for."""
    channel: Mapped[str] = mapped_column(String(16))
    """How an event's visit found the site, in the words of the enrichment; empty for what is no event."""
    origin: Mapped[str] = mapped_column(String(16))
    """event, purchase or client."""
    content_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    """Keyed hash of what a client told, whoever carried it, behind the version by which it was made."""


class ConversionRow(Base):
    """One reached goal as a client told it."""

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
    """Under which the e-mail address is found; the address itself is not kept."""
    source: Mapped[str | None] = mapped_column(String(100))
    page_url: Mapped[str | None] = mapped_column(Text)
    utm_parameters: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    metadata_: Mapped[dict[str, Any] | None] = mapped_column("metadata", JSON(none_as_null=True))
    content_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class SessionRow(Base):
    """What one subject did of a visit. A visit that begins anonymously and ends under a user's name has two rows.

    The columns hold the earliest of what was seen: they come out the same whatever order it is seen in.
    """

    __tablename__ = "journey_sessions"
    __table_args__ = (
        Index("idx_sessions_subject", "subject", "started_at"),
        Index("idx_sessions_started_at", "started_at"),
    )

    session: Mapped[str] = mapped_column(Id(280), primary_key=True)
    """`session:` and the client's session, or `visitor:` and the visitor of a day."""
    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Its first touchpoint; NULL only while the row is made."""
    external_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Its first touchpoint that says where the visit came from; NULL for none."""
    external_id: Mapped[str | None] = mapped_column(Id(280))
    source: Mapped[str | None] = mapped_column(String(255))
    """Where that one came from; NULL when nothing led to it."""
    medium: Mapped[str | None] = mapped_column(String(255))
    campaign: Mapped[str | None] = mapped_column(String(255))


class OrderRow(Base):
    """An order as the topic `purchases` told it last."""

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
    """NULL for an order that is not paid: it counts nowhere."""
    status: Mapped[str] = mapped_column(String(32))
    net: Mapped[Decimal | None] = mapped_column(Exact)
    """Paid less refunded in the base currency; NULL without an exchange rate."""
    excluded: Mapped[bool] = mapped_column(Boolean)
    """A test, or an order of the shop's own staff."""
    position: Mapped[int] = mapped_column(BigInteger)
    """Where in the topic's partition it was told: what lies before is older."""
    ordinal: Mapped[int] = mapped_column(Integer)


class PathRow(Base):
    """The path of an order, or one that led to none (`attribution.Path`). It follows from visits, orders and persons."""

    __tablename__ = "attribution_paths"
    __table_args__ = (
        Index("idx_paths_ending", "ending"),
        Index("idx_paths_ended_at", "ended_at", "bought"),
    )

    owner: Mapped[str] = mapped_column(Id(280), primary_key=True)
    ending: Mapped[str] = mapped_column(Id(280), primary_key=True)
    ended_at: Mapped[datetime] = mapped_column(UtcDateTime)
    bought: Mapped[bool] = mapped_column(Boolean)
    """An order ended it."""
    payload: Mapped[str] = mapped_column(LongText)
    """The path as JSON."""


class TotalsRow(Base):
    """What a model makes of all paths that ended on a day, in UTC (`attribution.Totals`). It is the sum of the rows of paths."""

    __tablename__ = "attribution_totals"

    model: Mapped[str] = mapped_column(Id(16), primary_key=True)
    group_by: Mapped[str] = mapped_column(Id(16), primary_key=True)
    day: Mapped[str] = mapped_column(Id(10), primary_key=True)
    """YYYY-MM-DD."""
    payload: Mapped[str] = mapped_column(LongText)
    """The totals as JSON."""


class PendingRow(Base):
    """A change of visits, orders or persons that paths do not show yet: written in the transaction of the change."""

    __tablename__ = "attribution_pending"

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    subject: Mapped[str] = mapped_column(Id(280))
    """Whose it is, or the session of the visit that changed."""


touchpoints: Final = cast("Table", TouchpointRow.__table__)
conversions: Final = cast("Table", ConversionRow.__table__)
sessions: Final = cast("Table", SessionRow.__table__)
orders: Final = cast("Table", OrderRow.__table__)
paths: Final = cast("Table", PathRow.__table__)
totals: Final = cast("Table", TotalsRow.__table__)
pending: Final = cast("Table", PendingRow.__table__)
