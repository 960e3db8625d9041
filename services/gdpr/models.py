"""Tables of gdpr: everything that was ever told of what people allow."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Boolean, Index, String
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from kit.database import Id, Serial, UtcDateTime


class Base(DeclarativeBase):
    """Tables of this service."""


class ConsentRow(Base):
    """One choice about one purpose, as it was told. Rows are added and never changed."""

    __tablename__ = "consents"
    __table_args__ = (
        Index("idx_consents_choice", "subject", "purpose", "decided_at", "granted", "source", "policy_version", unique=True),
        Index("idx_consents_decided_at", "subject", "decided_at", "id"),
    )

    id: Mapped[int] = mapped_column(Serial, primary_key=True, autoincrement=True)
    subject: Mapped[str] = mapped_column(Id(280))
    """The name it was told under."""
    purpose: Mapped[str] = mapped_column(Id(32))
    granted: Mapped[bool] = mapped_column(Boolean)
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)
    source: Mapped[str] = mapped_column(Id(16))
    """banner, form, import or api."""
    policy_version: Mapped[str] = mapped_column(Id(100))
    client: Mapped[str] = mapped_column(String(100))
    """The calling system that told it first."""
    recorded_at: Mapped[datetime] = mapped_column(UtcDateTime)
