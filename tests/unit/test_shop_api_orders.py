"""The orders of a shop without the plugin, from a double that pages, filters and refuses as WooCommerce's REST API does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from pmp.purchases.v1.comparison_pb2 import OrderBalance
from typing_extensions import override

from cli.comparison import shop_at
from cli.errors import CommandFailed
from cli.importing.woocommerce_client import WooCommerce
from cli.ledger import Ledger
from cli.reconcile import Reconciler
from cli.shop_api_orders import ApiOrders
from cli.shop_orders import ShopOrders
from cli.shop_reports import PLUGIN, WEBHOOKS
from services.purchases.agreement import Kind
from tests.receiver import SECRET as SIGNS
from tests.woocommerce import KEY, SECRET, Shop, serving

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEYS = {"PMP_WOOCOMMERCE_KEY": KEY, "PMP_WOOCOMMERCE_SECRET": SECRET}


@pytest.fixture
def shop() -> Iterator[Shop]:
    with serving(Shop()) as shop:
        yield shop


@pytest.fixture
async def orders(shop: Shop) -> AsyncIterator[ApiOrders]:
    orders = ApiOrders(WooCommerce(shop.url, KEY, SECRET))
    yield orders
    await orders.close()


async def listed(orders: ApiOrders, since: datetime = NOON - DAY, until: datetime = NOON + DAY) -> list[tuple[str, str, float]]:
    """Number, status and refunds of the orders of a period."""
    pages = [page async for page in orders.pages(since, until)]
    return [(each.order_id, each.payment_status, each.refunded_total) for page in pages for each in page]


async def test_orders_are_those_that_were_placed_in_the_period_the_trash_included(shop: Shop, orders: ApiOrders) -> None:
    since, until = NOON + timedelta(microseconds=5), NOON + timedelta(seconds=2)
    for number, seconds in ((1, -1), (2, 0), (3, 1), (4, 2)):
        shop.order(number, NOON + timedelta(seconds=seconds), "10.00")
    shop.order(5, NOON, "10.00", status="trash")
    shop.order(6, NOON, "10.00", status="checkout-draft")
    shop.refund(shop.orders[1], 90, "2.50", NOON)
    shop.refund(shop.orders[1], 91, "0.10", NOON)
    assert await listed(orders, since, until) == [("2", "completed", 2.6), ("3", "completed", 0), ("5", "cancelled", 0)]


async def test_more_orders_of_one_second_than_fit_a_page_are_read_once_each(shop: Shop, orders: ApiOrders) -> None:
    for number in range(1, 400):
        shop.order(number, NOON + timedelta(seconds=int(number > 250)), "1.00")
    assert [number for number, _, _ in await listed(orders)] == [str(number) for number in range(1, 400)]


async def test_an_order_that_is_deleted_meanwhile_hides_no_other(shop: Shop, orders: ApiOrders) -> None:
    for number in range(1, 251):
        shop.order(number, NOON + timedelta(minutes=number), "1.00")
    read: list[str] = []
    async for page in orders.pages(NOON, NOON + DAY):
        read += [each.order_id for each in page]
        if len(read) == 100:
            del shop.orders[:50]
    assert read == [str(number) for number in range(1, 251)]


async def test_reports_are_those_of_the_plugin_as_of_the_moment_they_are_read(shop: Shop, orders: ApiOrders) -> None:
    shop.products = [{"id": 201, "categories": [{"slug": "online-courses"}], "meta_data": []}]
    shop.customer(7, role="shop_manager")
    shop.order(1, NOON, "10.00", customer_id=7)
    shop.refund(shop.orders[0], 90, "2.50", NOON + DAY, "as agreed")
    shop.order(2, NOON, "10.00", status="trash")
    shop.order(3, NOON, "10.00", status="archived")
    shop.order(4, NOON, "10.00", status="auto-draft")
    before = datetime.now(UTC) - timedelta(seconds=2)
    read = await orders.read(["1", "2", "3", "4", "5", "A-17"])
    assert before < datetime.fromisoformat(read.at) < datetime.now(UTC), "by the shop's clock, whose answers have whole seconds"
    assert read.reports.keys() == {"1", "2", "3"}, "a draft is no order yet"
    first, trashed, archived = (read.reports[number].purchase for number in ("1", "2", "3"))
    assert (first["amount"], first["refunded_total"], first["is_staff"], first["reported_at"]) == (10, 2.5, True, read.at)
    assert first["lines"][0]["product_type"] == "course"
    [refund] = read.reports["1"].refunds
    assert (refund["reference"], refund["amount"], refund["timestamp"]) == ("90", 2.5, "2026-03-02T12:00:00Z")
    assert (trashed["payment_status"], trashed["reason"], trashed["paid_at"]) == ("cancelled", "trashed", "2026-03-01T12:00:00Z")
    assert archived["payment_status"] == "completed", "another plugin's status, which is in no list"


async def test_products_and_staff_are_read_once(shop: Shop, orders: ApiOrders) -> None:
    shop.order(1, NOON, "10.00")
    for _ in range(3):
        await orders.read(["1"])
    assert (shop.requests["products"], shop.requests["customers"]) == (1, 3), "three roles are staff"


class _Known(Ledger):
    """Has paid orders."""

    def __init__(self, count: int) -> None:
        paid: Any = {"payment_status": "completed", "currency": "USD", "amount": "10", "paid_amount": "10", "refunded_amount": "0"}
        self._paid = {str(each): OrderBalance(order_id=str(each), sources=[WEBHOOKS], **paid) for each in range(1, count + 1)}

    @override
    async def balances(self, since: datetime, until: datetime) -> AsyncIterator[OrderBalance]:
        for each in self._paid.values():
            yield each

    @override
    async def balances_of(self, order_ids: Collection[str]) -> Mapping[str, OrderBalance]:
        return {each: self._paid[each] for each in order_ids}


async def test_a_few_of_many_missing_orders_show_that_it_may_be_another_shop(shop: Shop, orders: ApiOrders) -> None:
    outcome = await Reconciler(orders, _Known(420), "USD", lambda _: None).run(NOON - DAY, NOON + DAY, heals=True, deletes=False)
    assert (outcome.orders, outcome.left, {each.difference.kind for each in outcome.found}) == (420, 420, {Kind.MISSING_THERE})
    assert {each.reason.partition(":")[0] for each in outcome.found} == {"the shop lacks 420 orders"}
    assert sum(count for path, count in shop.requests.items() if path.startswith("orders/")) == 20


async def test_many_orders_that_no_list_has_are_looked_up_if_one_of_a_few_is_there(shop: Shop, orders: ApiOrders) -> None:
    for number in range(1, 102):
        shop.order(number, NOON, "10.00", status="archived")
    outcome = await Reconciler(orders, _Known(101), "USD", lambda _: None).run(NOON - DAY, NOON + DAY, heals=False, deletes=False)
    assert (outcome.orders, outcome.found) == (101, [])


async def test_a_shop_without_the_route_of_refunds_is_read_order_by_order(shop: Shop, orders: ApiOrders) -> None:
    shop.has_refunds_route = False
    shop.order(1, NOON, "10.00")
    shop.refund(shop.orders[0], 90, "2.50", NOON)
    assert [each["reference"] for each in (await orders.read(["1"])).reports["1"].refunds] == ["90"]


async def test_only_that_the_shop_knows_no_such_order_says_that_it_was_deleted(shop: Shop, orders: ApiOrders) -> None:
    shop.unknown_routes.add("orders/1")
    with pytest.raises(CommandFailed, match="refuses orders/1: 404 rest_no_route"):
        await orders.read(["1"])


def test_an_order_keeps_the_source_that_reported_it(orders: ApiOrders) -> None:
    assert [orders.source(known) for known in ([], [WEBHOOKS], [PLUGIN, WEBHOOKS], ["billing"])] == [WEBHOOKS, WEBHOOKS, PLUGIN, WEBHOOKS]


@pytest.mark.parametrize(
    ("url", "environment", "kind"),
    [
        ("https://shop.example", KEYS, ApiOrders),
        ("https://shop.example", {**KEYS, "PMP_SITE_ERASURE_SECRET": SIGNS}, ApiOrders),
        ("https://shop.example/wp-json/pmp/v1/orders/", {**KEYS, "PMP_SITE_ERASURE_SECRET": SIGNS}, ShopOrders),
        ("https://shop.example/?rest_route=/pmp/v1/orders", {**KEYS, "PMP_SITE_ERASURE_SECRET": SIGNS}, ShopOrders),
    ],
)
async def test_the_address_decides_how_a_shop_is_asked(url: str, environment: dict[str, str], kind: type) -> None:
    shop = shop_at(url, environment)
    assert type(shop) is kind
    await shop.close()


@pytest.mark.parametrize(
    ("url", "environment", "complaint"),
    [
        ("https://shop.example", {}, "PMP_WOOCOMMERCE_KEY and PMP_WOOCOMMERCE_SECRET are not set either"),
        ("https://shop.example", {"PMP_WOOCOMMERCE_KEY": KEY}, "PMP_SITE_ERASURE_SECRET is not set"),
        ("https://shop.example/wp-json/pmp/v1/orders", KEYS, "whose plugin has the same$"),
        ("http://shop.example", KEYS, "has to begin with https://"),
    ],
)
def test_what_is_missing_is_said(url: str, environment: dict[str, str], complaint: str) -> None:
    with pytest.raises(CommandFailed, match=complaint):
        shop_at(url, environment)
