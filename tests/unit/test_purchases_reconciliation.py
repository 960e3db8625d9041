"""Dated reports: the newest of a source counts, whatever the order of arrival, and the ledger has the dates of its corrections."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.purchases.claims import Claim, ReportKind
from services.purchases.money import in_base
from services.purchases.orders import Order
from services.purchases.statuses import Reason, Status, effective_status, parse_reason
from tests.unit.order_book import RATE, START, Book


def at(day: float) -> datetime:
    return START + timedelta(days=day)


def report(
    day: float,
    status: Status = Status.COMPLETED,
    amount: float = 100,
    *,
    paid: float | None = 1,
    total: float | None = 0,
    reason: Reason | None = None,
    source: str = "plugin",
) -> Claim:
    return Claim(
        ReportKind.PURCHASE,
        status,
        Decimal(str(amount)),
        "USD",
        START if paid is None else at(paid),
        "n",
        None if total is None else Decimal(str(total)),
        source,
        at(day),
        None if paid is None else at(paid),
        reason,
    )


def refund(day: float, reference: str, amount: float, total: float | None, *, deleted: bool = False, source: str = "plugin") -> Claim:
    refunded = None if total is None else Decimal(str(total))
    return Claim(ReportKind.REFUND, None, Decimal(str(amount)), "USD", at(day), reference, refunded, source, at(day), deleted=deleted)


def webhook_status(status: Status, day: int) -> Claim:
    return Claim(ReportKind.STATUS, status, None, "USD", at(day), f"e{day}", source="webhook")


def test_a_bounced_debit_is_taken_back() -> None:
    book = Book([report(1), report(9, Status.FAILED, reason=Reason.BOUNCED)])
    assert book.balance == ("failed", 0, 0)
    assert book.ledger == [("sale", "", 100, ""), ("correction", "", -100, "bounced")]
    assert (book.row.paid_at, book.row.sold_at, book.by_day) == (None, at(1), {1: 100, 9: -100})
    assert not book.row.disputed


def test_a_trashed_order_that_is_restored_is_one_sale() -> None:
    book = Book([report(1), report(3, Status.FAILED, reason=Reason.TRASHED), report(5)])
    assert book.balance == ("completed", 100, 0)
    assert book.ledger == [("sale", "", 100, ""), ("correction", "", -100, "trashed"), ("correction", "#3", 100, "restored")]
    assert book.by_day == {1: 100, 3: -100, 5: 100}
    assert not book.row.disputed


def test_an_edited_order_is_worth_what_it_is_now() -> None:
    book = Book([report(1, amount=33.33), report(2, amount=41.1), report(3, amount=20)])
    assert book.balance == ("completed", 20, 0)
    assert book.ledger[1:] == [("correction", "", Decimal("7.77"), "edited"), ("correction", "#3", Decimal("-21.1"), "edited")]
    assert not book.row.disputed


def test_a_deleted_refund_makes_room_for_the_right_one() -> None:
    reported = [report(1), refund(2, "501", 40, 40), refund(3, "501", 0, 0, deleted=True), refund(4, "502", 10, 10)]
    for claims in (reported, [reported[0], *reported[:0:-1]], reported[::-1], [reported[3], reported[1], reported[0], reported[2]]):
        book = Book(claims)
        assert book.balance == ("partially_refunded", 100, 10), claims
        assert book.by_day == {1: 100, 2: -40, 3: 40, 4: -10}, claims
    assert Book(reported).ledger[1:] == [
        ("partial_refund", "501", -40, ""),
        ("correction", "", 40, "refund_deleted"),
        ("partial_refund", "502", -10, ""),
    ]


def test_a_deleted_refund_is_taken_back_where_nobody_dates_the_order() -> None:
    sale = replace(report(1), reported_at=None, refunded_total=None)
    reported = [replace(refund(2, "501", 40, 40), reported_at=None), replace(refund(3, "501", 0, 0, deleted=True), reported_at=None)]
    book = Book([sale, *reported, replace(refund(4, "502", 10, 10), reported_at=None)])
    assert book.balance == ("partially_refunded", 100, 10)
    assert ("correction", "501", 40, "refund_deleted") in book.ledger
    assert sum(entry.amount for entry in book.entries) == 90


def test_the_newest_total_counts_also_when_it_is_smaller() -> None:
    book = Book([report(1), refund(2, "501", 40, 40), report(3, total=0)])
    assert book.balance == ("completed", 100, 0)
    assert book.ledger[-1] == ("correction", "", 40, "refund_deleted")


def test_refunds_that_a_report_knew_first_are_dated_when_they_were_made() -> None:
    book = Book([report(5, total=25), refund(2, "501", 10, 10), refund(4, "502", 15, 25)])
    assert book.balance == ("partially_refunded", 100, 25)
    assert book.by_day == {1: 100, 2: -10, 4: -15}


def test_a_cancelled_order_keeps_the_refunds_it_had_in_its_history_only() -> None:
    reported = [report(1), refund(2, "501", 40, 40), report(3, Status.FAILED, total=40, reason=Reason.CANCELLED)]
    for claims in (reported, reported[::-1]):
        book = Book(claims)
        assert book.balance == ("failed", 0, 0)
        assert book.by_day == {1: 100, 2: -40, 3: -60}


def test_what_is_paid_later_is_pending_until_it_is_paid() -> None:
    assert effective_status(Status.COMPLETED, "wc-processing", method="cod") is Status.PENDING
    assert effective_status(Status.COMPLETED, "processing", method="stripe_sepa_debit") is Status.PENDING
    assert effective_status(Status.COMPLETED, "processing", method="mollie_wc_gateway_directdebit") is Status.PENDING
    assert effective_status(Status.COMPLETED, "processing", method="bacs", paid_at=START) is Status.COMPLETED
    assert effective_status(Status.COMPLETED, "completed", method="cod") is Status.COMPLETED
    assert effective_status(Status.COMPLETED, "processing", method="stripe") is Status.COMPLETED
    assert effective_status(Status.COMPLETED, "processing", method="stripe", dated=True) is Status.PENDING
    assert effective_status(Status.PENDING, "on-hold", method="bacs", paid_at=START, dated=True) is Status.COMPLETED


@pytest.mark.parametrize(
    ("reported", "status", "reason"),
    [
        ("trashed", "cancelled", "trashed"),
        ("", "wc-cancelled", "cancelled"),
        ("bounced", "failed", "bounced"),
        ("Ada rang", "failed", "failed"),
    ],
)
def test_a_reason_is_one_of_few_words(reported: str, status: str, reason: str) -> None:
    assert parse_reason(reported, status) == reason


def test_an_unknown_reason_is_none() -> None:
    assert parse_reason("whatever", "processing") is None


def test_a_provider_that_says_otherwise_than_the_shop_ever_did_makes_it_disputed() -> None:
    webhook = Claim(ReportKind.STATUS, Status.COMPLETED, None, "USD", at(2), "evt_1", source="webhook")
    never = [report(1, Status.PENDING, paid=None), webhook, report(3, Status.FAILED, paid=None, reason=Reason.CANCELLED)]
    assert (Book(never).balance, Book(never).row.disputed) == (("failed", 0, 0), True)
    changed = [report(1), webhook, report(3, Status.FAILED, reason=Reason.CANCELLED)]
    assert (Book(changed).balance, Book(changed).row.disputed) == (("failed", 0, 0), False)
    bounced = replace(webhook, status=Status.FAILED, at=at(9))
    assert (Book([report(1), bounced]).balance, Book([report(1), bounced]).row.disputed) == (("completed", 100, 0), True)
    other = report(2, amount=120, source="till")
    assert Book([report(1), other, report(3)]).row.disputed


def test_a_payment_that_the_shop_has_not_seen_yet_counts() -> None:
    webhook = Claim(ReportKind.STATUS, Status.COMPLETED, None, "USD", at(2), "evt_1", source="webhook")
    for claims in ([report(1, Status.PENDING, paid=None), webhook], [webhook, report(1, Status.PENDING, paid=None)]):
        book = Book(claims)
        assert (book.balance, book.row.disputed, book.by_day) == (("completed", 100, 0), False, {2: 100})


def test_a_chargeback_stays_when_the_shop_reports_again() -> None:
    lost = Claim(ReportKind.STATUS, Status.CHARGED_BACK, None, "USD", at(4), "dp_1", source="webhook")
    book = Book([report(1), refund(2, "501", 30, 30), lost, report(5, total=30)])
    assert book.balance == ("charged_back", 100, 100)
    assert book.ledger[-1] == ("chargeback", "dp_1", -70, "")


def test_an_older_report_that_arrives_late_restates_the_ledger_at_its_dates() -> None:
    book = Book([report(3, amount=41.1), report(1, amount=33.33)])
    assert book.ledger == [
        ("sale", "", Decimal("41.1"), ""),
        ("correction", "", Decimal("-7.77"), "restated"),
        ("correction", "#3", Decimal("7.77"), "edited"),
    ]
    assert book.by_day == {1: Decimal("33.33"), 3: Decimal("7.77")}
    assert book.duplicates == [False, False]


def test_a_report_in_another_currency_is_for_a_person_to_look_at() -> None:
    book = Book([report(1), replace(report(2), currency="EUR")])
    assert (book.balance, book.row.currency, book.row.disputed) == (("completed", 100, 0), "USD", True)


money = st.integers(0, 2_000).map(lambda cents: cents / 100)
reports = st.builds(
    report,
    st.integers(1, 20),
    st.sampled_from(Status),
    money,
    paid=st.none() | st.integers(0, 20),
    total=st.none() | money,
    reason=st.none() | st.sampled_from(Reason),
)
refunds = st.builds(refund, st.integers(1, 20), st.sampled_from(["r1", "r2", "r3"]), money, st.none() | money, deleted=st.booleans())
statuses = st.builds(
    webhook_status,
    st.sampled_from(Status),
    st.integers(1, 20),
)
further = st.lists(reports | refunds | statuses, max_size=7)


@given(data=st.data(), first=reports, others=further)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_order_and_repetition_of_reports_ends_the_same(data: st.DataObject, first: Claim, others: list[Claim]) -> None:
    every = [first, *others]
    again = data.draw(st.lists(st.sampled_from(every), max_size=4))
    one, other = Book(every), Book(data.draw(st.permutations([*every, *again])))
    assert other.balance == one.balance
    for name in ("amount", "paid_at", "sold_at", "disputed", "base_net_amount"):
        assert getattr(other.row, name) == getattr(one.row, name), name
    assert other.by_day == one.by_day
    assert other.by_day_in_base == one.by_day_in_base
    for book in (one, other):
        row = book.row
        net = row.paid_amount - row.refunded_amount
        assert sum(entry.amount for entry in book.entries) == net
        assert sum((entry.base_amount or 0) for entry in book.entries) == row.base_net_amount == in_base(net, RATE, "EUR")
        assert max(Counter((entry.kind, entry.reference) for entry in book.entries).values(), default=1) == 1


@pytest.mark.parametrize("paid", range(1, 20))
def test_the_dates_of_payment_in_reports_of_the_same_time_do_not_depend_on_their_order(paid: int) -> None:
    several = [report(20, Status.PENDING, paid=paid), report(20, Status.PENDING, paid=0), report(20, Status.PENDING, paid=None)]
    assert {Book(each).row.sold_at for each in permutations(several)} == {at(paid)}


@given(one=reports | refunds | statuses, other=reports | refunds | statuses)
@settings(max_examples=300, deadline=None, derandomize=True)
def test_claims_that_differ_are_ordered(one: Claim, other: Claim) -> None:
    for changed in (other, replace(one, paid_at=at(30)), replace(one, reason=Reason.TRASHED), replace(one, amount=None)):
        assert (one == changed) == (one.version == changed.version)
        assert (one.version < changed.version) != (one.version >= changed.version)


@given(first=reports, others=further)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_repeated_report_is_a_duplicate_and_books_nothing(first: Claim, others: list[Claim]) -> None:
    once, twice = Book([first, *others]), Book([first, *others, *others, first])
    assert twice.ledger == once.ledger
    assert all(twice.duplicates[len(others) + 1 :])


@given(first=reports, others=further)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_rate_that_comes_late_prices_each_date_as_one_that_was_there(first: Claim, others: list[Claim]) -> None:
    known, late = Book([first, *others]), Book([first, *others], rate=None)
    Order(late.row, entries=late.entries).price(RATE)
    assert late.by_day_in_base == known.by_day_in_base
