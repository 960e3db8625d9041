"""What journeys make of the topics they follow: events and paid orders become touchpoints."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

from google.protobuf.message import DecodeError
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.consume import Delivery, Poison
from kit.log.streams import Position
from services.journeys.messages import EVENT, Row, event_row, glimpse, order_row, order_touchpoint_id, purchase_row
from services.journeys.repository import Orders, Touchpoints


async def follow_events(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[str | Poison]:
    """Handler of the topic `events`: each event of a person is a touchpoint, once."""
    stored = [_event(delivery) for delivery in deliveries]
    touchpoints = Touchpoints(session)
    origins = {touchpoint_id: row.origin for touchpoint_id, row in (await touchpoints.known({one.event.id for one in stored})).items()}
    now = datetime.now(UTC)
    rows: list[Row] = []
    outcomes: list[str | Poison] = []
    for one in stored:
        origin = origins.get(one.event.id)
        if one.enrichment.is_bot:
            outcomes.append("bot")
        elif origin is None:
            origins[one.event.id] = EVENT
            rows.append(event_row(one, now))
            outcomes.append("applied")
        else:
            outcomes.append("duplicate" if origin == EVENT else Poison("a client's touchpoint has this id"))
    await touchpoints.add(rows)
    await touchpoints.see(seen for row in rows if (seen := glimpse(row)) is not None)
    return outcomes


async def follow_purchases(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[str | Poison]:
    """Handler of the topic `purchases`: the newest word on an order counts, and while it is paid it is a touchpoint."""
    told = {(change := _purchase(delivery)).purchase_id: (change, delivery) for delivery in deliveries}
    known = await Orders(session).positions(told)
    now = datetime.now(UTC)
    rows: list[Row] = []
    bought: list[Row] = []
    unpaid: list[str] = []
    for purchase_id, (change, delivery) in told.items():
        place = (Position.parse(delivery.position).ms, delivery.ordinal)
        if place < known.get(purchase_id, (0, 0)):
            continue
        row = order_row(change, *place)
        rows.append(row)
        if row["paid_at"] is None or row["excluded"]:
            unpaid.append(order_touchpoint_id(purchase_id))
        else:
            bought.append(purchase_row(change, row, now))
    await Orders(session).put(rows)
    await Touchpoints(session).put(bought)
    await Touchpoints(session).remove(unpaid)
    return ["applied"] * len(deliveries)


def _event(delivery: Delivery) -> EventStored:
    try:
        return EventStored.FromString(delivery.record.payload)
    except DecodeError:
        raise Poison(f"not a {delivery.record.type}") from None


def _purchase(delivery: Delivery) -> PurchaseChanged:
    try:
        return PurchaseChanged.FromString(delivery.record.payload)
    except DecodeError:
        raise Poison(f"not a {delivery.record.type}") from None
