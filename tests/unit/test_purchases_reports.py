"""Reports about orders as calls bring them, and what of them is stored where the buyer was erased."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from google.protobuf.json_format import ParseDict
from pmp.purchases.v1 import purchases_pb2 as pb

from kit.errors import InvalidRequest
from kit.people.hashing import KeyedHasher
from kit.people.suppression import Suppressed, Suppression
from kit.rules import Period
from services.purchases.claims import ReportKind
from services.purchases.details import ANONYMOUS, ERASED, identifier_without_buyer, merged_metadata, read_details, sealing_identifiers
from services.purchases.erasure import reference_pseudonym, without_erased
from services.purchases.order_ids import is_purchase_id, purchase_id_of, wordpress_order_id
from services.purchases.orders import new_row
from services.purchases.reports import OrderReport, purchase_claim, refund_report, status_report
from services.purchases.statuses import Reason, Status
from tests.unit.order_book import DETAILS, START

NOW = datetime.now(UTC).replace(microsecond=0)
ALLOWED = Period.of(timedelta(days=365))
HASHER = KeyedHasher(bytes(32))
EMAIL_HASH = b"\x01" * 32


def refund(**fields: object) -> pb.RefundPurchaseRequest:
    return ParseDict({"id": "1016", "refund": {"reference": "17", **fields}}, pb.RefundPurchaseRequest())


def purchase_report(*, user_id: str = "42", email_hash: bytes = b"", session_id: str = "") -> OrderReport:
    columns = {"user_id": user_id, "email": b"sealed", "email_hash": email_hash, "session_id": session_id, "payment_method": "Ada's wallet"}
    details = replace(DETAILS, columns={name: value for name, value in columns.items() if value})
    claim = purchase_claim(pb.Purchase(id="n1", amount=10, source="ada"), "USD")
    return OrderReport("shop", "1016", claim, note="Ada asked", details=details)


def suppressing(*identifiers: str) -> Suppressed:
    return dict.fromkeys(identifiers, Suppression(START))


def test_a_refund_is_in_the_currency_of_its_order_whichever_that_is() -> None:
    report, row = refund_report("shop", refund(amount=10.005, refunded_total=10.5), ALLOWED, NOW), new_row("shop", "1016", "USD", NOW)
    held = report.claim_about(row)
    assert (held.currency, held.amount, held.refunded_total) == ("", Decimal("10.005"), Decimal("10.5"))
    row.currency = "JPY"
    claim = report.claim_about(row)
    assert (claim.currency, claim.amount, claim.refunded_total) == ("JPY", 10, 11)
    assert claim.in_currency("USD") == claim


def test_a_refund_happened_when_reported_else_when_read_else_now() -> None:
    yesterday, earlier = NOW - timedelta(days=1), NOW - timedelta(days=2)
    assert refund_report("shop", refund(), ALLOWED, NOW).claim.at == NOW
    assert refund_report("shop", refund(reported_at=yesterday.isoformat()), ALLOWED, NOW).claim.at == yesterday
    both = refund(reported_at=yesterday.isoformat(), timestamp=earlier.isoformat())
    assert refund_report("shop", both, ALLOWED, NOW).claim.at == earlier
    with pytest.raises(InvalidRequest):
        refund_report("shop", refund(timestamp=(NOW - timedelta(days=400)).isoformat()), ALLOWED, NOW)


def test_the_payment_method_of_the_order_decides_whether_processing_is_paid() -> None:
    report, row = (
        status_report("shop", pb.UpdatePaymentStatusRequest(id="1016", payment_status="processing"), ALLOWED, NOW),
        new_row("shop", "1016", "USD", NOW),
    )
    assert report.claim_about(row).status is Status.COMPLETED
    row.payment_method = "cod"
    assert report.claim_about(row).status is Status.PENDING
    with pytest.raises(InvalidRequest, match="none of pending"):
        status_report("shop", pb.UpdatePaymentStatusRequest(id="1016", payment_status="shipped"), ALLOWED, NOW)


def test_only_a_dated_report_has_a_reason() -> None:
    undated = pb.Purchase(amount=1, payment_status="cancelled", reason="trashed")
    assert purchase_claim(undated, "USD").reason is None
    dated = ParseDict({"amount": 1, "payment_status": "cancelled", "reason": "trashed", "reported_at": NOW.isoformat()}, pb.Purchase())
    assert purchase_claim(dated, "USD").reason is Reason.TRASHED


def test_the_order_of_a_path_is_unquoted() -> None:
    request = pb.RefundPurchaseRequest(id="2017%2F06%2F05-123")
    assert refund_report("shop", request, ALLOWED, NOW).order == "2017/06/05-123"


def test_a_purchase_id_is_no_order_of_a_shop() -> None:
    assert is_purchase_id(purchase_id_of("shop", "1016"))
    assert not is_purchase_id("1016")
    assert not is_purchase_id("0b8f7ad5-7f4c-4a52-9a53-3c1c1f8a7b10"), "a shop may number its orders by random UUIDs"
    assert purchase_id_of("shop", "1016") != purchase_id_of("other", "1016")
    assert [wordpress_order_id(order_id) for order_id in ("1016", "#1016", "٣", str(2**63))] == [1016, None, None, None]


def test_personal_values_are_sealed_under_their_own_identifier_or_the_strongest() -> None:
    purchase = ParseDict({"user_id": "42", "session_id": "s1", "billing_address": {"street": "12 Dorset Street"}}, pb.Purchase())
    assert sealing_identifiers(purchase, b"") == {"wordpress:42"}
    assert sealing_identifiers(purchase, EMAIL_HASH) == {"wordpress:42", f"email:{EMAIL_HASH.hex()}"}
    assert sealing_identifiers(pb.Purchase(user_id="42"), b"") == set()
    browser = ParseDict({"user_id": "42", "metadata": {"ga_client_id": "1.2"}}, pb.Purchase())
    assert sealing_identifiers(browser, b"") == {"wordpress:42"}
    assert sealing_identifiers(ParseDict({"user_id": "42", "metadata": {"note": "x"}}, pb.Purchase()), b"") == set()
    browser.user_id = ""
    assert read_details(browser, "USD", b"", {}).columns == {}, "no key would open what describes the buyer's browser"
    purchase.user_id = purchase.session_id = ""
    assert sealing_identifiers(purchase, b"") == set()
    assert read_details(purchase, "USD", b"", {}).columns == {}, "no key would open the address of an order without a buyer"


def test_a_report_without_suppressed_identifiers_is_stored_as_it_is() -> None:
    report = purchase_report(email_hash=EMAIL_HASH, session_id="s1")
    for identifier in (None, "wordpress:42", f"{ANONYMOUS}x"):
        assert without_erased(report, identifier, {}, HASHER) == report


def test_a_weaker_suppressed_identifier_is_left_out() -> None:
    report = purchase_report(email_hash=EMAIL_HASH, session_id="s1")
    stored = without_erased(report, None, suppressing(f"email:{EMAIL_HASH.hex()}"), HASHER)
    assert stored.details is not None
    assert stored.details.identifiers == ["wordpress:42", "session:s1"]
    assert "email" not in stored.details.columns
    assert (stored.claim, stored.note) == (report.claim, report.note)


@pytest.mark.parametrize(("identifier", "suppressed"), [(None, "wordpress:42"), (f"{ERASED}x", ""), (f"{ERASED}x", "wordpress:42")])
def test_of_an_erased_persons_order_only_the_money_is_stored(identifier: str | None, suppressed: str) -> None:
    report = purchase_report(email_hash=EMAIL_HASH, session_id="s1")
    stored = without_erased(report, identifier, suppressing(suppressed), HASHER)
    assert stored.details is not None
    assert (stored.details.columns, stored.details.erased) == ({"payment_method": "other"}, True)
    assert (stored.claim.reference, stored.claim.source, stored.note) == (reference_pseudonym(HASHER, "n1"), "other", "")
    assert (stored.claim.kind, stored.claim.amount, stored.claim.status) == (ReportKind.PURCHASE, 10, Status.COMPLETED)
    assert identifier_without_buyer("x", erased=stored.details.erased) == f"{ERASED}x"


def test_a_suppressed_buyer_does_not_erase_an_order_that_has_another() -> None:
    report = purchase_report(user_id="7")
    stored = without_erased(report, "wordpress:42", suppressing("wordpress:7"), HASHER)
    assert stored.details is not None
    assert (stored.details.identifiers, stored.claim, stored.note) == ([], report.claim, report.note)


def test_a_refund_of_an_erased_order_has_a_pseudonym_and_no_reason() -> None:
    report = refund_report("shop", refund(amount=1, reason="Ada asked", source="ada"), ALLOWED, NOW)
    stored = without_erased(report, f"{ERASED}x", {}, HASHER)
    assert (stored.claim.reference, stored.claim.source, stored.note) == (reference_pseudonym(HASHER, "17"), "other", "")
    assert stored.claim.reference == without_erased(report, f"{ERASED}x", {}, HASHER).claim.reference
    assert reference_pseudonym(HASHER, "") == ""


def test_metadata_of_several_reports_is_merged_as_long_as_it_keeps_its_bounds() -> None:
    assert merged_metadata({"a": 1}, {"a": 2, "b": 3}) == {"a": 1, "b": 3}
    assert merged_metadata({"a": 1}, {"b": "x" * 16_384}) == {"a": 1}
    assert (merged_metadata(None, {"b": 1}), merged_metadata({"a": 1}, None), merged_metadata(None, None)) == ({"b": 1}, {"a": 1}, None)
