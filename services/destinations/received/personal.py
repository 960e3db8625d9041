"""The personal table of received webhooks. What is done has no person; an erasure takes the person from what is not."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from kit.people.subjects.personal_tables import Ages, IdentifierKind, PersonalTable, Stays, nothing
from services.destinations.received.models import WebhookRow

RECEIVED: Final = PersonalTable(
    WebhookRow,
    section="",
    why="what a payment provider, the shop or an e-mail tool reported, until it is applied; the services that it concerns show it",
    kept="the person until it is applied; the rest for 90 days, or as long as `PMP_SITE_RETENTION_TABLES` says",
    identifiers={"subject": IdentifierKind.SUBJECT},
    personal=nothing("personal"),
    stays={
        **dict.fromkeys(("sender", "kind", "effect", "state", "detail"), Stays.WORD),
        **dict.fromkeys(("event_id", "fact", "payments", "request"), Stays.ID),
        "order_id": Stays.SHOP,
    },
    ages=Ages("received_at"),
)
KEPT: Final = {WebhookRow.__tablename__: timedelta(days=90)}
"""The retention period: senders repeat a webhook for some days."""
