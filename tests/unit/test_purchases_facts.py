"""Undated reports: neither the order of their arrival nor repetitions change an order's state."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta
from decimal import Decimal

import iso4217
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.rules import CURRENCIES, DECIMALS
from services.purchases.claims import Claim, ReportKind
from services.purchases.ledger import EntryKind
from services.purchases.money import Rate, entries_in_base, exact, in_base, is_currency
from services.purchases.statuses import Status, parse_status
from tests.unit.order_book import START, Book

PRICE = Decimal(100)


def paid(status: Status = Status.COMPLETED, *, amount: Decimal = PRICE, total: Decimal | None = None, minutes: int = 0) -> Claim:
    return Claim(ReportKind.PURCHASE, status, amount, "USD", START + timedelta(minutes=minutes), "n", total)


def refund(reference: str, amount: float, total: float | None = None) -> Claim:
    whole = None if total is None else Decimal(str(total))
    return Claim(ReportKind.REFUND, None, Decimal(str(amount)), "USD", START, reference, whole)


def now(status: Status, reference: str = "", minutes: int = 0) -> Claim:
    return Claim(ReportKind.STATUS, status, None, "USD", START + timedelta(minutes=minutes), reference)


amounts = st.integers(0, 60).map(lambda units: Decimal(units) / 2)
totals = st.none() | amounts
purchases = st.builds(paid, st.sampled_from(Status), total=totals, minutes=st.integers(0, 5))
refunds = st.builds(refund, st.sampled_from(["r1", "r2", "r3"]), amounts, totals)
statuses = st.builds(now, st.sampled_from(Status), st.sampled_from(["", "r1"]), st.integers(0, 5))
further = st.lists(purchases | refunds | statuses, min_size=1, max_size=6)


@given(data=st.data(), first=purchases, others=further)
@settings(max_examples=400, deadline=None, derandomize=True)
def test_any_order_and_repetition_of_undated_reports_ends_the_same(data: st.DataObject, first: Claim, others: list[Claim]) -> None:
    every = [first, *others]
    again = data.draw(st.lists(st.sampled_from(every), max_size=4))
    one = Book(every)
    other = Book([first, *data.draw(st.permutations([*others, *again]))])
    assert other.balance == one.balance
    assert (other.row.paid_at, other.row.disputed, other.row.base_net_amount) == (
        one.row.paid_at,
        one.row.disputed,
        one.row.base_net_amount,
    )
    for book in (one, other):
        row = book.row
        assert sum(entry.amount for entry in book.entries) == row.paid_amount - row.refunded_amount
        assert sum((entry.base_amount or 0) for entry in book.entries) == row.base_net_amount
        assert 0 <= row.refunded_amount <= row.paid_amount
        assert max(Counter((entry.kind, entry.reference) for entry in book.entries).values(), default=1) == 1
        assert [entry.kind for entry in book.entries].count("sale") == (row.paid_at is not None)


@given(first=purchases, others=further)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_a_repeated_report_is_a_duplicate_and_books_nothing(first: Claim, others: list[Claim]) -> None:
    once = Book([first, *others])
    twice = Book([first, *others, *others, first])
    assert twice.booked == once.booked
    assert all(twice.duplicates[len(others) + 1 :])


def test_two_sources_of_one_refund_with_totals_count_it_once() -> None:
    book = Book([paid(), refund("17", 10, 10), refund("re_1", 10, 10), refund("18", 5, 15), refund("re_2", 5, 15)])
    assert book.balance == ("partially_refunded", 100, 15)
    assert book.duplicates == [False, False, True, False, True]
    assert book.booked == [("sale", "", 100), ("partial_refund", "17", -10), ("partial_refund", "18", -5)]


def test_refunds_without_a_total_add_up_beside_those_with_one() -> None:
    assert Book([paid(), refund("1", 10), refund("2", 5)]).row.refunded_amount == 15
    assert Book([paid(), refund("1", 10, 10), refund("2", 5)]).row.refunded_amount == 15
    assert Book([paid(), refund("1", 10), refund("2", 5, 15)]).row.refunded_amount == 15


def test_a_total_says_of_a_loose_refund_that_it_was_known_already_and_the_ledger_is_corrected() -> None:
    book = Book([paid(), refund("17", 10, 10), refund("re_1", 10), refund("re_1", 10, 10)])
    assert book.booked == [("sale", "", 100), ("partial_refund", "17", -10), ("partial_refund", "re_1", -10), ("correction", "re_1", 10)]
    assert book.balance == ("partially_refunded", 100, 10)


def test_a_total_that_grows_is_booked_by_its_increase() -> None:
    book = Book([paid(total=Decimal(10)), paid(total=Decimal(25)), paid(total=Decimal(10))])
    assert [amount for _, _, amount in book.booked] == [100, -10, -15]
    assert len({reference for kind, reference, _ in book.booked if kind == "partial_refund"}) == 2


def test_a_refund_of_nothing_is_noted_and_counts_once_it_is_read_again() -> None:
    book = Book([paid(), refund("17", 0)])
    assert book.balance == ("completed", 100, 0)
    assert Book([paid(), refund("17", 0), refund("17", 12.5)]).balance == ("partially_refunded", 100, Decimal("12.5"))


def test_more_than_was_paid_never_comes_back() -> None:
    book = Book([paid(), refund("1", 80), refund("2", 80)])
    assert book.balance == ("refunded", 100, 100)
    assert book.row.disputed
    assert [amount for _, _, amount in book.booked] == [100, -80, -20]


def test_a_status_of_refunded_pays_back_the_rest() -> None:
    book = Book([paid(), refund("17", 30, 30), now(Status.REFUNDED), refund("18", 70, 100)])
    assert book.balance == ("refunded", 100, 100)
    assert book.booked == [("sale", "", 100), ("partial_refund", "17", -30), ("partial_refund", "", -70)]
    assert book.duplicates == [False, False, False, True]
    assert not book.row.disputed


def test_a_chargeback_takes_back_the_rest_only() -> None:
    book = Book([paid(), refund("17", 30), now(Status.CHARGED_BACK, "dp_1")])
    assert book.balance == ("charged_back", 100, 100)
    assert book.booked[-1] == ("chargeback", "dp_1", -70)
    assert Book([paid(), now(Status.CHARGED_BACK, "dp_1"), refund("17", 30)]).balance == book.balance


def test_what_was_never_paid_is_never_revenue() -> None:
    for status in (Status.PENDING, Status.FAILED):
        book = Book([paid(status), refund("1", 10)])
        assert (book.balance, book.booked) == ((status.value, 0, 0), [])


def test_a_refund_that_is_known_before_the_payment_is_booked_with_it() -> None:
    book = Book([paid(Status.PENDING), refund("17", 30, 30), now(Status.COMPLETED)])
    assert book.balance == ("partially_refunded", 100, 30)
    assert book.duplicates == [False, False, False]


def test_a_paid_order_stays_paid_when_its_payment_is_said_to_have_failed() -> None:
    for claims in ([paid(), now(Status.FAILED)], [paid(Status.FAILED), paid()], [paid(Status.PENDING), now(Status.FAILED), paid()]):
        assert Book(claims).balance == ("completed", 100, 0)


def test_the_first_paid_report_fixes_the_amount_and_another_is_disputed() -> None:
    book = Book([paid(Status.PENDING, amount=Decimal(80)), paid(), paid(amount=Decimal(120)), paid(Status.PENDING, amount=Decimal(0))])
    assert book.balance == ("completed", 100, 0)
    assert book.row.disputed
    assert len(book.booked) == 1


def test_what_a_status_made_paid_is_corrected_by_the_shops_own_word() -> None:
    early = Book([paid(Status.PENDING, amount=Decimal(0)), now(Status.COMPLETED), paid()])
    assert early.balance == ("completed", 100, 0)
    assert [(kind, amount) for kind, _, amount in early.booked] == [(EntryKind.SALE, 0), (EntryKind.CORRECTION, 100)]
    assert not early.row.disputed


def test_it_was_paid_when_the_earliest_said_so() -> None:
    reports = [paid(minutes=3), now(Status.COMPLETED, minutes=1), paid(minutes=2)]
    assert Book(reports).row.paid_at == Book(reports[::-1][:1] + reports).row.paid_at == START + timedelta(minutes=1)


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("wc-processing", "completed"),
        ("WC-On-Hold", "pending"),
        ("checkout-draft", "pending"),
        ("cancelled", "failed"),
        ("succeeded", "completed"),
        ("partially-refunded", "partially_refunded"),
        ("dispute", "charged_back"),
        ("shipped", None),
        ("", None),
    ],
)
def test_words_of_shops_and_payment_providers_are_understood(word: str, status: str | None) -> None:
    assert parse_status(word) == status


@given(amounts=st.lists(st.decimals(0, 1000, places=2), max_size=8), units=st.decimals("0.01", 200, places=4))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_what_was_paid_back_whole_comes_to_nothing_in_the_base_currency(amounts: list[Decimal], units: Decimal) -> None:
    whole = sum(amounts, Decimal(0))
    rate = Rate(units, Decimal("1.0852"))
    assert sum(entries_in_base([whole, *(-amount for amount in amounts)], rate, "USD")) == 0
    assert entries_in_base([whole], rate, "USD") == [in_base(whole, rate, "USD")]


def test_amounts_are_what_was_written_in_whole_minor_units() -> None:
    assert [str(exact(2.675, code)) for code in ("USD", "JPY", "KWD", "CLF")] == ["2.68", "3", "2.675", "2.6750"]
    assert str(exact(999_999_999_999, "KWD")) == "999999999999.000"
    assert [is_currency(code) for code in ("USD", "XAU", "XXX", "ABC", "usd")] == [True, False, False, False, False]


def test_currencies_are_those_of_the_standard_and_of_woocommerce_today_and_once() -> None:
    assert {each.code: each.exponent for each in iso4217.Currency if each.exponent is not None}.items() <= DECIMALS.items()
    assert {each.code for each in iso4217.Currency} <= CURRENCIES
    assert {
        "IRT": 2,
        "GGP": 2,
        "JEP": 2,
        "IMP": 2,
        "PRB": 2,
        "BTC": 8,
        "BGN": 2,
        "HRK": 2,
        "BYR": 0,
        "VEF": 2,
        "ZMK": 2,
    }.items() <= DECIMALS.items()
    assert str(exact(Decimal(10), "BGN")) == "10.00"
