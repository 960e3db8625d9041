"""What gdpr holds of persons: their choices. An erasure leaves nothing of them."""

from __future__ import annotations

from typing import Final

from kit.people.subjects.holdings import Kind, PersonalTable, Row
from services.gdpr.models import ConsentRow


def _forgotten(row: Row) -> tuple[str, None]:
    """The topic tells what is in force under a name: no more."""
    return row["subject"], None


HOLDINGS: Final = (
    PersonalTable(
        ConsentRow,
        section="consents",
        why="proof of what a person allowed, and when",
        kept="until the person is erased",
        names={"subject": Kind.SUBJECT},
        deletes_rows=True,
        told=_forgotten,
    ),
)
