"""The personal tables of gdpr: choices. An erasure deletes them."""

from __future__ import annotations

from typing import Final

from kit.people.subjects.holdings import Kind, PersonalTable, Row
from services.gdpr.models import ConsentRow


def _tombstone(row: Row) -> tuple[str, None]:
    """Returns the change that deletes an identifier's consent from the topic."""
    return row["subject"], None


HOLDINGS: Final = (
    PersonalTable(
        ConsentRow,
        section="consents",
        why="proof of what a person allowed, and when",
        kept="until the person is erased",
        names={"subject": Kind.SUBJECT},
        deletes_rows=True,
        told=_tombstone,
    ),
)
