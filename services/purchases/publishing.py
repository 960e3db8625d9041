"""Publishes orders on the topic: each message is the order's whole state."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.publish.state_topic import StateTopic
from kit.people.subjects.personal_tables import Row
from services.purchases.messages import changed_message
from services.purchases.orders import Order
from services.purchases.repository import Purchases


async def publish_orders(session: AsyncSession, topic: StateTopic, orders: Iterable[Order]) -> None:
    """Publishes orders in the caller's transaction; best done last."""
    await topic.publish(session, [(order.row.id, changed_message(order.row, order.lines, order.entries)) for order in orders])


class RepublishErased:
    """Publishes erased purchases again: those that remain without the person, and of deleted ones nothing any more."""

    def __init__(self, topic: StateTopic) -> None:
        self._topic = topic

    async def __call__(self, session: AsyncSession, rows: Sequence[Row]) -> None:
        """Publishes the purchases of these rows, in the transaction that erases them."""
        ids = [row["id"] for row in rows]
        orders = await Purchases(session).by_id(ids)
        await self._topic.forget(session, set(ids) - {order.row.id for order in orders})
        await publish_orders(session, self._topic, orders)
