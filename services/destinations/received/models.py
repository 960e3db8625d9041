"""Tables of received webhooks: what they state, and which payments belong to which orders."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, Integer, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from kit.database.columns import Id, Serial, UtcDateTime
from services.destinations.models import Base


class WebhookRow(Base):
    """What a webhook states. It stays for a while when it is done, so that a repetition is recognised."""

    __tablename__ = "received_webhooks"
    __table_args__ = (
        Index("idx_received_event", "sender", "event_id", unique=True),
        Index("idx_received_fact", "sender", "fact", unique=True),
        Index("idx_received_due", "state", "next_attempt_at"),
        Index("idx_received_subject", "subject"),
        Index("idx_received_at", "received_at"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    sender: Mapped[str] = mapped_column(Id(20))
    event_id: Mapped[str] = mapped_column(Id)
    """The sender's id of the webhook."""
    fact: Mapped[str] = mapped_column(Id)
    """The object that it is about, and its state."""
    kind: Mapped[str] = mapped_column(String(100))
    """The type of the event, in the sender's words."""
    effect: Mapped[str] = mapped_column(Id(20))
    """`statement.Effect`."""
    order_id: Mapped[str | None] = mapped_column(Id(100))
    """The shop's number of the order; NULL while it is not known, and for webhooks about a person."""
    payments: Mapped[str] = mapped_column(String(600))
    """The sender's ids of the payment, separated by spaces."""
    request: Mapped[bytes | None] = mapped_column(LargeBinary(2**24 - 1))
    """The request that it becomes, without anything personal; NULL when it is done."""
    personal: Mapped[bytes | None] = mapped_column(LargeBinary(2**24 - 1))
    """What is personal in it, as JSON, sealed; NULL when it is done."""
    subject: Mapped[str | None] = mapped_column(Id(280))
    """The strongest identifier of the person; NULL for none, and when it is done."""
    happened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(Id(16))
    """pending, waiting (for its order or its person), done, refused or expired."""
    attempts: Mapped[int] = mapped_column(Integer)
    next_attempt_at: Mapped[datetime] = mapped_column(UtcDateTime)
    """While it is being worked on, when another process may take it over."""
    detail: Mapped[str] = mapped_column(String(200))
    """The result of the last attempt; empty while it is being worked on, and before the first."""


class PaymentRow(Base):
    """The order that a payment is for: later webhooks may name the payment alone."""

    __tablename__ = "received_payments"
    __table_args__ = (Index("idx_received_payments_at", "received_at"),)

    sender: Mapped[str] = mapped_column(Id(20), primary_key=True)
    payment: Mapped[str] = mapped_column(Id, primary_key=True)
    """The sender's id."""
    order_id: Mapped[str] = mapped_column(Id(100))
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
