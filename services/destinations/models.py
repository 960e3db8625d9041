"""Tables of destinations: what is to be delivered where, the messages it is made of, and what destinations answered to erasures."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Index, Integer, LargeBinary, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import Id, Serial, UtcDateTime


class Base(DeclarativeBase):
    """Tables of this service."""


class DestinationRow(Base):
    """The state of a destination. It stays when the destination is no longer configured."""

    __tablename__ = "destinations"

    name: Mapped[str] = mapped_column(Id(50), primary_key=True)
    kind: Mapped[str] = mapped_column(Id(50))
    added_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it was first configured: what happened before is not delivered."""
    is_paused: Mapped[bool] = mapped_column(Boolean, default=False)
    """Nothing is sent until it is resumed; deliveries queue."""
    pause_reason: Mapped[str] = mapped_column(String(200), default="")
    pending: Mapped[int] = mapped_column(Integer, default=0)
    """The books: how many deliveries are in this state, and so on. They move in the transaction that moves a delivery."""
    delivered: Mapped[int] = mapped_column(Integer, default=0)
    withheld: Mapped[int] = mapped_column(Integer, default=0)
    expired: Mapped[int] = mapped_column(Integer, default=0)
    dead: Mapped[int] = mapped_column(Integer, default=0)
    """Dead letters, those that were dropped included."""
    attempts: Mapped[int] = mapped_column(Integer, default=0)
    """All attempts that had a result: what they are more than deliveries were repetitions."""
    failures: Mapped[int] = mapped_column(Integer, default=0)
    """Attempts that failed since the last successful one."""
    opened: Mapped[int] = mapped_column(Integer, default=0)
    """How often in a row the circuit breaker opened."""
    open_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Until then the circuit breaker is open, or the destination asked to wait; NULL otherwise."""
    window_began_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Since then attempts are counted for the circuit breaker."""
    window_attempts: Mapped[int] = mapped_column(Integer, default=0)
    window_failures: Mapped[int] = mapped_column(Integer, default=0)


class DeliveryRow(Base):
    """A delivery: one thing that one destination is to be sent. It stays for the books when its message is gone."""

    __tablename__ = "deliveries"
    __table_args__ = (
        Index("idx_deliveries_key", "destination", "key", unique=True),
        Index("idx_deliveries_due", "destination", "state", "next_attempt_at"),
        Index("idx_deliveries_age", "destination", "state", "decided_at"),
        Index("idx_deliveries_order", "destination", "order_by", "state"),
        Index("idx_deliveries_about", "about"),
        Index("idx_deliveries_subject", "subject"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    destination: Mapped[str] = mapped_column(Id(50))
    name: Mapped[str] = mapped_column(Id(120))
    """What is delivered, `kind.Wanted.name`."""
    key: Mapped[str] = mapped_column(Id)
    about: Mapped[str] = mapped_column(Id(280))
    """The order or event it is about: `order:1001`, `event:abc`; empty for other messages."""
    message_id: Mapped[str] = mapped_column(Id(100))
    subject: Mapped[str] = mapped_column(Id(280))
    """The strongest identifier of the person it is about; empty for none."""
    order_by: Mapped[str] = mapped_column(Id(280))
    needs_consent: Mapped[bool] = mapped_column(Boolean)
    """Whether it is withheld for want of the destination's consent."""
    happened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(Id(16))
    """pending, delivered, withheld, expired, dead or dropped."""
    attempts: Mapped[int] = mapped_column(Integer)
    """Attempts that were begun."""
    claim: Mapped[str] = mapped_column(Id(32))
    """The sender that is making an attempt; empty for none."""
    not_before: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """When the first attempt is made at the earliest; NULL for at once."""
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """While it is claimed, when others may take it over. Once it is not pending any more, when that was decided."""
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)
    detail: Mapped[str] = mapped_column(String(200))
    """The result of the last attempt."""


class ErasureRow(Base):
    """What a destination answered to the erasure of a person, so that a repetition does not ask it again."""

    __tablename__ = "destination_erasures"

    request: Mapped[str] = mapped_column(Id(64), primary_key=True)
    """The request of gdpr."""
    destination: Mapped[str] = mapped_column(Id(50), primary_key=True)
    answer: Mapped[str] = mapped_column(String(200))
    answered_at: Mapped[datetime] = mapped_column(UtcDateTime)


class MessageRow(Base):
    """A message of a topic that some delivery is made of, as it was published."""

    __tablename__ = "delivery_messages"
    __table_args__ = (
        Index("idx_delivery_messages_subject", "subject"),
        Index("idx_delivery_messages_session", "session"),
        Index("idx_delivery_messages_email", "email"),
        Index("idx_delivery_messages_stored_at", "stored_at"),
    )

    id: Mapped[str] = mapped_column(Id(100), primary_key=True)
    """Topic, partition, position and index within the entry."""
    type: Mapped[str] = mapped_column(Id(100))
    """Full name of the message's type."""
    payload: Mapped[bytes] = mapped_column(LargeBinary(2**24 - 1))
    traceparent: Mapped[str] = mapped_column(String(64), default="")
    """The W3C trace context with which it was published; empty for none."""
    subject: Mapped[str | None] = mapped_column(Id(280))
    """The user it is about."""
    session: Mapped[str | None] = mapped_column(Id(280))
    """The session it is about."""
    email: Mapped[str | None] = mapped_column(Id(280))
    """The keyed hash of the e-mail address it is about."""
    stored_at: Mapped[datetime] = mapped_column(UtcDateTime)


class ContactRow(Base):
    """An address under which a destination keeps a person, so that it can be followed when it changes, and deleted."""

    __tablename__ = "destination_contacts"
    __table_args__ = (
        Index("idx_destination_contacts_user", "user_id", "destination"),
        Index("idx_destination_contacts_subject", "subject"),
    )

    destination: Mapped[str] = mapped_column(Id(50), primary_key=True)
    subject: Mapped[str] = mapped_column(Id(280), primary_key=True)
    """The keyed hash of the address, with its kind. An address is one person's, the last that was sent with it."""
    user_id: Mapped[str] = mapped_column(Id)
    """The user that the person was known by."""
    email: Mapped[bytes] = mapped_column(LargeBinary(1000))
    """The address, sealed."""
    is_former: Mapped[bool] = mapped_column(Boolean)
    """The destination has moved the person to another address, or mails this one no more."""
    sent_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """When it was first sent with this address."""


class ContentCursorRow(Base):
    """Where the feed of content was read up to."""

    __tablename__ = "content_cursors"

    feed: Mapped[str] = mapped_column(Id(50), primary_key=True)
    cursor: Mapped[str] = mapped_column(Id(50))
    """As analytics returned it."""


class SiteRow(Base):
    """The shop's site that was connected by a code."""

    __tablename__ = "connected_sites"

    name: Mapped[str] = mapped_column(Id(50), primary_key=True)
    """The name of the destination that it is."""
    url: Mapped[str] = mapped_column(String(2000))
    """The plugin's route to accounts."""
    connected_at: Mapped[datetime] = mapped_column(UtcDateTime)


class AlarmRow(Base):
    """An alarm that has not ended."""

    __tablename__ = "alarms"

    alarm: Mapped[str] = mapped_column(Id(100), primary_key=True)
    """Its name and, after a colon, the destination that it is about, `alarms.Alarm`."""
    since: Mapped[datetime] = mapped_column(UtcDateTime)
