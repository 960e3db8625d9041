"""A year of an invented shop, reported in any order and again: the mesh's figures are those of the shop's own books, to the cent.

`PMP_SHOP_ORDERS` says how many orders the year has; the ordinary suite has few.
"""

from __future__ import annotations

import asyncio
import os
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from pmp.journeys.v1 import journeys_pb2
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceStub, add_JourneysServiceServicer_to_server
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub, add_PurchasesServiceServicer_to_server
from sqlalchemy import select

from kit.boundary.boundary import Boundary
from kit.database.engine import Database
from kit.log.consume.consumer import Consumer
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.redis_log import RedisLog
from kit.people.keys.store import Keys
from kit.settings import Settings
from services.identity import consumers as identity
from services.identity.models import UserRow
from services.journeys import consumers as journeys
from services.journeys.projection import AttributionStore, splitter_of
from services.journeys.servicer import JourneysServicer
from services.purchases.exchange import Quote
from services.purchases.repository import Rates
from services.purchases.servicer import PurchasesServicer
from tests.conftest import newest_database
from tests.services.shop_year import DIGITS, Shop, cents, utc

ORDERS = int(os.environ.get("PMP_SHOP_ORDERS", "80"))
NOW = datetime.now(UTC).replace(microsecond=0)
_AT_ONCE = 16


class Mesh:
    """Purchases, and the services that follow it."""

    def __init__(self, settings: Settings, log: RedisLog, databases: dict[str, Database], channel: grpc.aio.Channel, keys: Keys) -> None:
        self.databases = databases
        self._store = AttributionStore(databases["journeys"].sessions, splitter_of(settings, keys.vault))
        self._settings, self._log = settings, log
        self._purchases: Any = PurchasesServiceStub(channel)
        self._journeys: Any = JourneysServiceStub(channel)
        self._metadata = (
            ("x-pmp-mesh-token", settings.mesh_token.get_secret_value()),
            ("x-pmp-client", "shop"),
            ("x-pmp-scope", "admin"),
        )
        handlers = {
            "identity": identity.FollowPurchases(StateTopic("identity", settings.log_partitions), keys.vault),
            "journeys": journeys.FollowPurchases(keys.vault),
        }
        self._consumers = [Consumer(databases[name].sessions, log, "purchases", handler) for name, handler in handlers.items()]

    async def report(self, order_id: str, body: dict[str, Any]) -> None:
        if order_id == "purchase":
            await self._purchases.TrackPurchase(ParseDict({"purchase": body}, pb.TrackPurchaseRequest()), metadata=self._metadata)
        else:
            request = ParseDict({"id": order_id, "refund": body}, pb.RefundPurchaseRequest())
            await self._purchases.RefundPurchase(request, metadata=self._metadata)

    async def visit(self, body: dict[str, Any]) -> None:
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
        await self._store.look()
        return await self._journeys.GetAttribution(journeys_pb2.GetAttributionRequest(model="last_touch"), metadata=self._metadata)

    async def follow(self) -> None:
        relay = Relay(self.databases["purchases"].sessions, self._log, "purchases", keep=timedelta(hours=1))
        for partition in range(self._settings.log_partitions):
            while await relay.step(partition):
                pass
            for consumer in self._consumers:
                while await consumer.step(partition, block_ms=1):
                    pass


@pytest.fixture
async def mesh(settings: Settings, log: RedisLog, keys: Keys) -> AsyncIterator[Mesh]:
    async with (
        newest_database(settings, "purchases") as purchases,
        newest_database(settings, "identity") as known,
        newest_database(settings, "journeys") as paths,
    ):
        databases = {"purchases": purchases, "identity": known, "journeys": paths}
        for name, database in databases.items():
            await prepare_heads(database.sessions, name, settings.log_partitions)
        server = grpc.aio.server(interceptors=[Boundary(settings.mesh_token.get_secret_value())])
        topics = {name: StateTopic(name, settings.log_partitions) for name in databases}
        add_PurchasesServiceServicer_to_server(PurchasesServicer(settings, purchases.sessions, topics["purchases"], keys), server)
        store = AttributionStore(paths.sessions, splitter_of(settings, keys.vault))
        add_JourneysServiceServicer_to_server(JourneysServicer(settings, paths.sessions, topics["journeys"], keys.vault, store), server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Mesh(settings, log, databases, channel, keys)
        await server.stop(0)


async def test_every_figure_of_a_year_is_that_of_the_shops_books(mesh: Mesh) -> None:
    shop = Shop(ORDERS, NOW)
    days = [NOW.date() - timedelta(days=back) for back in range(-1, 368)]
    quotes = [Quote(day, code, Decimal(shop.rate(day, code))) for day in days for code in DIGITS if code != "EUR"]
    async with mesh.databases["purchases"].sessions.begin() as session:
        await Rates(session).store(quotes, "test")
    told = [*shop.reports, *random.Random(11).sample(shop.reports, len(shop.reports) // 3)]  # noqa: S311
    random.Random(7).shuffle(told)  # noqa: S311
    await _all(told, lambda each: mesh.report(*each))
    await _all(shop.visits, mesh.visit)
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
    """To each source, what was sold in the last visit before the payment, and since the payment of the customer's order before."""
    owed: Counter[str] = Counter()
    before: dict[str, datetime] = defaultdict(lambda: datetime.min.replace(tzinfo=UTC))
    query = "SELECT id, customer, paid, session FROM orders WHERE paid NOT NULL AND status IN ('processing', 'completed', 'refunded')"
    for order_id, customer, paid, session in sorted(shop.books.execute(query), key=lambda row: (row[2], row[0])):
        visits = shop.books.execute("SELECT began, session, source FROM visits WHERE customer = ?", (customer,)).fetchall()
        paid_at = utc(paid)
        seen = [visit for visit in visits if paid_at - timedelta(days=90) <= utc(visit[0]) <= paid_at]
        path = [visit for visit in seen if utc(visit[0]) > before[customer]] or [visit for visit in seen if session and visit[1] == session]
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
