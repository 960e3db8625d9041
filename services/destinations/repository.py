"""The SQL of destinations and of what is to be delivered to them; that of their queues is in `queue`."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from services.destinations.models import DeliveryRow, DestinationRow, ErasureRow, MessageRow
from services.destinations.rules import Breaker

PENDING: Final = "pending"
DELIVERED: Final = "delivered"
WITHHELD: Final = "withheld"
EXPIRED: Final = "expired"
DEAD: Final = "dead"
DROPPED: Final = "dropped"
"""A dead letter that an operator dropped: the books keep it among the dead letters."""
STATES: Final = (PENDING, DELIVERED, WITHHELD, EXPIRED, DEAD)
"""What the books count."""

_destinations: Final = cast("Table", DestinationRow.__table__)
_deliveries: Final = cast("Table", DeliveryRow.__table__)
_messages: Final = cast("Table", MessageRow.__table__)
_erasures: Final = cast("Table", ErasureRow.__table__)
_BREAKER: Final = ("failures", "opened", "open_until", "window_began_at", "window_attempts", "window_failures")


class Books(NamedTuple):
    """What became of the deliveries of one destination."""

    by_state: Mapping[str, int]
    oldest: datetime | None
    """When the oldest pending delivery was decided; None if none is pending."""


class Destinations:
    """The states of destinations, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def all(self) -> Mapping[str, DestinationRow]:
        """Returns the state of every destination that was ever configured, by name."""
        return {row.name: row for row in await self._session.scalars(select(DestinationRow))}

    async def get(self, name: str) -> DestinationRow | None:
        """Returns the state of a destination; None if it was never configured."""
        return await self._session.get(DestinationRow, name, populate_existing=True)

    async def lock(self, names: Collection[str]) -> Mapping[str, DestinationRow]:
        """Returns states, locked until the transaction ends. All who move deliveries of a destination take this lock first."""
        query = select(DestinationRow).where(DestinationRow.name.in_(sorted(names))).order_by(DestinationRow.name)
        locked = await self._session.scalars(query.with_for_update().execution_options(populate_existing=True))
        return {row.name: row for row in locked}

    async def add(self, kinds: Mapping[str, str], now: datetime) -> None:
        """Adds destinations of these kinds, by name, that are not known yet."""
        known = await self.all()
        self._session.add_all([DestinationRow(name=name, kind=kind, added_at=now) for name, kind in kinds.items() if name not in known])
        await self._session.flush()

    async def move(self, name: str, moved: Mapping[str, int], attempts: int = 0) -> None:
        """Adds to the counts of a destination, by state."""
        changes = {state: _destinations.c[state] + count for state, count in moved.items() if count}
        if attempts:
            changes["attempts"] = _destinations.c.attempts + attempts
        if changes:
            await self._session.execute(update(_destinations).where(_destinations.c.name == name).values(changes))

    async def set_breaker(self, name: str, breaker: Breaker) -> None:
        """Stores the circuit breaker of a destination."""
        values = {field: getattr(breaker, field) for field in _BREAKER}
        await self._session.execute(update(_destinations).where(_destinations.c.name == name).values(values))

    async def set_paused(self, name: str, reason: str | None) -> None:
        """Pauses a destination for a reason, or resumes it (None) with a closed circuit breaker."""
        values: dict[str, Any] = {"is_paused": reason is not None, "pause_reason": (reason or "")[:200]}
        await self._session.execute(update(_destinations).where(_destinations.c.name == name).values(values))
        if reason is None:
            await self.set_breaker(name, Breaker())

    async def books(self) -> Mapping[str, Books]:
        """Returns the books of every destination that has deliveries: counts that are kept, and one row of an index for each."""
        oldest: dict[str, datetime | None] = {}
        states = await self.all()
        for name, row in states.items():
            own = (DeliveryRow.destination == name, DeliveryRow.state == PENDING)
            oldest[name] = await self._session.scalar(select(func.min(DeliveryRow.decided_at)).where(*own)) if row.pending else None
        counts = {name: {state: getattr(row, state) for state in STATES} for name, row in states.items()}
        return {name: Books(each, oldest[name]) for name, each in counts.items() if any(each.values())}


def breaker_of(row: DestinationRow) -> Breaker:
    """Returns the circuit breaker of a destination."""
    return Breaker(**{field: getattr(row, field) for field in _BREAKER})


class Deliveries:
    """Deliveries and their messages, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def decided(self, keys: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        """Returns those pairs of destination and key that have a delivery."""
        by_destination: dict[str, set[str]] = defaultdict(set)
        for destination, key in keys:
            by_destination[destination].add(key)
        found: set[tuple[str, str]] = set()
        for destination, own in by_destination.items():
            for some in chunks(own):
                query = select(DeliveryRow.key).where(DeliveryRow.destination == destination, DeliveryRow.key.in_(some))
                found |= {(destination, key) for key in await self._session.scalars(query)}
        return found

    async def add(self, deliveries: Sequence[Mapping[str, Any]], messages: Collection[Mapping[str, Any]]) -> None:
        """Stores new pending deliveries, and the messages that they are made of. Their destinations are locked."""
        if not deliveries:
            return
        await upsert(self._session, _messages, sorted(messages, key=lambda row: row["id"]))
        await self._session.execute(insert(_deliveries), list(deliveries))
        for name, count in sorted(Counter(row["destination"] for row in deliveries).items()):
            await Destinations(self._session).move(name, {PENDING: count})

    async def messages(self, ids: Collection[str]) -> Mapping[str, MessageRow]:
        """Returns messages by id; those that are gone are missing."""
        found: dict[str, MessageRow] = {}
        for some in chunks(ids):
            query = select(_messages.c.id, _messages.c.type, _messages.c.payload, _messages.c.traceparent).where(_messages.c.id.in_(some))
            found |= {row.id: cast("MessageRow", row) for row in await self._session.execute(query)}
        return found

    async def under_way_without_message(self, names: Collection[str], now: datetime) -> set[str]:
        """Returns those destinations with an attempt in progress whose message was deleted meanwhile."""
        query = select(DeliveryRow.destination).where(
            DeliveryRow.destination.in_(sorted(names)),
            DeliveryRow.state == PENDING,
            DeliveryRow.claim != "",
            DeliveryRow.next_attempt_at > now,
            ~select(MessageRow.id).where(MessageRow.id == DeliveryRow.message_id).exists(),
        )
        return set(await self._session.scalars(query.distinct()))

    async def about(self, what: str, limit: int) -> Sequence[DeliveryRow]:
        """Returns the newest deliveries about an order or event, oldest first."""
        query = select(DeliveryRow).where(DeliveryRow.about == what).order_by(DeliveryRow.id.desc()).limit(limit)
        return list(reversed((await self._session.scalars(query)).all()))


class Erasures:
    """What destinations answered to erasures, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def answers(self, request: str) -> Mapping[str, str]:
        """Returns the final answers to a request, by destination."""
        rows = await self._session.execute(select(_erasures).where(_erasures.c.request == request))
        return {row.destination: row.answer for row in rows}

    async def add(self, request: str, destination: str, answer: str, now: datetime) -> None:
        """Stores a final answer."""
        row = {"request": request, "destination": destination, "answer": answer[:200], "answered_at": now}
        await upsert(self._session, _erasures, [row])
