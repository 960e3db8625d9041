"""Time until an answered event is stored, and in its person's journey, in an idle mesh."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Mapping
from dataclasses import dataclass
from uuid import uuid4

import httpx
from sqlalchemy import Select, select

from bench.events import template
from bench.servers import BenchFailed
from cli.credentials import Credentials
from kit.database.engine import Database
from services.ingestion.models import EventRow
from services.journeys.models import TouchpointRow

_LONGEST_SECONDS = 30.0
_POLL_SECONDS = 0.004
_PAUSE_SECONDS = 0.3
"""Interval between two events, so that each finds an idle mesh."""


@dataclass(frozen=True, slots=True)
class Followed:
    """Milliseconds from the response until the row exists: median and maximum."""

    events: int
    stored_p50_ms: float
    stored_max_ms: float
    in_journey_p50_ms: float
    in_journey_max_ms: float


async def measure(target: Credentials, databases: Mapping[str, Database], events: int) -> Followed:
    """Sends events one by one and polls for their rows.

    Raises:
        BenchFailed: a response is not 200, or a row does not appear.
    """
    stored: list[float] = []
    in_journey: list[float] = []
    headers = {"content-type": "application/json", "x-api-key": target.api_key, "authorization": f"Bearer {target.token}"}
    async with httpx.AsyncClient(base_url=target.url, headers=headers) as client:
        for number in range(events):
            id_ = str(uuid4())
            response = await client.post("/api/v1/events/track", content=template() % (id_, number, number, number))
            if not response.is_success:
                raise BenchFailed(f"an event was answered with {response.status_code}")
            answered = time.monotonic()
            row, touchpoint = select(EventRow.key).where(EventRow.key == id_), select(TouchpointRow.id).where(TouchpointRow.id == id_)
            both = await asyncio.gather(
                _appears(databases["ingestion"], row, answered), _appears(databases["journeys"], touchpoint, answered)
            )
            stored.append(both[0])
            in_journey.append(both[1])
            await asyncio.sleep(_PAUSE_SECONDS)
    return Followed(events, statistics.median(stored), max(stored), statistics.median(in_journey), max(in_journey))


async def _appears(database: Database, row: Select[str], answered: float) -> float:
    """Milliseconds from the response until the row exists."""
    while True:
        async with database.sessions.reading() as session:
            found = await session.scalar(row)
        taken = time.monotonic() - answered
        if found is not None:
            return taken * 1000
        if taken > _LONGEST_SECONDS:
            raise BenchFailed("an event that was answered is not stored, or not in its journey")
        await asyncio.sleep(_POLL_SECONDS)
