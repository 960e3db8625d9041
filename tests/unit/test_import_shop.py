"""A shop read by its REST API while it changes, from a double that pages and filters as WooCommerce does."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from cli.errors import CommandFailed
from cli.importing.items import Kind, Page
from cli.importing.woocommerce_api import ShopApi
from cli.importing.woocommerce_client import WooCommerce
from tests.woocommerce import KEY, SECRET, Shop, serving

NEW_YEAR = datetime(2024, 1, 1, tzinfo=UTC)


@pytest.fixture
def shop() -> Any:
    with serving(Shop()) as shop:
        yield shop


@pytest.fixture
async def client(shop: Shop) -> AsyncIterator[WooCommerce]:
    client = WooCommerce(shop.url, KEY, SECRET)
    yield client
    await client.close()


async def pages(client: WooCommerce, cursor: Mapping[str, Any] | None = None) -> list[Page]:
    return [page async for page in ShopApi(client).pages(cursor or {})]


async def bodies(client: WooCommerce, kind: Kind = Kind.PURCHASES) -> list[Mapping[str, Any]]:
    return [item.body for page in await pages(client) for item in page.items if item.kind is kind]


def numbers(read: list[Page]) -> list[int]:
    return [int(item.body["order_id"]) for page in read for item in page.items if item.kind is Kind.PURCHASES]


async def test_more_orders_of_one_second_than_fit_a_page_are_read_once_each(shop: Shop, client: WooCommerce) -> None:
    for number in range(1, 261):
        shop.order(number, NEW_YEAR, "1.00", modified=NEW_YEAR + timedelta(days=1))
    for number in range(261, 300):
        shop.order(number, NEW_YEAR, "1.00", modified=NEW_YEAR + timedelta(days=1, seconds=1))
    assert numbers(await pages(client)) == [*range(1, 300)]


async def test_an_order_that_changes_while_others_are_read_is_read_again_and_none_is_missed(shop: Shop, client: WooCommerce) -> None:
    for number in range(1, 251):
        shop.order(number, NEW_YEAR + timedelta(minutes=number), "1.00")
    read: list[Page] = []
    async for page in ShopApi(client).pages({}):
        read.append(page)
        if len(read) == 2:
            later = NEW_YEAR + timedelta(days=1)
            shop.orders[0] |= {"total": "2.00", "date_modified_gmt": later.strftime("%Y-%m-%dT%H:%M:%S")}
            shop.orders[0]["date_modified"] = (later + timedelta(hours=5, minutes=30)).strftime("%Y-%m-%dT%H:%M:%S")
            del shop.orders[1]
    assert numbers(read) == [*range(1, 251), 1]
    assert read[-1].items[-1].body["amount"] == 2


async def test_an_import_goes_on_after_any_page(shop: Shop, client: WooCommerce) -> None:
    for number in range(1, 151):
        shop.order(number, NEW_YEAR, "1.00")
        shop.customer(number)
    whole = await pages(client)
    for index, page in enumerate(whole):
        rest = await pages(client, page.cursor)
        expected = numbers(whole[index + 1 :])
        assert numbers(rest) == expected
    shop.order(151, NEW_YEAR + timedelta(days=1), "1.00")
    assert numbers(await pages(client, whole[-1].cursor)) == [151], "later it reads what has changed since"


async def test_customers_are_read_although_some_are_deleted_meanwhile_and_staff_is_left_out(shop: Shop, client: WooCommerce) -> None:
    shop.roles.remove("editor")
    for number in range(1, 201):
        shop.customer(number, role="shop_manager" if number == 150 else "customer")
    seen: set[str] = set()
    skipped: Counter[str] = Counter()
    async for page in ShopApi(client).pages({}):
        seen |= {item.body["wordpress_id"] for item in page.items}
        skipped += Counter(page.skipped)
        if len(seen) == 100:
            del shop.customers[:5]

    assert seen == {str(number) for number in range(1, 201) if number != 150}
    assert skipped == {"staff": 1}


async def test_an_order_is_reported_as_the_plugin_reports_it(shop: Shop, client: WooCommerce) -> None:
    shop.products = [
        {"id": 201, "categories": [], "meta_data": [{"key": "_related_course", "value": ["77", "78"]}]},
        {"id": 202, "categories": [{"slug": "study-guides"}], "meta_data": []},
    ]
    shop.customer(9, role="administrator", email="owner@example.org")
    visit = {"session_id": "s-1", "utm_parameters": {"source": "newsletter"}, "marks": {"ref": "PARTNER7", "ga_client_id": "1.2"}}
    order = shop.order(
        12,
        NEW_YEAR,
        "119.000000",
        number="W-12",
        status="wc-processing",
        currency="EUR",
        customer_id=42,
        total_tax="19.000000",
        discount_total="5.00",
        shipping_total="4.90",
        coupon_lines=[{"code": "SPRING"}],
        line_items=[
            {
                "id": 1,
                "name": "Course",
                "product_id": 201,
                "variation_id": 2011,
                "quantity": 1,
                "total": "80.504202",
                "total_tax": "15.295798",
            },
            {"id": 2, "name": "Guide", "product_id": 202, "quantity": 2, "total": "19.50", "total_tax": "3.70"},
        ],
        meta_data=[{"key": "_pmp_visit", "value": visit}],
    )
    returned: list[dict[str, Any]] = [
        {"id": 91, "product_id": 202, "variation_id": 0, "quantity": -1, "total": "-7.14", "total_tax": "-1.36", "meta_data": []},
        {"id": 92, "product_id": 0, "quantity": 0, "total": "-1.00", "meta_data": [{"key": "_refunded_item_id", "value": "3"}]},
    ]
    shop.refund(order, 13, "9.50", NEW_YEAR + timedelta(days=2), "for ada@example.org", lines=returned)
    shop.order(14, NEW_YEAR, "1.00", billing={"email": "Owner@example.org"})
    refunds, purchases = await bodies(client, Kind.REFUNDS), await bodies(client)
    assert refunds == [
        {
            "reference": "13",
            "amount": 9.5,
            "refunded_total": 9.5,
            "timestamp": "2024-01-03T00:00:00Z",
            "reason": "for [e-mail]",
            "source": "plugin",
            "reported_at": "2024-01-03T00:00:00Z",
            "historical": True,
            "lines": [{"product_id": "202", "quantity": 1, "amount": 8.5}, {"product_id": "3", "quantity": 0, "amount": 1.0}],
        }
    ]
    staffs, body = purchases
    assert (staffs["order_id"], staffs["is_staff"]) == ("14", True)
    assert body == {
        "id": "wc-order-12-import",
        "timestamp": "2024-01-01T00:00:00Z",
        "paid_at": "2024-01-01T00:00:00Z",
        "reported_at": "2024-01-03T00:00:00Z",
        "user_id": "42",
        "order_id": "12",
        "product_id": "2011",
        "product_name": "Course",
        "product_type": "course",
        "amount": 119.0,
        "currency": "EUR",
        "payment_method": "stripe",
        "payment_status": "processing",
        "billing_address": {"first_name": "Ada", "email": "buyer12@example.org", "country": "GB"},
        "country": "GB",
        "utm_parameters": {"source": "newsletter"},
        "referral_code": "PARTNER7",
        "metadata": {"ga_client_id": "1.2", "created_via": "checkout", "order_number": "W-12"},
        "email": "buyer12@example.org",
        "session_id": "s-1",
        "lines": [
            {
                "product_id": "2011",
                "product_name": "Course",
                "product_type": "course",
                "quantity": 1,
                "amount": 95.8,
                "course_ids": ["77", "78"],
            },
            {"product_id": "202", "product_name": "Guide", "product_type": "guide", "quantity": 2, "amount": 23.2},
        ],
        "discount_total": 5.0,
        "tax_total": 19.0,
        "shipping_total": 4.9,
        "coupon_codes": ["spring"],
        "refunded_total": 9.5,
        "is_staff": False,
        "source": "plugin",
        "historical": True,
    }


async def test_nothing_is_stated_of_an_anonymised_buyer_and_a_renewal_has_no_campaign(shop: Shop, client: WooCommerce) -> None:
    attribution = [
        {"key": f"_wc_order_attribution_{name}", "value": value} for name, value in (("source_type", "utm"), ("utm_source", "ads"))
    ]
    shop.order(1, NEW_YEAR, "1.00", billing={"email": "deleted@site.invalid"}, meta_data=attribution)
    shop.order(2, NEW_YEAR, "1.00", meta_data=attribution)
    shop.order(3, NEW_YEAR, "1.00", meta_data=[*attribution, {"key": "_subscription_renewal", "value": "2"}])
    anonymous, first, renewal = await bodies(client)
    assert not {"email", "billing_address", "utm_parameters", "user_id", "is_staff"} & anonymous.keys()
    assert (first["utm_parameters"], "utm_parameters" in renewal, renewal["metadata"]["is_renewal"]) == ({"source": "ads"}, False, True)


async def test_orders_that_were_never_paid_are_left_out_and_unreadable_ones_are_named(shop: Shop, client: WooCommerce) -> None:
    unpaid: dict[str, Any] = {"date_paid": None, "date_paid_gmt": None}
    for number, status in enumerate(("pending", "failed", "cancelled", "checkout-draft"), start=1):
        shop.order(number, NEW_YEAR, "1.00", status=status, **unpaid)
    shop.order(5, NEW_YEAR, "1.00", status="trash")
    shop.order(6, NEW_YEAR, "much")
    shop.order(7, NEW_YEAR, "1.00", status="cancelled")
    page = (await pages(client))[-1]
    assert page.skipped == {"never paid": 4}
    assert [(reject.origin, reject.reason) for reject in page.rejects] == [("order 6", "total is no amount")]
    assert [(item.body["order_id"], item.body["payment_status"]) for item in page.items] == [("7", "cancelled")]


@pytest.mark.parametrize("url", ["http://shop.example", "shop.example", "ftp://127.0.0.1"])
def test_a_key_is_never_sent_in_the_clear(url: str) -> None:
    with pytest.raises(CommandFailed, match="has to begin with https://"):
        WooCommerce(url, KEY, SECRET)
