"""The stored events as an export."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.exports import Export, rows
from kit.idempotency import id_of
from services.ingestion.models import EventRow


class ExportedEvent(NamedTuple):
    """An event, without what only describes its visitor's device or network."""

    id: str
    timestamp: datetime
    received_at: datetime
    event_type: str
    event_category: str | None
    platform: str
    source: str | None
    user_id: str | None
    session_id: str | None
    page_url: str | None
    page_title: str | None
    referrer: str | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    utm_term: str | None
    utm_content: str | None
    channel: str | None
    traffic_source: str | None
    traffic_medium: str | None
    campaign: str | None
    device: str | None
    browser: str | None
    os: str | None
    is_bot: bool
    course: str | None
    metadata: str | None
    """JSON."""


async def _events(session: AsyncSession, since: datetime, until: datetime) -> AsyncIterator[ExportedEvent]:
    query = select(EventRow.__table__).where(EventRow.timestamp >= since, EventRow.timestamp < until).order_by(EventRow.timestamp)
    async for row in rows(session, query):
        yield _exported(row)


def _exported(row: Any) -> ExportedEvent:
    data: dict[str, Any] = row.event_data
    utm: dict[str, str] = row.utm_parameters or {}
    derived = data["enrichment"]
    return ExportedEvent(
        id=id_of(row.id),
        timestamp=row.timestamp,
        received_at=row.received_at,
        event_type=row.event_type,
        event_category=row.event_category,
        platform=row.platform,
        source=row.source,
        user_id=row.user_id,
        session_id=row.session_id,
        page_url=row.page_url,
        page_title=data.get("page_title"),
        referrer=row.referrer,
        utm_source=utm.get("source"),
        utm_medium=utm.get("medium"),
        utm_campaign=utm.get("campaign"),
        utm_term=utm.get("term"),
        utm_content=utm.get("content"),
        channel=derived["channel"].removeprefix("CHANNEL_").lower(),
        traffic_source=derived.get("traffic_source"),
        traffic_medium=derived.get("traffic_medium"),
        campaign=derived.get("campaign"),
        device=derived.get("device"),
        browser=derived.get("browser"),
        os=derived.get("os"),
        is_bot=derived.get("is_bot", False),
        course=derived.get("course"),
        metadata=orjson.dumps(data["metadata"]).decode() if "metadata" in data else None,
    )


EXPORTS: Final = {"events": Export(ExportedEvent, _events)}
