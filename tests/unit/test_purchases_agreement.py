"""What an order amounts to by the shop's report alone, and how that differs from the ledger."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path

import pytest
from google.protobuf.json_format import ParseDict
from pmp.purchases.v1.comparison_pb2 import OrderBalance
from pmp.purchases.v1.purchases_pb2 import Purchase

from services.purchases.agreement import Figures, Kind, difference, ledger_figures, shop_figures
from services.purchases.statuses import Status

GOLDEN = Path(__file__).parent.parent / "wordpress" / "orders-route.json"
SOLD = Figures(Status.COMPLETED, "EUR", Decimal("19.90"), Decimal("19.90"), Decimal("0.00"))
UNPAID = SOLD._replace(status=Status.PENDING, paid=Decimal("0.00"))


def figures(**fields: object) -> Figures:
    purchase = {"order_id": "7", "timestamp": "2026-11-22T10:20:00Z", "amount": 30, "currency": "USD", "payment_status": "completed"}
    return shop_figures(ParseDict({**purchase, "reported_at": "2026-11-23T10:20:00Z", **fields}, Purchase()), "USD")


@pytest.mark.parametrize(
    ("fields", "status", "paid", "refunded"),
    [
        ({}, "completed", "30.00", "0.00"),
        ({"payment_status": "processing"}, "pending", "0.00", "0.00"),
        ({"payment_status": "processing", "paid_at": "2026-11-22T10:21:00Z"}, "completed", "30.00", "0.00"),
        ({"payment_status": "cancelled", "paid_at": "2026-11-22T10:21:00Z"}, "failed", "0.00", "0.00"),
        ({"refunded_total": 10.5}, "partially_refunded", "30.00", "10.50"),
        ({"payment_status": "refunded", "refunded_total": 30}, "refunded", "30.00", "30.00"),
        ({"payment_status": "refunded"}, "refunded", "30.00", "30.00"),
        ({"amount": 0}, "completed", "0.00", "0.00"),
        ({"amount": 1000, "currency": "JPY"}, "completed", "1000", "0"),
    ],
)
def test_an_order_amounts_to_what_its_report_says(fields: dict[str, object], status: str, paid: str, refunded: str) -> None:
    found = figures(**fields)
    assert (found.status, str(found.paid), str(found.refunded)) == (status, paid, refunded)


def test_what_the_plugin_lists_of_an_order_amounts_to_the_same_as_its_whole_report() -> None:
    golden = json.loads(GOLDEN.read_text())
    listed = {each["order_id"]: shop_figures(ParseDict(each, Purchase()), "USD") for each in golden["orders.list"]["orders"]}
    read = {each["order_id"]: shop_figures(ParseDict(each["purchase"], Purchase()), "USD") for each in golden["orders.read"]["orders"]}
    assert listed == read
    assert {(each.status, str(each.paid), str(each.refunded)) for each in read.values()} == {
        ("refunded", "30.00", "30.00"),
        ("failed", "0.00", "0.00"),
    }


def test_a_balance_has_the_same_figures() -> None:
    balance = OrderBalance(payment_status="completed", currency="EUR", amount="19.9", paid_amount="19.90", refunded_amount="0")
    assert ledger_figures(balance) == SOLD


@pytest.mark.parametrize("known", [SOLD, SOLD._replace(status=Status.REFUNDED, refunded=Decimal("19.90"))])
def test_a_sale_has_to_be_known_to_both(known: Figures) -> None:
    here, there = difference("7", known, None), difference("7", None, known)
    assert here is not None
    assert there is not None
    assert (here.kind, there.kind) == (Kind.MISSING_HERE, Kind.MISSING_THERE)
    assert (here.values["amount"], there.values["amount"]) == (("19.90", ""), ("", "19.90"))


@pytest.mark.parametrize("known", [UNPAID, UNPAID._replace(status=Status.FAILED), None])
def test_what_is_no_sale_may_be_unknown_to_either(known: Figures | None) -> None:
    assert (difference("7", known, None), difference("7", None, known)) == (None, None)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("status", Status.CHARGED_BACK),
        ("currency", "USD"),
        ("amount", Decimal("19.91")),
        ("paid", Decimal("19.89")),
        ("refunded", Decimal("0.01")),
    ],
)
def test_each_figure_counts_to_the_cent(name: str, value: object) -> None:
    other = SOLD._replace(**{name: value})
    found = difference("7", SOLD, other)
    assert found is not None
    assert (found.kind, found.values) == (Kind.DIFFERENT, {name: (str(getattr(SOLD, name)), str(value))})
    assert difference("7", SOLD, SOLD) is None
