"""Refunds as they are sent: whatever is reported first, in all as much as went back, each part once."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import pairwise, permutations

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from services.destinations.klaviyo import mapping
from services.destinations.occasions import happened
from services.destinations.refunds import refunds
from services.destinations.webhook import payloads
from services.purchases.claims import Claim
from services.purchases.messages import changed_message
from tests.unit.order_book import START, Book
from tests.unit.test_purchases_provider import provider_refund
from tests.unit.test_purchases_reconciliation import refund, report

NOTHING = Decimal(0)


def published(claims: Sequence[Claim]) -> Iterator[PurchaseChanged]:
    """The order after each of its reports, which arrive one after the other."""
    counts: list[int] = []
    for number in range(1, len(claims) + 1):
        book = Book(claims[:number])
        counts.append(len(book.entries))
        for index, entry in enumerate(book.entries):
            entry.booked_at = START + timedelta(seconds=bisect_right(counts, index))
        if book.row.is_known:
            yield changed_message(book.row, (), book.entries)


def ga4(order: PurchaseChanged) -> dict[str, Decimal]:
    """What Google Analytics is sent of an order that went back, by key."""
    return {each.key: -Decimal(each.entry.amount) for each in happened(order) if each.entry is not None}


def webhook(order: PurchaseChanged) -> dict[str, Decimal]:
    """What a webhook states."""
    wanted = [each for each in payloads.happened(order) if each.name == "order.refunded"]
    return {each.key: -Decimal(orjson.loads(payloads.body(each, order))["refund"]["amount"]) for each in wanted}


def klaviyo(order: PurchaseChanged) -> dict[str, Decimal]:
    """What the events of Klaviyo state."""
    return {happening.unique_id: happening.value or NOTHING for each in refunds(order) for happening in [mapping.refunded(order, each)]}


def totals(claims: Sequence[Claim]) -> tuple[Decimal, Decimal]:
    """What went back, and what each destination gets of it that takes each key once."""
    sent: dict[str, dict[str, Decimal]] = {}
    refunded = ""
    for order in published(claims):
        refunded = order.refunded_amount
        for kind in (ga4, webhook, klaviyo):
            now = kind(order)
            assert sent.get(kind.__name__, {}).items() <= now.items(), "what was sent stays"
            sent[kind.__name__] = now
    [total] = {sum(amounts.values(), NOTHING) for amounts in sent.values()}
    return Decimal(refunded), total


@pytest.mark.parametrize(
    "claims",
    [
        [provider_refund(3, 40, 10), provider_refund(2, 30, 30)],
        [provider_refund(2, 10, 10), provider_refund(2.1, 20, 10), refund(1.9, "r1", 10, 10), refund(2.05, "r2", 10, 20)],
        [provider_refund(2, 30, 30), refund(1.9, "r1", 10, 10), refund(1.95, "r2", 20, 30)],
    ],
)
def test_refunds_whose_reports_do_not_match_are_sent_once_in_any_order(claims: list[Claim]) -> None:
    for each in permutations([report(1), *claims]):
        refunded, sent = totals(each)
        assert sent == refunded


def test_what_is_returned_again_after_it_was_taken_back_is_not_sent_twice() -> None:
    claims = [report(1), refund(2, "r1", 30, 30), refund(3, "r1", 30, 0, deleted=True), refund(4, "r2", 40, 40)]
    assert totals(claims) == (40, 40)


@given(data=st.data(), parts=st.lists(st.sampled_from([5, 10, 20]), min_size=1, max_size=4), cuts=st.sets(st.sampled_from([5, 10, 15, 30])))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_what_the_shop_and_its_provider_divide_differently_is_sent_once(data: st.DataObject, parts: list[int], cuts: set[int]) -> None:
    reached = [sum(parts[:number]) for number in range(1, len(parts) + 1)]
    by_shop = [refund(2 + number / 2, f"r{number}", parts[number], total) for number, total in enumerate(reached)]
    known = sorted({0, reached[-1], *(cut for cut in cuts if cut < reached[-1])})
    by_provider = [provider_refund(2.1 + number / 2, total, total - before) for number, (before, total) in enumerate(pairwise(known))]
    refunded, sent = totals(data.draw(st.permutations([report(1), *by_shop, *by_provider])))
    assert sent == refunded == reached[-1]
