"""Exchange rates arrive late: stores them, and prices the paid orders for which there was none."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime
from typing import Final, NamedTuple

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.log.publish.outbox import count_partitions
from kit.log.publish.state_topic import StateTopic
from services.purchases.exchange import Quote
from services.purchases.messages import TOPIC
from services.purchases.orders import Order
from services.purchases.publishing import publish_orders
from services.purchases.repository import Purchases, Rates

_RATES: Final = 5_000
"""Rates stored in one transaction: the service writes between two of them."""
_ORDERS: Final = 200
"""Orders priced in one transaction."""


class UnpricedOrder(NamedTuple):
    """A paid order without a rate."""

    order_id: str
    day: date
    """The day of the rate that it needs."""
    currency: str


class PricedBatch(NamedTuple):
    """The result of pricing some orders."""

    priced: int
    unpriced: Sequence[UnpricedOrder]
    """Those for whose day there is still no rate."""


async def store_rates(sessions: Sessions, quotes: Sequence[Quote], source: str) -> AsyncIterator[int]:
    """Stores rates, replacing known ones; yields the number stored by each transaction."""
    for start in range(0, len(quotes), _RATES):
        some = quotes[start : start + _RATES]

        async def store(session: AsyncSession, some: Sequence[Quote] = some) -> None:
            await Rates(session).store(some, source)

        await transact(sessions, store)
        yield len(some)


async def count_unpriced(sessions: Sessions) -> int:
    """The number of paid orders without a rate."""
    async with sessions.reading() as session:
        return await Purchases(session).count_unpriced()


async def price_orders(sessions: Sessions) -> AsyncIterator[PricedBatch]:
    """Prices paid orders without a rate by that of their day, and adds them to the outbox, which the service's relay publishes.

    Yields:
        The result of each transaction.
    """
    async with sessions.reading() as session:
        topic = StateTopic(TOPIC, await count_partitions(session, TOPIC) or 1)
    after: str | None = ""
    while after is not None:

        async def price(session: AsyncSession, after: str = after) -> tuple[PricedBatch, str | None]:
            purchases = Purchases(session)
            orders = await purchases.unpriced(after, _ORDERS)
            batch = await _price(session, topic, purchases, orders)
            return batch, orders[-1].row.id if orders else None

        batch, after = await transact(sessions, price)
        yield batch


async def _price(session: AsyncSession, topic: StateTopic, purchases: Purchases, orders: Sequence[Order]) -> PricedBatch:
    now = datetime.now(UTC)
    rates = await Rates(session).rates([(order.row.rate_day, order.row.currency, order.row.base_currency) for order in orders])
    priced: list[Order] = []
    unpriced: list[UnpricedOrder] = []
    for order, rate in zip(orders, rates, strict=True):
        if rate is None:
            unpriced.append(UnpricedOrder(order.row.order_id, order.row.rate_day, order.row.currency))
        else:
            order.price(rate)
            order.row.updated_at = now
            priced.append(order)
    await purchases.flush()
    await publish_orders(session, topic, priced)
    return PricedBatch(len(priced), unpriced)
