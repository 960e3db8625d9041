"""A year of an invented shop, reported in any order and again: the mesh's figures are those of the shop's own books, to the cent.

`PMP_SHOP_ORDERS` says how many orders the year has; the ordinary suite has few.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from pmp.journeys.v1 import journeys_pb2
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub
from sqlalchemy import select

from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.identity.models import UserRow
from services.journeys.attribution_store import AttributionStore, splitter_of
from services.purchases.exchange import Quote
from services.purchases.repository import Rates
from tests.databases import newest_database
from tests.roles import ROLES, serving, settings_for
from tests.services.shop_year import DIGITS, Shop, cents, utc

ORDERS = int(os.environ.get("PMP_SHOP_ORDERS", "80"))
NOW = datetime.now(UTC).replace(microsecond=0)
_AT_ONCE = 16


class Mesh:
    """Purchases, and the services that follow it."""

    def __init__(self, settings: Settings, roles: dict[str, ServiceRuntime], channels: dict[str, grpc.aio.Channel]) -> None:
        self.databases = {name: role.database for name, role in roles.items()}
        self._store = AttributionStore(roles["journeys"].sessions, splitter_of(settings, roles["journeys"].keys.hasher))
        self._settings, self._relay = settings, roles["purchases"].relay
        self._purchases: Any = PurchasesServiceStub(channels["purchases"])
        self._journeys: Any = JourneysServiceStub(channels["journeys"])
        self._metadata = (
            ("x-pmp-mesh-token", settings.mesh_token.get_secret_value()),
            ("x-pmp-client", "shop"),
            ("x-pmp-scope", "admin"),
        )
        followed = [(role, each) for role in roles.values() for each in role.subscriptions if each.topic == "purchases"]
        self._consumers = [role.consumer(subscription) for role, subscription in followed]

    async def report(self, order_id: str, body: dict[str, Any]) -> None:
        if order_id == "purchase":
            await self._purchases.TrackPurchase(ParseDict({"purchase": body}, pb.TrackPurchaseRequest()), metadata=self._metadata)
        else:
            request = ParseDict({"id": order_id, "refund": body}, pb.RefundPurchaseRequest())
            await self._purchases.RefundPurchase(request, metadata=self._metadata)

    async def track(self, body: dict[str, Any]) -> None:
        request = ParseDict({"touchpoint": body}, journeys_pb2.TrackTouchpointRequest())
        await self._journeys.TrackTouchpoint(request, metadata=self._metadata)

    async def orders(self, date: str) -> list[pb.RecordedPurchase]:
        found: list[pb.RecordedPurchase] = []
        token = ""
        while True:
            request = pb.ListPurchasesRequest(date=date, page_size=500, page_token=token)
            page = await self._purchases.ListPurchases(request, metadata=self._metadata)
            found += page.purchases
            token = page.next_page_token
            if not token:
                return found

    async def attribution(self) -> journeys_pb2.GetAttributionResponse:
        await self._store.refresh()
        return await self._journeys.GetAttribution(journeys_pb2.GetAttributionRequest(model="last_touch"), metadata=self._metadata)

    async def follow(self) -> None:
        for partition in range(self._settings.log_partitions):
            while await self._relay.step(partition):
                pass
            for consumer in self._consumers:
                while await consumer.step(partition, block_ms=1):
                    pass


@pytest.fixture
async def mesh(settings: Settings, resources: Resources) -> AsyncIterator[Mesh]:
    roles: dict[str, ServiceRuntime] = {}
    channels: dict[str, grpc.aio.Channel] = {}
    async with AsyncExitStack() as stack:
        for name in ("purchases", "identity", "journeys"):
            await stack.enter_async_context(newest_database(settings, name))
            roles[name] = ROLES[name].compose(settings_for(ROLES[name], settings), resources)
            channels[name] = await stack.enter_async_context(serving(roles[name]))
        yield Mesh(settings, roles, channels)


async def test_every_figure_of_a_year_is_that_of_the_shops_books(mesh: Mesh) -> None:
    shop = Shop(ORDERS, NOW)
    days = [NOW.date() - timedelta(days=back) for back in range(-1, 368)]
    quotes = [Quote(day, code, Decimal(shop.rate(day, code))) for day in days for code in DIGITS if code != "EUR"]
    async with mesh.databases["purchases"].sessions.begin() as session:
        await Rates(session).store(quotes, "test")
    reports = [*shop.reports, *random.Random(11).sample(shop.reports, len(shop.reports) // 3)]  # noqa: S311
    random.Random(7).shuffle(reports)  # noqa: S311
    await _all(reports, lambda each: mesh.report(*each))
    await _all(shop.touchpoints, mesh.track)
    await mesh.follow()
    sold, booked = await mesh.orders("sale"), await mesh.orders("entry")
    assert {order.order_id for order in sold} == {
        order_id for (order_id,) in shop.books.execute("SELECT id FROM orders WHERE paid NOT NULL")
    }
    assert not any(order.disputed for order in [*sold, *booked])
    assert _by_sale(sold) == shop.days(BY_SALE)
    assert _by_entry(booked) == shop.days(BY_CORRECTION)
    values = _values(shop)
    assert {order.order_id: round(order.base_net_amount * 100) for order in sold} == values
    assert _in_dollars(booked) == _corrections_in_dollars(shop)
    assert await _lifetime_values(mesh) == _of_customers(shop, values)
    assert await _attributed(mesh) == _last_touches(shop, values)
    assert sum(values.values()) > ORDERS * 1000


BY_SALE = """
SELECT substr(paid, 1, 10), currency, SUM(total - COALESCE(back, 0))
FROM orders LEFT JOIN (SELECT order_id, SUM(amount) AS back FROM refunds WHERE deleted IS NULL GROUP BY 1) ON order_id = orders.id
WHERE paid NOT NULL AND status IN ('processing', 'completed', 'refunded') GROUP BY 1, 2
"""
BY_CORRECTION = "SELECT substr(at, 1, 10), currency, SUM(amount) FROM book JOIN orders ON orders.id = order_id GROUP BY 1, 2"


async def _all(several: list[Any], call: Callable[[Any], Awaitable[None]]) -> None:
    sending = asyncio.Semaphore(_AT_ONCE)

    async def send(each: Any) -> None:
        async with sending:
            while True:
                try:
                    return await call(each)
                except grpc.aio.AioRpcError as error:
                    if error.code() is not grpc.StatusCode.UNAVAILABLE:
                        raise

    await asyncio.gather(*(send(each) for each in several))


def _day(timestamp: Any) -> str:
    return timestamp.ToDatetime(UTC).date().isoformat()


def _minor(amount: float, currency: str) -> int:
    return round(amount * 10 ** DIGITS[currency])


def _by_sale(orders: list[pb.RecordedPurchase]) -> dict[tuple[str, str], int]:
    days: Counter[tuple[str, str]] = Counter()
    for order in orders:
        days[_day(order.sold_at), order.currency] += _minor(order.paid_amount - order.refunded_amount, order.currency)
    return {day: amount for day, amount in days.items() if amount}


def _by_entry(orders: list[pb.RecordedPurchase]) -> dict[tuple[str, str], int]:
    days: Counter[tuple[str, str]] = Counter()
    for order in orders:
        for entry in order.entries:
            days[_day(entry.timestamp), order.currency] += _minor(entry.amount, order.currency)
    return {day: amount for day, amount in days.items() if amount}


def _in_dollars(orders: list[pb.RecordedPurchase]) -> dict[str, int]:
    days: Counter[str] = Counter()
    for order in orders:
        for entry in order.entries:
            days[_day(entry.timestamp)] += round(entry.base_amount * 100)
    return {day: amount for day, amount in days.items() if amount}


def _corrections_in_dollars(shop: Shop) -> dict[str, int]:
    days: Counter[str] = Counter()
    balance: Counter[str] = Counter()
    query = "SELECT id, placed, currency, at, amount FROM book JOIN orders ON orders.id = order_id ORDER BY id, at"
    for order_id, placed, currency, at, amount in shop.books.execute(query):
        before = cents(shop.in_dollars(placed, currency, balance[order_id]))
        balance[order_id] += amount
        days[at[:10]] += cents(shop.in_dollars(placed, currency, balance[order_id])) - before
    return {day: amount for day, amount in days.items() if amount}


def _values(shop: Shop) -> dict[str, int]:
    """What each order that was sold is worth in the end, in cents."""
    query = "SELECT id, placed, currency, (SELECT SUM(amount) FROM book WHERE order_id = orders.id) FROM orders WHERE paid NOT NULL"
    return {order_id: cents(shop.in_dollars(placed, currency, net or 0)) for order_id, placed, currency, net in shop.books.execute(query)}


def _of_customers(shop: Shop, values: dict[str, int]) -> dict[int, int]:
    totals: Counter[int] = Counter()
    for order_id, customer in shop.books.execute("SELECT id, customer FROM orders"):
        totals[int(customer)] += values.get(order_id, 0)
    return dict(totals)


async def _lifetime_values(mesh: Mesh) -> dict[int, int]:
    async with mesh.databases["identity"].sessions() as session:
        rows = await session.execute(select(UserRow.wordpress_id, UserRow.lifetime_value).where(UserRow.wordpress_id.is_not(None)))
        return {row.wordpress_id or 0: int(row.lifetime_value * 100) for row in rows}


async def _attributed(mesh: Mesh) -> dict[str, int]:
    answer = await mesh.attribution()
    return {share.name: round(share.amount * 100) for share in answer.shares if share.amount}


def _last_touches(shop: Shop, values: dict[str, int]) -> dict[str, int]:
    """To each source, what was sold in the last session before the payment, and since the payment of the customer's previous order."""
    owed: Counter[str] = Counter()
    before: dict[str, datetime] = defaultdict(lambda: datetime.min.replace(tzinfo=UTC))
    query = "SELECT id, customer, paid, session FROM orders WHERE paid NOT NULL AND status IN ('processing', 'completed', 'refunded')"
    for order_id, customer, paid, session in sorted(shop.books.execute(query), key=lambda row: (row[2], row[0])):
        sessions = shop.books.execute("SELECT began, session, source FROM sessions WHERE customer = ?", (customer,)).fetchall()
        paid_at = utc(paid)
        seen = [each for each in sessions if paid_at - timedelta(days=90) <= utc(each[0]) <= paid_at]
        path = [each for each in seen if utc(each[0]) > before[customer]] or [each for each in seen if session and each[1] == session]
        owed[max(path)[2] if path else "(none)"] += values[order_id]
        before[customer] = paid_at
    return {source: amount for source, amount in owed.items() if amount}


def test_the_year_has_all_that_happens_to_orders() -> None:
    shop = Shop(400, NOW)
    statuses = {status for (status,) in shop.books.execute("SELECT DISTINCT status FROM orders")}
    assert statuses == {"pending", "processing", "completed", "refunded", "cancelled", "failed", "trashed"}
    assert {currency for (currency,) in shop.books.execute("SELECT DISTINCT currency FROM orders")} == set(DIGITS)
    assert [*shop.books.execute("SELECT 1 FROM refunds WHERE deleted NOT NULL LIMIT 1")]
    assert date.fromisoformat(min(placed for (placed,) in shop.books.execute("SELECT placed FROM orders"))[:10]) < NOW.date()
