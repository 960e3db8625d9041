"""The personal tables of gdpr: choices. An erasure deletes them."""

from __future__ import annotations

from typing import Final

from kit.people.subjects.personal_tables import IdentifierKind, PersonalTable, Row
from services.gdpr.models import ConsentRow


def _tombstone(row: Row) -> tuple[str, None]:
    """Returns the change that deletes an identifier's consent from the topic."""
    return row["subject"], None


PERSONAL_TABLES: Final = (
    PersonalTable(
        ConsentRow,
        section="consents",
        why="proof of what a person allowed, and when",
        kept="until the person is erased",
        identifiers={"subject": IdentifierKind.SUBJECT},
        deletes_rows=True,
        publication=_tombstone,
    ),
)
