"""What gdpr holds of persons: their choices. An erasure leaves nothing of them."""

from __future__ import annotations

from typing import Final

from kit.people.subjects.holdings import Holding, Kind, Row
from services.gdpr.models import ConsentRow


def _forgotten(row: Row) -> tuple[str, None]:
    """The topic tells what is in force under a name: no more."""
    return row["subject"], None


HOLDINGS: Final = (
    Holding(
        ConsentRow,
        section="consents",
        why="proof of what a person allowed, and when",
        kept="until the person is erased",
        names={"subject": Kind.SUBJECT},
        goes=True,
        told=_forgotten,
    ),
)
