"""What a payment provider states of refunds and chargebacks counts once beside the shop's word, in any order of arrival."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.purchases.claims import Claim, ReportKind
from services.purchases.statuses import Status
from tests.unit.order_book import Book
from tests.unit.test_purchases_reconciliation import at, further, money, refund, report, reports


def provider_refund(day: float, total: float, amount: float | None = None) -> Claim:
    given, cumulative = Decimal(str(total if amount is None else amount)), Decimal(str(total))
    return Claim(ReportKind.PROVIDER_REFUND, None, given, "USD", at(day), f"ch_1:{total}", cumulative, "stripe")


def chargeback(day: float, amount: float | None = 100, reference: str = "dp_1", *, reinstated: bool = False) -> Claim:
    taken = None if amount is None else Decimal(str(amount))
    return Claim(ReportKind.CHARGEBACK, None, taken, "USD", at(day), reference, source="stripe", deleted=reinstated)


def paid(day: float) -> Claim:
    return Claim(ReportKind.STATUS, Status.COMPLETED, None, "USD", at(day), "pi_1", source="stripe")


def test_one_refund_that_the_shop_and_its_provider_report_is_booked_once() -> None:
    claims = [report(1), refund(2.1, "501", 30, 30), provider_refund(2, 30), paid(1)]
    for some in permutations(claims):
        book = Book(some)
        assert book.balance == ("partially_refunded", 100, 30), some
        assert book.by_day == {1: 100, 2.1: -30}, some
        assert not book.row.disputed


def test_a_refund_that_only_the_provider_knows_counts_although_the_shop_reports_later() -> None:
    claims = [report(1), provider_refund(2, 30), provider_refund(3, 50), report(4, total=0)]
    for some in permutations(claims):
        book = Book(some)
        assert book.balance == ("partially_refunded", 100, 50), some
        assert book.by_day == {1: 100, 2: -30, 3: -20}, some


def test_a_lost_notice_of_an_earlier_refund_is_made_up_by_the_next() -> None:
    assert Book([report(1), provider_refund(3, 50)]).balance == ("partially_refunded", 100, 50)
    assert Book([report(1), provider_refund(3, 100)]).balance == ("refunded", 100, 100)


def test_refunds_of_the_shop_that_no_provider_made_count_beside_smaller_ones_of_the_provider() -> None:
    book = Book([report(1), refund(2, "501", 40, 40), provider_refund(3, 30)])
    assert book.balance == ("partially_refunded", 100, 40)


@pytest.mark.parametrize("dated", [True, False])
def test_a_chargeback_takes_the_money_and_its_return_gives_it_back(dated: bool) -> None:
    sale = report(1) if dated else replace(report(1), reported_at=None, refunded_total=None)
    claims = [sale, chargeback(5), chargeback(9, reinstated=True)]
    lost, won = Book(claims[:2]), Book(claims)
    assert (lost.balance, won.balance) == (("charged_back", 100, 100), ("completed", 100, 0))
    assert [entry[0] for entry in won.ledger] == ["sale", "chargeback", "correction"]
    assert won.ledger[-1][2:] == (100, "reinstated")
    for some in permutations([*claims, claims[1], claims[2]]):
        assert Book(some).balance == won.balance, some
        if dated:
            assert Book(some).by_day == {1: 100, 5: -100, 9: 100}, some


def test_a_chargeback_of_a_part_leaves_the_rest_and_one_without_an_amount_nothing() -> None:
    assert Book([report(1), chargeback(5, 25.5)]).balance == ("charged_back", 100, Decimal("25.5"))
    assert Book([report(1), chargeback(5, None)]).balance == ("charged_back", 100, 100)


def test_a_chargeback_after_a_refund_is_money_lost_twice_and_looked_at() -> None:
    book = Book([report(1), refund(2, "501", 100, 100), chargeback(5)])
    assert (book.balance, book.row.disputed) == (("charged_back", 100, 100), True)
    assert sum(entry.amount for entry in book.entries) == 0


def test_a_repeated_notice_of_the_provider_is_a_duplicate() -> None:
    claims = [report(1), provider_refund(2, 30), chargeback(5, 10)]
    assert Book([*claims, *claims]).duplicates == [False, False, False, True, True, True]


def test_notices_of_the_provider_wait_for_their_order() -> None:
    book = Book([provider_refund(2, 30), chargeback(5, 10), paid(1), report(1, Status.PENDING, paid=None)])
    assert book.balance == ("charged_back", 100, 40)
    assert book.by_day == {1: 100, 2: -30, 5: -10}


provided = st.builds(provider_refund, st.integers(1, 20), money) | st.builds(
    chargeback, st.integers(1, 20), st.none() | money, st.sampled_from(["dp_1", "dp_2"]), reinstated=st.booleans()
)


@given(data=st.data(), first=reports, others=further, by_provider=st.lists(provided, min_size=1, max_size=4))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_order_and_repetition_ends_the_same(data: st.DataObject, first: Claim, others: list[Claim], by_provider: list[Claim]) -> None:
    every = [first, *others, *by_provider]
    again = data.draw(st.lists(st.sampled_from(every), max_size=3))
    one, other = Book(every), Book(data.draw(st.permutations([*every, *again])))
    assert other.balance == one.balance
    assert (other.row.disputed, other.row.base_net_amount) == (one.row.disputed, one.row.base_net_amount)
    assert other.by_day == one.by_day
    for book in (one, other):
        assert sum(entry.amount for entry in book.entries) == book.row.paid_amount - book.row.refunded_amount
