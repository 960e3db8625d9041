"""What reports come to: the newest of a source counts, whatever the order of arrival, and the ledger says when it was corrected."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.purchases.messages import Told
from services.purchases.models import EntryRow, PurchaseRow
from services.purchases.money import Rate, in_base
from services.purchases.orders import Order, new_row
from services.purchases.rules import Claim, NoticeKind, Reason, Status, paid_when_paid, reason_of

START = datetime(2026, 11, 1, 12, tzinfo=UTC)
RATE = Rate(Decimal("161.37"), Decimal("1.0852"))
TOLD = Told(START, {"user_id": "42"}, [], is_test=False, is_staff=False)


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
        NoticeKind.PURCHASE,
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
    told = None if total is None else Decimal(str(total))
    return Claim(NoticeKind.REFUND, None, Decimal(str(amount)), "USD", at(day), reference, told, source, at(day), deleted=deleted)


def told_by_webhook(status: Status, day: int) -> Claim:
    return Claim(NoticeKind.STATUS, status, None, "USD", at(day), f"e{day}", source="webhook")


class Book:
    """One order, as the tables keep it between two notices."""

    def __init__(self, claims: Sequence[Claim], rate: Rate | None = RATE) -> None:
        self.row: PurchaseRow = new_row("shop", "1", "EUR")
        self.entries: Sequence[EntryRow] = ()
        self.duplicates: list[bool] = []
        self._rate = rate
        self._news: list[Claim] = []
        for claim in claims:
            self._tell(claim)

    def _tell(self, claim: Claim) -> None:
        order = Order(self.row, self._news, entries=self.entries)
        if claim.kind is not NoticeKind.PURCHASE and not self.row.is_known:
            claim = replace(claim, currency="")
            order.wait(claim, START)
        else:
            order.tell(claim, TOLD if claim.kind is NoticeKind.PURCHASE else None)
            order.book(claim, self._rate if order.awaits_rate else self.row.rate, START)
        if order.is_news:
            self._news.append(claim)
        self.entries = order.entries
        self.duplicates.append(order.is_duplicate)

    @property
    def balance(self) -> tuple[str, Decimal, Decimal]:
        return (self.row.payment_status, self.row.paid_amount, self.row.refunded_amount)

    @property
    def booked(self) -> list[tuple[str, str, Decimal, str]]:
        return [(entry.kind, entry.reference, entry.amount, entry.reason) for entry in self.entries]

    @property
    def by_day(self) -> dict[float, Decimal]:
        """What the ledger says of each day, by the date of the entries."""
        days: dict[float, Decimal] = defaultdict(Decimal)
        for entry in self.entries:
            days[(entry.timestamp - START) / timedelta(days=1)] += entry.amount
        return {day: amount for day, amount in sorted(days.items()) if amount}

    @property
    def by_day_in_base(self) -> dict[float, Decimal]:
        days: dict[float, Decimal] = defaultdict(Decimal)
        for entry in self.entries:
            days[(entry.timestamp - START) / timedelta(days=1)] += entry.base_amount or Decimal(0)
        return {day: amount for day, amount in sorted(days.items()) if amount}


def test_a_bounced_debit_is_taken_back() -> None:
    book = Book([report(1), report(9, Status.FAILED, reason=Reason.BOUNCED)])
    assert book.balance == ("failed", 0, 0)
    assert book.booked == [("sale", "", 100, ""), ("correction", "", -100, "bounced")]
    assert (book.row.paid_at, book.row.sold_at, book.by_day) == (None, at(1), {1: 100, 9: -100})
    assert not book.row.disputed


def test_a_trashed_order_that_is_restored_is_one_sale() -> None:
    book = Book([report(1), report(3, Status.FAILED, reason=Reason.TRASHED), report(5)])
    assert book.balance == ("completed", 100, 0)
    assert book.booked == [("sale", "", 100, ""), ("correction", "", -100, "trashed"), ("correction", "#3", 100, "restored")]
    assert book.by_day == {1: 100, 3: -100, 5: 100}
    assert not book.row.disputed


def test_an_edited_order_is_worth_what_it_is_now() -> None:
    book = Book([report(1, amount=33.33), report(2, amount=41.1), report(3, amount=20)])
    assert book.balance == ("completed", 20, 0)
    assert book.booked[1:] == [("correction", "", Decimal("7.77"), "edited"), ("correction", "#3", Decimal("-21.1"), "edited")]
    assert not book.row.disputed


def test_a_deleted_refund_makes_room_for_the_right_one() -> None:
    told = [report(1), refund(2, "501", 40, 40), refund(3, "501", 0, 0, deleted=True), refund(4, "502", 10, 10)]
    for claims in (told, [told[0], *told[:0:-1]], told[::-1], [told[3], told[1], told[0], told[2]]):
        book = Book(claims)
        assert book.balance == ("partially_refunded", 100, 10), claims
        assert book.by_day == {1: 100, 2: -40, 3: 40, 4: -10}, claims
    assert Book(told).booked[1:] == [
        ("partial_refund", "501", -40, ""),
        ("correction", "", 40, "refund_deleted"),
        ("partial_refund", "502", -10, ""),
    ]


def test_a_deleted_refund_is_taken_back_where_nobody_dates_the_order() -> None:
    sale = replace(report(1), reported_at=None, refunded_total=None)
    told = [replace(refund(2, "501", 40, 40), reported_at=None), replace(refund(3, "501", 0, 0, deleted=True), reported_at=None)]
    book = Book([sale, *told, replace(refund(4, "502", 10, 10), reported_at=None)])
    assert book.balance == ("partially_refunded", 100, 10)
    assert ("correction", "501", 40, "refund_deleted") in book.booked
    assert sum(entry.amount for entry in book.entries) == 90


def test_the_newest_total_counts_also_when_it_is_smaller() -> None:
    book = Book([report(1), refund(2, "501", 40, 40), report(3, total=0)])
    assert book.balance == ("completed", 100, 0)
    assert book.booked[-1] == ("correction", "", 40, "refund_deleted")


def test_refunds_that_a_report_knew_first_are_dated_when_they_were_made() -> None:
    book = Book([report(5, total=25), refund(2, "501", 10, 10), refund(4, "502", 15, 25)])
    assert book.balance == ("partially_refunded", 100, 25)
    assert book.by_day == {1: 100, 2: -10, 4: -15}


def test_a_cancelled_order_keeps_the_refunds_it_had_in_its_history_only() -> None:
    told = [report(1), refund(2, "501", 40, 40), report(3, Status.FAILED, total=40, reason=Reason.CANCELLED)]
    for claims in (told, told[::-1]):
        book = Book(claims)
        assert book.balance == ("failed", 0, 0)
        assert book.by_day == {1: 100, 2: -40, 3: -60}


def test_what_is_paid_later_is_pending_until_it_is_paid() -> None:
    assert paid_when_paid(Status.COMPLETED, "wc-processing", method="cod") is Status.PENDING
    assert paid_when_paid(Status.COMPLETED, "processing", method="stripe_sepa_debit") is Status.PENDING
    assert paid_when_paid(Status.COMPLETED, "processing", method="mollie_wc_gateway_directdebit") is Status.PENDING
    assert paid_when_paid(Status.COMPLETED, "processing", method="bacs", paid_at=START) is Status.COMPLETED
    assert paid_when_paid(Status.COMPLETED, "completed", method="cod") is Status.COMPLETED
    assert paid_when_paid(Status.COMPLETED, "processing", method="stripe") is Status.COMPLETED
    assert paid_when_paid(Status.COMPLETED, "processing", method="stripe", reported=True) is Status.PENDING
    assert paid_when_paid(Status.PENDING, "on-hold", method="bacs", paid_at=START, reported=True) is Status.COMPLETED


@pytest.mark.parametrize(
    ("told", "word", "reason"),
    [
        ("trashed", "cancelled", "trashed"),
        ("", "wc-cancelled", "cancelled"),
        ("bounced", "failed", "bounced"),
        ("Ada rang", "failed", "failed"),
    ],
)
def test_a_reason_is_one_of_few_words(told: str, word: str, reason: str) -> None:
    assert reason_of(told, word) == reason


def test_a_reason_that_nobody_gives_is_none() -> None:
    assert reason_of("whatever", "processing") is None


def test_a_provider_that_says_otherwise_than_the_shop_ever_did_makes_it_disputed() -> None:
    webhook = Claim(NoticeKind.STATUS, Status.COMPLETED, None, "USD", at(2), "evt_1", source="webhook")
    never = [report(1, Status.PENDING, paid=None), webhook, report(3, Status.FAILED, paid=None, reason=Reason.CANCELLED)]
    assert (Book(never).balance, Book(never).row.disputed) == (("failed", 0, 0), True)
    changed = [report(1), webhook, report(3, Status.FAILED, reason=Reason.CANCELLED)]
    assert (Book(changed).balance, Book(changed).row.disputed) == (("failed", 0, 0), False)
    bounced = replace(webhook, status=Status.FAILED, at=at(9))
    assert (Book([report(1), bounced]).balance, Book([report(1), bounced]).row.disputed) == (("completed", 100, 0), True)
    other = report(2, amount=120, source="till")
    assert Book([report(1), other, report(3)]).row.disputed


def test_a_payment_that_the_shop_has_not_seen_yet_counts() -> None:
    webhook = Claim(NoticeKind.STATUS, Status.COMPLETED, None, "USD", at(2), "evt_1", source="webhook")
    for claims in ([report(1, Status.PENDING, paid=None), webhook], [webhook, report(1, Status.PENDING, paid=None)]):
        book = Book(claims)
        assert (book.balance, book.row.disputed, book.by_day) == (("completed", 100, 0), False, {2: 100})


def test_a_chargeback_stays_when_the_shop_reports_again() -> None:
    lost = Claim(NoticeKind.STATUS, Status.CHARGED_BACK, None, "USD", at(4), "dp_1", source="webhook")
    book = Book([report(1), refund(2, "501", 30, 30), lost, report(5, total=30)])
    assert book.balance == ("charged_back", 100, 100)
    assert book.booked[-1] == ("chargeback", "dp_1", -70, "")


def test_an_older_report_that_comes_late_is_told_in_the_ledger_of_its_dates() -> None:
    book = Book([report(3, amount=41.1), report(1, amount=33.33)])
    assert book.booked == [
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
    told_by_webhook,
    st.sampled_from(Status),
    st.integers(1, 20),
)
notices = st.lists(reports | refunds | statuses, max_size=7)


@given(data=st.data(), first=reports, told=notices)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_order_and_repetition_of_reports_ends_the_same(data: st.DataObject, first: Claim, told: list[Claim]) -> None:
    every = [first, *told]
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


@given(first=reports, told=notices)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_report_told_again_is_a_duplicate_and_books_nothing(first: Claim, told: list[Claim]) -> None:
    once, twice = Book([first, *told]), Book([first, *told, *told, first])
    assert twice.booked == once.booked
    assert all(twice.duplicates[len(told) + 1 :])


@given(first=reports, told=notices)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_rate_that_comes_late_prices_each_date_as_one_that_was_there(first: Claim, told: list[Claim]) -> None:
    known, late = Book([first, *told]), Book([first, *told], rate=None)
    Order(late.row, entries=late.entries).price(RATE)
    assert late.by_day_in_base == known.by_day_in_base
