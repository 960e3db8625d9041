"""Tables of ingestion: events, the outcomes of their deliveries, and receipts of the log."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, ColumnElement, Index, Integer, LargeBinary, String, Text
from sqlalchemy.ext.hybrid import hybrid_property
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import Id, Serial, UtcDateTime
from kit.idempotency import KEY_LENGTH, id_of


class Base(DeclarativeBase):
    """Tables of this service."""


class EventRow(Base):
    """One event, stored once."""

    __tablename__ = "events"
    __table_args__ = (
        Index("idx_user_id", "user_id"),
        Index("idx_session_id", "session_id"),
        Index("idx_email_hash", "email_hash"),
        Index("idx_event_type", "event_type"),
        Index("idx_timestamp", "timestamp"),
        Index("idx_platform", "platform"),
        Index("idx_processed", "processed"),
        Index("idx_topic_position", "topic_partition", "topic_position"),
    )

    key: Mapped[str] = mapped_column("id", Id(KEY_LENGTH), primary_key=True)
    """The idempotency key: the client's id in the key space of its class."""
    timestamp: Mapped[datetime] = mapped_column(UtcDateTime)
    user_id: Mapped[str | None] = mapped_column(Id)
    session_id: Mapped[str | None] = mapped_column(Id)
    event_type: Mapped[str] = mapped_column(String(100))
    event_category: Mapped[str | None] = mapped_column(String(50))
    platform: Mapped[str] = mapped_column(String(50))
    source: Mapped[str | None] = mapped_column(String(100))
    page_url: Mapped[str | None] = mapped_column(Text)
    referrer: Mapped[str | None] = mapped_column(Text)
    utm_parameters: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    event_data: Mapped[dict[str, Any]] = mapped_column(JSON)
    """What has no column of its own: title, user agent, network, privacy signal, metadata, and the `enrichment`."""
    email_hash: Mapped[bytes | None] = mapped_column(LargeBinary(32))
    content_hash: Mapped[bytes] = mapped_column(LargeBinary(32))
    """The versions of the hash, and a keyed hash of what the origin states, as far as it is stored: other content under the same key is
    another event. Hashes of 16 bytes without versions are older than the key space of browsers."""
    processed: Mapped[bool] = mapped_column(Boolean, default=False)
    """Always true: events are enriched, stored and published in one transaction."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    client: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(16))
    topic_partition: Mapped[int] = mapped_column(Integer)
    topic_position: Mapped[int] = mapped_column(BigInteger)
    topic_ordinal: Mapped[int] = mapped_column(Integer)
    """Where the event was published: the entry of the topic, and the index in it. Its history is read in the same order."""

    @hybrid_property
    def id(self) -> str:
        """The client's id; in SQL, the key."""
        return id_of(self.key)

    @id.inplace.expression  # noqa: A003  (the decorator of the property above)
    @classmethod
    def _id(cls) -> ColumnElement[str]:
        return cls.__table__.c.id


class ProcessingRow(Base):
    """The outcome of one delivery of an event: every figure of the books can be derived from these."""

    __tablename__ = "event_processing_log"
    __table_args__ = (Index("idx_event_id", "event_id"),)

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    event_id: Mapped[str] = mapped_column(Id)
    outcome: Mapped[str] = mapped_column(String(32))
    """stored, duplicate, suppressed or dead_lettered."""
    received_at: Mapped[datetime] = mapped_column(UtcDateTime)
    processed_at: Mapped[datetime] = mapped_column(UtcDateTime)
    log_position: Mapped[str] = mapped_column(String(64))
    """Partition, entry and index in the raw log."""
    trace_id: Mapped[str | None] = mapped_column(Id(32))
    """Of the call that delivered it, in hex; NULL if nothing traces calls."""


class ReceiptRow(Base):
    """Events of one sender that one process appended to the log in about a second: stored until their outcomes are known."""

    __tablename__ = "receipts"
    __table_args__ = (Index("idx_lost", "lost", "hour"),)

    writer: Mapped[str] = mapped_column(Id(32), primary_key=True)
    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    """Counts the receipts of a writer."""
    partition: Mapped[int] = mapped_column(Integer)
    hour: Mapped[int] = mapped_column(Integer)
    """The account in which they are received, in hours since 1970."""
    client: Mapped[str] = mapped_column(String(100))
    scope: Mapped[str] = mapped_column(String(16))
    first_at: Mapped[datetime] = mapped_column(UtcDateTime)
    last_at: Mapped[datetime] = mapped_column(UtcDateTime)
    events: Mapped[bytes] = mapped_column(LargeBinary(2**24 - 1))
    """A line for each call: the time of receipt, in microseconds since 1970, and the ids of its events."""
    lost: Mapped[bool] = mapped_column(Boolean, default=False)
    """Whether the remaining events were looked for and not found."""
