"""What a refund returned is kept with its entry of the ledger, whoever reports first."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations
from typing import Any

from services.purchases.claims import Claim, ReturnedLine
from tests.unit.order_book import Book
from tests.unit.test_purchases_provider import failed, provider_refund
from tests.unit.test_purchases_reconciliation import refund, report

GUIDE = ReturnedLine("305", 1, Decimal("29.90"))
STORED = [{"product_id": "305", "quantity": 1, "amount": "29.90"}]


def stating(claim: Claim, *lines: ReturnedLine) -> Claim:
    return replace(claim, lines=lines)


def lines_of(book: Book) -> dict[str, Any]:
    """The lines of the entries, by their references."""
    return {entry.reference: entry.lines for entry in book.entries}


def test_an_entry_has_the_lines_of_its_refund_in_every_order_of_arrival() -> None:
    first, second = stating(refund(2, "501", 30, 30), GUIDE), refund(4, "502", 20, 50)
    for some in permutations([report(1), first, second, provider_refund(2.1, 30)]):
        found = lines_of(Book(some))
        assert (found["501"], found["502"], found[""]) == (STORED, None, None), some


def test_lines_that_a_later_report_states_are_added_once_and_stay() -> None:
    bare = refund(2, "501", 30, 30)
    known = [report(1), bare, stating(bare, GUIDE)]
    book = Book(known)
    assert lines_of(book)["501"] == STORED
    assert book.booked == [("sale", "", 100), ("partial_refund", "501", -30)]
    assert lines_of(Book([*known, bare, stating(refund(3, "501", 30, 30), replace(GUIDE, quantity=2))]))["501"] == STORED
    assert Book([*known, stating(bare, GUIDE)]).duplicates[-1]


def test_lines_of_undated_reports_are_kept_too() -> None:
    sale = replace(report(1), reported_at=None, refunded_total=None)
    bare = replace(refund(2, "501", 30, 30), reported_at=None)
    for claims in ([sale, stating(bare, GUIDE)], [sale, bare, stating(bare, GUIDE)]):
        assert lines_of(Book(claims))["501"] == STORED, claims


def test_an_entry_of_a_part_of_a_refund_has_no_lines() -> None:
    sale = replace(report(1), reported_at=None, refunded_total=None)
    known, whole = (replace(refund(2, reference, amount, amount), reported_at=None) for reference, amount in (("501", 10), ("502", 30)))
    book = Book([sale, known, stating(whole, GUIDE)])
    assert book.booked[1:] == [("partial_refund", "501", -10), ("partial_refund", "502", -20)]
    assert set(map(str, lines_of(book).values())) == {"None"}


def test_a_correction_has_no_lines() -> None:
    book = Book([report(1), stating(refund(2, "501", 30, 30), GUIDE), failed(5, 30, "501")])
    assert [(entry.kind, entry.lines) for entry in book.entries] == [("sale", None), ("partial_refund", STORED), ("correction", None)]
