"""What ingestion holds of persons, and what an erasure leaves of it: an event that counts, and no more."""

from __future__ import annotations

from typing import Any, Final

from kit.subjects.holdings import Ages, Holding, Kind, Row, pages
from services.ingestion.consent import NAMING
from services.ingestion.models import EventRow

_KEPT: Final = ("page_title", "global_privacy_control")


def _counted(row: Row) -> dict[str, Any]:
    """Of an event's further data what was found out about it, and nothing that leads to a person."""
    data = row["event_data"]
    enrichment = {name: value for name, value in data["enrichment"].items() if name not in NAMING}
    return {**{name: data[name] for name in _KEPT if name in data}, "enrichment": enrichment}


HOLDINGS: Final = (
    Holding(
        EventRow,
        section="analytics_data",
        why="what visitors do on the site, for reports and for automation",
        kept="the site's retention (`PMP_SITE_RETENTION`), or as long as `PMP_SITE_RETENTION_TABLES` says; then deleted",
        names={"user_id": Kind.USER, "email_hash": Kind.EMAIL, "session_id": Kind.SESSION},
        personal={**pages("page_url", "referrer"), "event_data": _counted},
        keys=("id",),
        internal=("processed", "scope", "topic_partition", "topic_position", "topic_ordinal"),
        ages=Ages("timestamp"),
    ),
)
