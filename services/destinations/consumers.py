"""Follows the topics: decides what is to be delivered of each message, and stores it in the transaction that advances the offset."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, TypeAlias

from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.streams import Delivery
from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifiers_in
from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.people.suppression import Suppressions
from services.destinations.kind import Destination, Message, Wanted
from services.destinations.repository import PENDING, Deliveries, Destinations

MESSAGES: Final[Mapping[str, type[Message]]] = {
    "events": EventStored,
    "gdpr": GdprChanged,
    "identity": IdentityChanged,
    "journeys": JourneyChanged,
    "purchases": PurchaseChanged,
}
"""The topics that are followed, and the type of the messages of each."""

_Handler: TypeAlias = Callable[[AsyncSession, Sequence[Delivery]], Awaitable[None]]
_PROJECTIONS: Final[Mapping[str, _Handler]] = {"identity": project_identity, "gdpr": project_consent}
_USER: Final = ("user:", "wordpress:")
_SESSION: Final = ("session:", "anonymous:")
_EMAIL: Final = ("email:",)


class Decide:
    """Handler of a topic: stores the deliveries that destinations want of its messages.

    Args:
        topic: one of `MESSAGES`.
        destinations: by name.
        hasher: recognises the identifiers of erased persons.
        started_at: when this process started: destinations that are new are delivered what happens from then on.
    """

    def __init__(self, topic: str, destinations: Mapping[str, Destination[Any]], hasher: KeyedHasher, started_at: datetime) -> None:
        self._type = MESSAGES[topic]
        self._project = _PROJECTIONS.get(topic)
        self._destinations = destinations
        self._hasher = hasher
        self._started_at = started_at

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Stores deliveries of what happened since their destination was added; nothing about erased persons."""
        if self._project is not None:
            await self._project(session, deliveries)
        added = await Destinations(session).added(self._destinations, self._started_at)
        now = datetime.now(UTC)
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        messages: dict[str, dict[str, Any]] = {}
        for delivery in deliveries:
            message = self._type.FromString(delivery.record.payload)
            stored = _message(delivery, message, now)
            for name, destination in self._destinations.items():
                for wanted in destination.wanted(message):
                    if wanted.at >= added[name]:
                        messages[stored["id"]] = stored
                        row = _delivery(name, wanted, stored, now)
                        rows.setdefault((name, row["key"]), row)
        if rows:
            await self._store(session, rows, messages)

    async def _store(
        self, session: AsyncSession, rows: Mapping[tuple[str, str], Mapping[str, Any]], messages: Mapping[str, Mapping[str, Any]]
    ) -> None:
        decided = await Deliveries(session).decided(rows)
        identifiers = {each[name] for each in messages.values() for name in ("subject", "session", "email") if each[name]}
        erased = await Suppressions(session).of(self._hasher, identifiers)
        kept = {
            message_id: each
            for message_id, each in messages.items()
            if not any(each[name] in erased for name in ("subject", "session", "email"))
        }
        fresh = [row for key, row in rows.items() if key not in decided and row["message_id"] in kept]
        await Deliveries(session).add(fresh, [kept[message_id] for message_id in {row["message_id"] for row in fresh}])


def _message(delivery: Delivery, message: Message, now: datetime) -> dict[str, Any]:
    identifiers = sorted(identifiers_in(message))
    return {
        "id": f"{delivery.topic}:{delivery.partition}:{delivery.offset}:{delivery.ordinal}",
        "type": message.DESCRIPTOR.full_name,
        "payload": delivery.record.payload,
        "subject": _first(identifiers, _USER),
        "session": _first(identifiers, _SESSION),
        "email": _first(identifiers, _EMAIL),
        "stored_at": now,
    }


def _first(identifiers: Sequence[str], kinds: tuple[str, ...]) -> str | None:
    return next((each for each in identifiers if each.startswith(kinds)), None)


def _delivery(destination: str, wanted: Wanted, message: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    return {
        "destination": destination,
        "name": wanted.name,
        "key": wanted.key or f"{wanted.name}:{message['id']}",
        "message_id": message["id"],
        "subject": message["subject"] or message["email"] or message["session"] or "",
        "order_by": wanted.order_by,
        "needs_consent": wanted.needs_consent,
        "happened_at": wanted.at,
        "state": PENDING,
        "attempts": 0,
        "next_attempt_at": max(now, wanted.not_before or now),
        "decided_at": now,
        "detail": "",
    }
