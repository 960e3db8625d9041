"""The personal tables of ingestion. An erasure leaves an event that only counts."""

from __future__ import annotations

from typing import Any, Final

from kit.people.subjects.personal_tables import Ages, IdentifierKind, PersonalTable, Row, Stays, nothing
from kit.people.subjects.words import ACTIONS, BROWSERS, MEDIA, OTHER, PLATFORMS, SENDERS, SOURCES, SYSTEMS, listed, word
from services.ingestion.models import EventRow

_FOUND: Final = {"browser": BROWSERS, "os": SYSTEMS, "traffic_source": SOURCES, "traffic_medium": MEDIA}
"""Parts of the enrichment that are derived from texts of callers; only known words of these stay."""
_KEPT: Final = ("device", "is_bot", "channel", "currency")


def _counted(row: Row) -> dict[str, Any]:
    """Reduces an event's data to the parts of its enrichment that are common words and identify nobody."""
    data = row["event_data"]
    found = data["enrichment"]
    words = {name: kept for name, words in _FOUND.items() if (kept := listed(found.get(name), words))}
    signals = {name: data[name] for name in ("global_privacy_control", "historical") if name in data}
    return {**signals, "enrichment": {**{name: found[name] for name in _KEPT if name in found}, **words}}


PERSONAL_TABLES: Final = (
    PersonalTable(
        EventRow,
        section="analytics_data",
        why="what visitors do on the site, for reports and for automation",
        kept="the site's retention (`PMP_SITE_RETENTION`), or as long as `PMP_SITE_RETENTION_TABLES` says; then deleted",
        identifiers={"user_id": IdentifierKind.USER_ID, "email_hash": IdentifierKind.EMAIL_HASH, "session_id": IdentifierKind.SESSION_ID},
        personal={
            **word("event_type", ACTIONS, otherwise=OTHER),
            **word("platform", PLATFORMS, otherwise=OTHER),
            **word("source", SENDERS),
            **nothing("event_category", "page_url", "referrer", "utm_parameters"),
            "event_data": _counted,
        },
        stays={"id": Stays.ID, "content_hash": Stays.HASH, "client": Stays.WORD, "scope": Stays.WORD},
        keys=("id",),
        internal=("processed", "scope", "topic_partition", "topic_position", "topic_ordinal"),
        ages=Ages("timestamp"),
    ),
)
