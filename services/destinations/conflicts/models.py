"""The table of conflicts."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import Index, LargeBinary
from sqlalchemy.orm import Mapped, mapped_column

from kit.database.columns import Id, UtcDateTime
from services.destinations.models import Base


class ConflictRow(Base):
    """A conflict, as the site or gdpr decided it."""

    __tablename__ = "conflicts"
    __table_args__ = (Index("idx_conflicts_subject", "subject"), Index("idx_conflicts_decided_at", "decided_at", "id"))

    id: Mapped[str] = mapped_column(Id, primary_key=True)
    """The site's own id; one that gdpr has found has the id by which the site would report it."""
    subject: Mapped[str] = mapped_column(Id(280))
    """The person."""
    field: Mapped[str] = mapped_column(Id(50))
    kept: Mapped[str] = mapped_column(Id(16))
    """Whose value both have now: `wordpress` or `mesh`."""
    site_value: Mapped[bytes] = mapped_column(LargeBinary(2048))
    """Sealed, as is the next one."""
    mesh_value: Mapped[bytes] = mapped_column(LargeBinary(2048))
    decided_at: Mapped[datetime] = mapped_column(UtcDateTime)
