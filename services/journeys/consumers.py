"""Projects other topics: events and paid orders become touchpoints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.consume.handler import Poison
from kit.log.streams import Delivery
from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifier_of
from kit.people.persons import Persons
from kit.people.suppression import Suppressions
from services.journeys.messages import (
    EVENT,
    Row,
    event_row,
    identifiers_of,
    order_row,
    order_touchpoint_id,
    purchase_row,
    session_facts,
    unsuppressed,
)
from services.journeys.repository import Orders, Touchpoints, mark_pending


class FollowEvents:
    """Handler of the topic `events`: stores each event of a person as a touchpoint, once."""

    def __init__(self, hasher: KeyedHasher) -> None:
        self._hasher = hasher

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Stores new events, except those of erased persons."""
        stored = [EventStored.FromString(delivery.record.payload) for delivery in deliveries]
        touchpoints = Touchpoints(session)
        now = datetime.now(UTC)
        made = [event_row(event, now) for event in stored]
        origins = {key: row.origin for key, row in (await touchpoints.known({row["id"] for row in made})).items()}
        suppressed = await Suppressions(session).of(self._hasher, {identifier for row in made for identifier in identifiers_of(row)})
        rows: dict[str, Row] = {}
        updates: list[Row] = []
        refused: list[Delivery] = []
        for delivery, event, row in zip(deliveries, stored, made, strict=True):
            key = row["id"]
            origin = origins.get(key)
            if event.enrichment.is_bot:
                continue
            if origin is not None and not (event.is_update and origin == EVENT):
                if origin != EVENT:
                    refused.append(delivery)
            elif (kept := unsuppressed(row, suppressed)) is None:
                continue
            elif origin is None or key in rows:
                origins[key] = EVENT
                rows[key] = kept
            else:
                updates.append(kept)
        if refused:
            raise Poison("a client's touchpoint has this id", refused)
        await touchpoints.add([*rows.values()])
        await touchpoints.put(updates)
        await touchpoints.see(seen for row in (*rows.values(), *updates) if (seen := session_facts(row)) is not None)


async def follow_identity(session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
    """Handler of the topic `identity`: projects persons, and marks the paths that change with them."""
    changes = (IdentityChanged.FromString(delivery.record.payload) for delivery in deliveries)
    moved = await Persons(session).apply(changes)
    people = {f"user:{person}" for pair in moved.values() for person in pair if person is not None}
    await mark_pending(session, {*moved, *people})


class FollowPurchases:
    """Handler of the topic `purchases`: stores the newest state of each order, and a paid one as a touchpoint."""

    def __init__(self, hasher: KeyedHasher) -> None:
        self._hasher = hasher

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> None:
        """Stores orders, except those of erased persons: a later change has their pseudonym."""
        changes = [(PurchaseChanged.FromString(delivery.record.payload), delivery) for delivery in deliveries]
        latest = {change.purchase_id: (change, delivery) for change, delivery in changes}
        known = await Orders(session).offsets(latest)
        identifiers = {each for change, _ in latest.values() for each in (change.subject, identifier_of(session_id=change.session_id))}
        suppressed = await Suppressions(session).of(self._hasher, identifiers)
        now = datetime.now(UTC)
        rows: list[Row] = []
        bought: list[Row] = []
        unpaid: list[str] = []
        for purchase_id, (change, delivery) in latest.items():
            read_at = (delivery.offset.ms, delivery.ordinal)
            row = unsuppressed(order_row(change, *read_at), suppressed)
            if row is None or read_at < known.get(purchase_id, (0, 0)):
                continue
            rows.append(row)
            if row["paid_at"] is None or row["excluded"]:
                unpaid.append(order_touchpoint_id(purchase_id))
            else:
                bought.append(purchase_row(change, row, now))
        await Orders(session).put(rows)
        await Touchpoints(session).put(bought)
        await Touchpoints(session).remove(unpaid)
