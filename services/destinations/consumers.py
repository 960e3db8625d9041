"""Follows the topics: decides what is to be delivered of each message, and stores it in the transaction that advances the offset."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import blake2b
from typing import Any, Final

from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.consume.handler import Handler
from kit.log.streams import Delivery
from kit.people.hashing import KeyedHasher
from kit.people.persons import project_identity
from kit.people.privacy import project_consent
from kit.people.suppression import Suppressed, Suppressions, screen
from services.destinations.clearance import ordered
from services.destinations.kind import Destination, Message, Wanted
from services.destinations.personal import KEPT_FOR
from services.destinations.repository import PENDING, Deliveries, Destinations

MESSAGES: Final[Mapping[str, type[Message]]] = {
    "events": EventStored,
    "gdpr": GdprChanged,
    "identity": IdentityChanged,
    "journeys": JourneyChanged,
    "purchases": PurchaseChanged,
}
"""The topics that are followed, and the type of the messages of each."""

PROJECTIONS: Final[Mapping[str, Handler]] = {"gdpr": project_consent, "identity": project_identity}
"""What is projected of topics: who may be sent what, whatever is configured."""
_USER: Final = ("user:", "wordpress:")
_SESSION: Final = ("session:", "anonymous:")
_EMAIL: Final = ("email:",)
_LONGEST_KEY: Final = 255
_IDENTIFIERS: Final = ("subject", "session", "email")
"""Columns of a message that identify its person."""


class Decisions:
    """Stores the deliveries that destinations want of messages.

    Args:
        destinations: by name.
        hasher: recognises the identifiers of erased persons.
        started_at: when this process started: destinations that are new are delivered what happens from then on.
        wake: is called once deliveries are committed.
    """

    def __init__(
        self, destinations: Mapping[str, Destination[Any]], hasher: KeyedHasher, started_at: datetime, wake: Callable[[], None]
    ) -> None:
        self._destinations = destinations
        self._hasher = hasher
        self._started_at = started_at
        self._wake = wake
        self._added: Mapping[str, datetime] = {}
        """When destinations were added; empty until that is committed."""

    async def add(
        self, session: AsyncSession, published: Iterable[tuple[str, Message]], traceparents: Mapping[str, str] | None = None
    ) -> None:
        """Stores deliveries of what happened since their destination was added; nothing about erased persons.

        Args:
            session: the transaction.
            published: messages, each with its id.
            traceparents: W3C trace contexts that the deliveries continue, by the messages' ids.
        """
        destinations = dict(self._destinations)
        added = self._added if self._added.keys() >= destinations.keys() else await self._add(session)
        now = datetime.now(UTC)
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        messages: dict[str, dict[str, Any]] = {}
        for message_id, message in published:
            stored: dict[str, Any] | None = None
            for name, destination in destinations.items():
                for each in destination.wanted(message):
                    is_old = not each.is_state and each.at < max(added[name], _oldest(destination, now))
                    if is_old or _is_history(destination, each, message):
                        continue
                    stored = stored or _message(message_id, message, now, (traceparents or {}).get(message_id, ""))
                    messages[stored["id"]] = stored
                    wanted = each._replace(key=_key(each, stored["id"]))
                    rows.setdefault((name, wanted.key), _delivery(name, wanted, stored, about(message), now))
        if rows:
            await self._store(session, rows, messages)

    async def _add(self, session: AsyncSession) -> Mapping[str, datetime]:
        """Adds destinations that are new; returns when each was added."""
        states = await Destinations(session).all()
        if states.keys() >= self._destinations.keys():
            self._added = {name: row.added_at for name, row in states.items()}
            return self._added
        await Destinations(session).add({name: each.options.kind for name, each in self._destinations.items()}, self._started_at)
        return {name: row.added_at for name, row in (await Destinations(session).all()).items()}

    async def _store(
        self, session: AsyncSession, rows: Mapping[tuple[str, str], Mapping[str, Any]], messages: Mapping[str, Mapping[str, Any]]
    ) -> None:
        # No one else decides about these destinations until the transaction ends.
        await Destinations(session).lock({destination for destination, _ in rows})
        decided = await Deliveries(session).decided(rows)
        identifiers = {each[name] for each in messages.values() for name in _IDENTIFIERS if each[name]}
        erased = await Suppressions(session).of(self._hasher, identifiers)
        fresh = [
            row
            for key, row in rows.items()
            if key not in decided and not _is_erased(messages[row["message_id"]], row["happened_at"], erased)
        ]
        if fresh:
            await Deliveries(session).add(fresh, [messages[message_id] for message_id in {row["message_id"] for row in fresh}])
            event.listen(session.sync_session, "after_commit", self._committed)

    def _committed(self, _session: object) -> None:
        self._wake()


class Decide:
    """Handler of a topic: stores the deliveries that destinations want of its messages.

    Args:
        topic: one of `MESSAGES`.
        destinations: by name.
        hasher: recognises the identifiers of erased persons.
        started_at: when this process started.
        wake: is called once deliveries are committed.
    """

    def __init__(
        self,
        topic: str,
        destinations: Mapping[str, Destination[Any]],
        hasher: KeyedHasher,
        started_at: datetime,
        wake: Callable[[], None],
    ) -> None:
        self._type = MESSAGES[topic]
        self._project = PROJECTIONS.get(topic)
        self._decisions = Decisions(destinations, hasher, started_at, wake)

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Stores what is to be delivered of the messages."""
        if self._project is not None:
            await self._project(session, deliveries)
        messages = ((_id(delivery), self._type.FromString(delivery.record.payload)) for delivery in deliveries)
        traceparents = {_id(delivery): delivery.record.traceparent for delivery in deliveries if delivery.record.traceparent}
        await self._decisions.add(session, messages, traceparents)


def _id(delivery: Delivery) -> str:
    return f"{delivery.topic}:{delivery.partition}:{delivery.offset}:{delivery.ordinal}"


def _key(wanted: Wanted, message_id: str) -> str:
    key = wanted.key or f"{wanted.name}:{message_id}"
    return key if len(key) <= _LONGEST_KEY else blake2b(key.encode(), digest_size=32).hexdigest()


def _is_history(destination: Destination[Any], wanted: Wanted, message: Message) -> bool:
    """Whether a delivery is left out because it is history, and the destination takes none."""
    if destination.takes_history:
        return False
    return is_historical(message) if wanted.is_historical is None else wanted.is_historical


def about(message: Message) -> str:
    """Returns under what the deliveries of a message are looked up: the order or the event that it is about; empty for others."""
    if isinstance(message, PurchaseChanged):
        return f"order:{message.order_id}"
    return f"event:{message.event.id}" if isinstance(message, EventStored) else ""


def is_historical(message: Message) -> bool:
    """Whether a message is marked as history."""
    if isinstance(message, EventStored):
        return message.event.historical
    if isinstance(message, IdentityChanged):
        return message.user.historical
    return isinstance(message, PurchaseChanged) and message.historical


def _oldest(destination: Destination[Any], now: datetime) -> datetime:
    """Returns from when on something is delivered: what is older may have been delivered, and forgotten since."""
    return now - KEPT_FOR if not destination.takes_history else datetime.min.replace(tzinfo=UTC)


def _message(id_: str, message: Message, now: datetime, traceparent: str) -> dict[str, Any]:
    identifiers = ordered(message)
    return {
        "id": id_,
        "type": message.DESCRIPTOR.full_name,
        "payload": message.SerializeToString(),
        "traceparent": traceparent,
        "subject": _first(identifiers, _USER),
        "session": _first(identifiers, _SESSION),
        "email": _first(identifiers, _EMAIL),
        "stored_at": now,
    }


def _is_erased(message: Mapping[str, Any], at: datetime, suppressed: Suppressed) -> bool:
    """Whether a message names an erased person; one who registered again is a new person from then on."""
    screened = screen([message[name] or "" for name in _IDENTIFIERS], at, suppressed)
    return screened.is_dropped or bool(screened.stripped)


def _first(identifiers: Sequence[str], kinds: tuple[str, ...]) -> str | None:
    return next((each for each in identifiers if each.startswith(kinds)), None)


def _delivery(destination: str, wanted: Wanted, message: Mapping[str, Any], about: str, now: datetime) -> dict[str, Any]:
    return {
        "destination": destination,
        "name": wanted.name,
        "key": wanted.key,
        "about": about,
        "message_id": message["id"],
        "subject": message["subject"] or message["email"] or message["session"] or "",
        "order_by": wanted.order_by,
        "needs_consent": wanted.needs_consent,
        "happened_at": wanted.at,
        "state": PENDING,
        "attempts": 0,
        "claim": "",
        "not_before": wanted.not_before,
        "next_attempt_at": max(now, wanted.not_before or now),
        "decided_at": now,
        "detail": "",
    }
