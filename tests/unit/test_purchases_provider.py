"""What a payment provider states of refunds and chargebacks counts once beside the shop's word, in any order of arrival."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.purchases.claims import Claim, ReportKind
from services.purchases.statuses import Status
from tests.unit.order_book import Book
from tests.unit.test_purchases_reconciliation import at, further, money, refund, report, reports

MOST = 40
"""Orders of arrival that are tried."""


def provider_refund(day: float, total: float, amount: float | None = None, *, payment: str = "ch_1") -> Claim:
    given, cumulative = Decimal(str(total if amount is None else amount)), Decimal(str(total))
    reference = f"{payment or 'some'}:{total}"
    return Claim(ReportKind.PROVIDER_REFUND, None, given, "USD", at(day), reference, cumulative, "stripe", payment=payment)


def failed(day: float, amount: float, reference: str = "re_1", *, payment: str = "ch_1") -> Claim:
    """A refund that could not be delivered."""
    returned = Decimal(str(amount))
    return Claim(ReportKind.PROVIDER_REFUND, None, returned, "USD", at(day), reference, source="stripe", deleted=True, payment=payment)


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


def in_any_order(claims: list[Claim], balance: tuple[str, float, float], by_day: dict[float, float], *, disputed: bool = False) -> None:
    """Whatever the order of arrival, and also if some arrive twice, an order ends the same."""
    every = list(permutations(claims))
    for some in every if len(every) <= MOST else Random(7).sample(every, MOST):  # noqa: S311 (no secret)
        book = Book([*some, *some[:2]])
        assert book.balance == balance, some
        assert book.by_day == by_day, some
        assert book.row.disputed is disputed, some
        assert sum(entry.amount for entry in book.entries) == book.row.paid_amount - book.row.refunded_amount


def test_the_totals_of_two_payments_add_up() -> None:
    refunds = [provider_refund(2, 30), provider_refund(4, 50), provider_refund(3, 45, payment="CAP2")]
    in_any_order([report(1), *refunds], ("partially_refunded", 100, 95), {1: 100, 2: -30, 3: -45, 4: -20})
    in_any_order(
        [report(1), provider_refund(3, 50), provider_refund(2, 50, payment="ch_2")], ("refunded", 100, 100), {1: 100, 2: -50, 3: -50}
    )


def test_what_the_shop_reports_of_one_payment_is_none_of_the_other() -> None:
    both = [provider_refund(2, 50), provider_refund(3, 50, payment="ch_2")]
    in_any_order([report(1), refund(2.1, "501", 50, 50), *both], ("refunded", 100, 100), {1: 100, 2.1: -50, 3: -50})
    whole = [refund(2.1, "501", 50, 50), refund(3.1, "502", 50, 100)]
    in_any_order([report(1), *whole, *both], ("refunded", 100, 100), {1: 100, 2.1: -50, 3.1: -50})


def test_a_total_of_an_unknown_payment_may_be_of_any_and_adds_to_none() -> None:
    of_one = [provider_refund(2, 30, payment=""), provider_refund(3, 50)]
    in_any_order([report(1), *of_one], ("partially_refunded", 100, 50), {1: 100, 3: -50})
    larger = [provider_refund(2, 30), provider_refund(3, 50, payment="")]
    in_any_order([report(1), *larger], ("partially_refunded", 100, 50), {1: 100, 2: -30, 3: -20})


def test_a_refund_that_failed_is_taken_back_whatever_the_shop_says_of_it() -> None:
    made = [report(1), provider_refund(2, 30), failed(7, 30)]
    in_any_order(made, ("completed", 100, 0), {1: 100, 2: -30, 7: 30})
    in_any_order([*made, refund(2.1, "501", 30, 30)], ("completed", 100, 0), {1: 100, 2.1: -30, 7: 30})
    in_any_order([made[0], refund(2.1, "501", 30, 30), made[2]], ("completed", 100, 0), {1: 100, 2.1: -30, 7: 30})
    assert Book(made).ledger[-1] == ("correction", "", 30, "refund_failed")


def test_a_refund_that_failed_before_anybody_said_that_it_was_made_books_nothing() -> None:
    book = Book([report(1), failed(7, 30)])
    assert (book.balance, book.booked) == (("completed", 100, 0), [("sale", "", 100)])
    for other in (failed(7, 0), failed(7, 0, payment="ch_2")):
        assert Book([report(1), failed(7, 30), other]).booked == book.booked


def test_after_a_refund_that_failed_the_total_counts_without_it() -> None:
    made = [report(1), provider_refund(2, 30), failed(7, 30), provider_refund(8, 20)]
    in_any_order(made, ("partially_refunded", 100, 20), {1: 100, 2: -30, 7: 30, 8: -20})
    shop = [refund(2.1, "501", 30, 30), refund(8.1, "502", 20, 50)]
    in_any_order([*made, *shop], ("partially_refunded", 100, 20), {1: 100, 2.1: -30, 7: 30, 8.1: -20})


def test_a_refund_that_failed_in_full_makes_a_refunded_order_a_sale_again() -> None:
    claims = [report(1), refund(2.1, "501", 100, 100), report(3, Status.REFUNDED, total=100), provider_refund(2, 100), failed(7, 100)]
    in_any_order(claims, ("completed", 100, 0), {1: 100, 2.1: -100, 7: 100})


def test_a_shop_that_deletes_the_refund_that_failed_takes_nothing_back_twice() -> None:
    made = [report(1), refund(2.1, "501", 30, 30), provider_refund(2, 30), failed(7, 30), refund(7.1, "501", 0, 0, deleted=True)]
    in_any_order(made, ("completed", 100, 0), {1: 100, 2.1: -30, 7: 30})
    in_cash = refund(9, "502", 30, 30)
    in_any_order([*made, in_cash], ("partially_refunded", 100, 30), {1: 100, 2.1: -30, 7: 30, 9: -30})


def test_a_deleted_refund_stays_if_the_provider_has_made_it_and_is_booked_once() -> None:
    claims = [report(1), refund(2.1, "501", 30, 30), provider_refund(2, 30), refund(5, "501", 0, 0, deleted=True)]
    in_any_order(claims, ("partially_refunded", 100, 30), {1: 100, 2.1: -30})
    another = [report(1), refund(2.1, "501", 30, 30), refund(5, "501", 0, 0, deleted=True), provider_refund(8, 30)]
    in_any_order(another, ("partially_refunded", 100, 30), {1: 100, 2.1: -30, 5: 30, 8: -30})


def test_a_dispute_that_is_won_returns_what_was_taken_of_its_payment_until_then() -> None:
    taken = [replace(chargeback(5, 40, "REV1"), payment="CAP1"), replace(chargeback(6, 10, "REV2"), payment="CAP2")]
    won = replace(chargeback(9, None, "PP-D-1", reinstated=True), payment="CAP1")
    in_any_order([report(1), *taken, won], ("charged_back", 100, 10), {1: 100, 5: -40, 6: -10, 9: 40})
    later = replace(chargeback(12, 40, "REV3"), payment="CAP1")
    in_any_order([report(1), taken[0], won, later], ("charged_back", 100, 40), {1: 100, 5: -40, 9: 40, 12: -40})
    unnamed = chargeback(5, 40, "REV1")
    in_any_order([report(1), unnamed, won], ("completed", 100, 0), {1: 100, 5: -40, 9: 40})
    in_any_order([report(1), replace(unnamed, source="paypal"), won], ("charged_back", 100, 40), {1: 100, 5: -40})
    in_any_order([report(1), won], ("completed", 100, 0), {1: 100})


def test_a_repeated_notice_of_the_provider_is_a_duplicate() -> None:
    claims = [report(1), provider_refund(2, 30), chargeback(5, 10)]
    assert Book([*claims, *claims]).duplicates == [False, False, False, True, True, True]


def test_notices_of_the_provider_wait_for_their_order() -> None:
    book = Book([provider_refund(2, 30), chargeback(5, 10), paid(1), report(1, Status.PENDING, paid=None)])
    assert book.balance == ("charged_back", 100, 40)
    assert book.by_day == {1: 100, 2: -30, 5: -10}


def of_payment(claim: Claim, payment: str) -> Claim:
    return replace(claim, payment=payment)


payments = st.sampled_from(["", "ch_1", "ch_2"])
disputed = st.builds(chargeback, st.integers(1, 20), st.none() | money, st.sampled_from(["dp_1", "dp_2"]), reinstated=st.booleans())
provided = (
    st.builds(provider_refund, st.integers(1, 20), money, payment=payments)
    | st.builds(failed, st.integers(1, 20), money, st.sampled_from(["re_1", "re_2"]), payment=payments)
    | st.builds(of_payment, disputed, payments)
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
