"""Tables of gdpr: the history of consent, and requests about personal data."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Boolean, Index, Integer, LargeBinary, String, Text, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database.columns import Id, Serial, UtcDateTime


class Base(DeclarativeBase):
    """Tables of this service."""


class ConsentRow(Base):
    """One choice about one purpose, as it was reported. Rows are only added."""

    __tablename__ = "consents"
    __table_args__ = (
        Index("idx_consents_choice", "subject", "purpose", "decided_at", "granted", "source", "policy_version", unique=True),
        Index("idx_consents_decided_at", "subject", "decided_at", "id"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    subject: Mapped[str] = mapped_column(Id(280))
    """The identifier it was reported under."""
    purpose: Mapped[str] = mapped_column(Id(32))
    granted: Mapped[bool] = mapped_column(Boolean)
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)
    source: Mapped[str] = mapped_column(Id(16))
    """banner, form, import or api."""
    policy_version: Mapped[str] = mapped_column(Id(100))
    client: Mapped[str] = mapped_column(String(100))
    """The calling system that reported it first."""
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)


class RequestRow(Base):
    """A request about a person's data. Once it is done, nothing in it identifies the person."""

    __tablename__ = "subject_requests"
    __table_args__ = (Index("idx_subject_requests_state", "state", "requested_at"),)

    id: Mapped[str] = mapped_column(Id(36), primary_key=True)
    kind: Mapped[str] = mapped_column(Id(16))
    """erasure or export."""
    state: Mapped[str] = mapped_column(Id(16))
    """running or done."""
    client: Mapped[str] = mapped_column(String(100))
    """The calling system that asked."""
    pseudonym: Mapped[str] = mapped_column(Id(40))
    """Replaces the person in rows that stay: random, so that it identifies nobody. Empty for an export."""
    names: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The identifiers of the person, sealed; NULL once it is done, and for an export."""
    contacts: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The person's e-mail addresses, sealed, for systems that know no other identifier; NULL without any, and once it is done."""
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    due_at: Mapped[datetime] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    receipt: Mapped[str | None] = mapped_column(Text)
    """What was done, as JSON."""
    signature: Mapped[str | None] = mapped_column(String(128))
    """The mesh's signature of the receipt, in hex."""


class ArchiveLinkRow(Base):
    """A link to the archive of a person. It is deleted once it was used or has expired, and with it all that identifies the person."""

    __tablename__ = "archive_links"
    __table_args__ = (
        UniqueConstraint("request_id", name="uq_archive_links_request_id"),
        Index("idx_archive_links_expires_at", "expires_at"),
    )

    owner: Mapped[str] = mapped_column(Id(32), primary_key=True)
    """Keyed digest, in hex, of the requester: the calling system, and the user that its token was made for."""
    asked_for: Mapped[str] = mapped_column(Id(32), primary_key=True)
    """Keyed digest, in hex, of the person: another request for the same person renews the link."""
    request_id: Mapped[str] = mapped_column(Id(36))
    name: Mapped[bytes] = mapped_column(LargeBinary(1000))
    """The identifier in the request, sealed; the person's other identifiers are looked up when the archive is fetched."""
    expires_at: Mapped[datetime] = mapped_column(UtcDateTime)
    held_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """A fetch holds the link until then. The time is unique, so that a fetch recognises its own hold by it."""


class AuditRow(Base):
    """An entry of the audit log. Rows are only added; no two follow the same one."""

    __tablename__ = "audit_log"
    __table_args__ = (UniqueConstraint("prev_hash", name="uq_audit_log_prev_hash"),)

    number: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    entry: Mapped[str] = mapped_column(Text)
    """What was done, as JSON."""
    prev_hash: Mapped[str] = mapped_column(Id(64))
    hash: Mapped[str] = mapped_column(Id(64))


class StepRow(Base):
    """A step of a request: its state outlives the process that works on it."""

    __tablename__ = "request_steps"

    request_id: Mapped[str] = mapped_column(Id(36), primary_key=True)
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    name: Mapped[str] = mapped_column(Id(64))
    state: Mapped[str] = mapped_column(Id(16))
    """waiting or done."""
    failures: Mapped[int] = mapped_column(Integer)
    error: Mapped[str] = mapped_column(String(100))
    """Kind of the last failure; nothing personal."""
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    next_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    """Time of the next try."""
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    tables: Mapped[dict[str, int]] = mapped_column(JSON)
    """Erased rows by table."""
    answers: Mapped[dict[str, str] | None] = mapped_column(JSON)
    """What other systems answered, by system; NULL where none was asked."""
    places: Mapped[list[list[Any]]] = mapped_column(JSON)
    """Offsets in the log, each a topic, a partition and a position, that later steps depend on."""


class SuppressedRow(Base):
    """A suppressed identifier, under which nothing is stored any more, and the request that suppressed it."""

    __tablename__ = "suppressed_names"
    __table_args__ = (Index("idx_suppressed_names_request_id", "request_id"),)

    digest: Mapped[str] = mapped_column(Id(32), primary_key=True)
    """Keyed digest of the identifier, in hex."""
    request_id: Mapped[str | None] = mapped_column(Id(36))
