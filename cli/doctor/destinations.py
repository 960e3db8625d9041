"""Examines the destinations: whether each is sent to, and what it refused."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from sqlalchemy import func, select

from cli.doctor.findings import Finding
from cli.doctor.subject import Subject
from cli.pod_calls import call_service
from services.destinations.models import DeliveryRow
from services.destinations.repository import DEAD

_LATE: Final = timedelta(hours=1)


async def destinations(subject: Subject) -> AsyncIterator[Finding]:
    """Finds destinations that nothing is sent to, that lag, or that have dead letters."""
    answer = await call_service(subject.settings, "destinations", "GET", "/api/v1/destinations")
    for each in answer.get("destinations", ()):
        if each.get("is_configured"):
            for finding in _findings(each):
                yield finding
    if (database := subject.databases.get("destinations")) is not None:
        query = select(DeliveryRow.destination, func.count()).where(DeliveryRow.state == DEAD).group_by(DeliveryRow.destination)
        async with database.sessions.reading() as session:
            dead = (await session.execute(query)).all()
        for name, count in dead:
            action = f"`pmp destinations dead-letters {name}` says why; then `pmp destinations retry {name}` or `drop` them"
            yield Finding(what=f"{count:,} deliveries to {name} were given up and wait for a decision", action=action)


def _findings(destination: Mapping[str, Any]) -> list[Finding]:
    name, found = destination["name"], list[Finding]()
    if destination.get("is_paused"):
        reason = destination.get("pause_reason") or "no reason was given"
        action = f"mend that, `pmp destinations test {name}`, then `pmp destinations resume {name}`"
        found.append(Finding(what=f"nothing is sent to {name}, it is paused: {reason}", action=action))
    elif until := destination.get("open_until"):
        action = f"`pmp destinations test {name}` says whether it can be reached; it is tried again by itself"
        found.append(Finding(what=f"{name} is left alone until {until}, because attempts failed", action=action))
    oldest = destination.get("books", {}).get("oldest_pending_at")
    if oldest and datetime.now(UTC) - datetime.fromisoformat(oldest) > _LATE:
        action = f"`pmp destinations test {name}` says whether it can be reached (docs/destinations.md)"
        found.append(Finding(what=f"the oldest delivery to {name} has been waiting since {oldest}", action=action))
    return found
