"""To which affiliate an order is credited, and the commission it brings."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from services.analytics.affiliates import AffiliateProgram, Affiliates
from services.analytics.breakdown import Breakdown, Credit
from services.analytics.days import Calendar
from services.analytics.orders import CORRECTION, REFUND, SALE, Entry, Order

SOLD = int(datetime(2026, 3, 31, 23, tzinfo=UTC).timestamp()) * 1_000_000
"""1 April in Berlin."""
RULES: dict[str, Any] = {
    "affiliates": {
        "ADA": {"rate": {"2026-03-01": 0.1, "2026-04-01": "0.2"}, "coupons": ["Ada10"]},
        "grace": {"coupons": ["grace10"], "sources": ["blog.example"]},
        "later": {"rate": {"2026-04-02": 0.5}},
    },
    "default_rate": 0.05,
}


def order(*, source: str = "", medium: str = "", sold_at: int | None = SOLD, entries: tuple[int, ...] = (), **breakdown: Any) -> Order:
    kinds = [SALE, *[REFUND if amount < 0 else CORRECTION for amount in entries[1:]]]
    booked = tuple(Entry(kind, SOLD, amount, amount) for kind, amount in zip(kinds, entries, strict=False))
    return Order("USD", sold_at, False, source, medium, "", (), booked, Breakdown(**breakdown))


def program(zone: str = "Europe/Berlin", **rules: Any) -> AffiliateProgram:
    return AffiliateProgram(Affiliates.model_validate({**RULES, **rules}), Calendar(ZoneInfo(zone)))


@pytest.mark.parametrize(
    ("sale", "credit"),
    [
        (order(), None),
        (order(source="google", medium="cpc"), None),
        (order(coupons=("spring10",)), None),
        (order(coupons=("ada10",), referral="grace", source="blog.example"), Credit("ada", 2000, True)),
        (order(coupons=("ada10", "grace10")), Credit("ada", 2000, True)),
        (order(referral="other", source="blog.example"), Credit("other", 500, False)),
        (order(referral="later"), Credit("later", 0, True)),
        (order(source="blog.example", medium="affiliate"), Credit("grace", 500, True)),
        (order(source="partner", medium="affiliate"), Credit("partner", 500, False)),
        (order(coupons=("ada10",), sold_at=None), None),
    ],
)
def test_an_order_is_credited_to_one_affiliate_by_coupon_then_referral_then_source(sale: Order, credit: Credit | None) -> None:
    assert program().credited(sale).credit == credit


def test_an_order_has_the_rate_of_the_day_of_its_sale_where_the_shop_is() -> None:
    credited = [program(zone).credited(order(coupons=("ada10",))).credit for zone in ("Europe/Berlin", "UTC")]
    assert credited == [Credit("ada", 2000, True), Credit("ada", 1000, True)]


@pytest.mark.parametrize(
    ("entries", "commissions"),
    [
        ((1_190_000,), [200_000]),
        ((1_190_000, -1_190_000), [200_000, -200_000]),
        ((1_190_000, -400_000, -790_000), [200_000, -67_227, -132_773]),
        ((1_190_000, -1_190_000, 1_190_000), [200_000, -200_000, 200_000]),
    ],
)
def test_a_refund_takes_its_part_of_the_commission_back(entries: tuple[int, ...], commissions: list[int]) -> None:
    sale = program().credited(order(coupons=("ada10",), entries=entries, total=1_190_000, taxes=150_000, shipping=40_000))
    assert [commission for _, commission in sale.commissions()] == commissions


def test_an_order_of_nothing_but_taxes_brings_no_commission() -> None:
    sale = program().credited(order(coupons=("ada10",), entries=(100,), total=100, taxes=150))
    assert [commission for _, commission in sale.commissions()] == [0]
    assert [commission for _, commission in sale._replace(breakdown=Breakdown()).commissions()] == [0]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"default_rate": 1.5}, "default_rate"),
        ({"affiliates": {"a": {"rate": -0.1}}}, "affiliates.a.rate"),
        ({"affiliates": {"a": {"percent": 10}}}, "affiliates.a.percent"),
        ({"affiliates": {"a": {"rate": {"soon": 0.1}}}}, "affiliates.a.rate"),
        ({"affiliates": {"a": {"coupons": ["X"]}, "b": {"coupons": ["x"]}}}, "coupons: x is listed by several affiliates"),
    ],
)
def test_a_wrong_rule_is_refused_by_its_name(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as refused:
        Affiliates.model_validate(rules)
    found = [f"{'.'.join(map(str, each['loc']))} {each['msg']}" for each in refused.value.errors()]
    assert any(message in each for each in found), found


def test_a_stored_order_is_read_as_it_was() -> None:
    sale = program().credited(order(coupons=("ada10",), entries=(100, -40), total=100, country="DE", referral="x"))
    assert Order.loads(sale.dumps()) == sale
    assert Order.loads(order().dumps()) == order()


def test_an_erased_buyers_order_keeps_an_affiliate_that_the_shop_names() -> None:
    named = program().credited(order(coupons=("ada10",)))
    assert named.anonymous().credit == named.credit == Credit("ada", 2000, True)
    other = program().credited(order(referral="lovelace", coupons=("lovelace",), country="DE")).anonymous()
    assert (other.credit, other.breakdown) == (Credit("(other)", 500, False), Breakdown(country="DE", coupons=("(other)",)))
