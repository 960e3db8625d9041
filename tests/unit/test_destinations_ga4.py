"""What is sent to Google Analytics: held to the rules of the Measurement Protocol, for anything that a shop may report."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmp.purchases.v1.change_pb2 import PaymentStatus, PurchaseChanged
from pydantic import ValidationError

from kit.people.privacy import Choice, Consent
from services.destinations.ga4.destination import KIND, Ga4
from services.destinations.ga4.mapping import body
from services.destinations.ga4.options import Ga4Options
from services.destinations.kind import Message, Outgoing
from services.destinations.occasions import happened
from tests.doubles.ga4 import SECRET, STREAM, violations_of
from tests.outgoing import GOLDEN, NOW, SHARING, ago, event, order, outgoing, refunded, registration, sealed

PAYLOADS = Path(__file__).parent.parent / "payloads" / "destinations"
EVERYTHING = ["page_view", "generate_lead", "sign_up", "begin_checkout", "purchase", "refund"]
HTTP = httpx.AsyncClient()
AT = datetime(2026, 11, 20, 10, 16, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GA4_SECRET", SECRET)


def ga4(**options: Any) -> Ga4:
    table = {"kind": "ga4", "measurement_id": STREAM, "api_secret": "GA4_SECRET", "events": EVERYTHING, **options}
    return KIND("shop", Ga4Options.model_validate(table), HTTP)


def sent(each: Outgoing, destination: Ga4, now: datetime = NOW) -> Any:
    [occasion] = [found for found in happened(each.message) if found.key == each.wanted.key]
    return body(each, occasion, destination.options, now)


def only(message: Message, sealed_: dict[str, str] | None = None, consent: Consent = SHARING, **options: Any) -> Any:
    """The body of the only delivery of a message."""
    destination = ga4(**options)
    [each] = outgoing(destination, message, sealed_, consent=consent)
    return sent(each, destination)


@pytest.mark.parametrize(("name", "message"), [("purchase", order(AT)), ("refund", refunded(order(AT), "29.90", AT))])
def test_the_golden_purchase_is_sent_as_the_golden_payload(name: str, message: Message) -> None:
    destination = ga4()
    [each] = [one for one in outgoing(destination, message, sealed()) if one.wanted.name == name]
    assert sent(each, destination, AT + timedelta(minutes=1)) == json.loads((PAYLOADS / f"ga4.{name}.json").read_text())


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (event("page_view"), ["page_view"]),
        (event("Lead Capture"), ["generate_lead"]),
        (event("begin_checkout"), ["begin_checkout"]),
        (event("scroll"), []),
        (event("page_view", historical=True), []),
        (registration(), ["sign_up"]),
        (registration(conversion_type="lead"), []),
        (order(), ["purchase"]),
        (order(excluded=True), []),
        (order(historical=True), []),
        (refunded(order(historical=True), "29.90"), ["refund"]),
        (refunded(order(), "29.90"), ["purchase", "refund"]),
        (refunded(order(), "29.90", historical=True), ["purchase"]),
        (refunded(refunded(order(), "29.90"), "199.00"), ["purchase", "refund", "refund"]),
        (refunded(order(), "228.90", kind="ENTRY_KIND_CORRECTION", reason="ENTRY_REASON_BOUNCED"), ["purchase", "refund"]),
        (refunded(order(), "228.90", kind="ENTRY_KIND_CORRECTION", reason="ENTRY_REASON_RESTATED"), ["purchase"]),
        (refunded(order(), "228.90", kind="ENTRY_KIND_CHARGEBACK"), ["purchase", "refund"]),
    ],
)
def test_what_is_wanted(message: Message, names: list[str]) -> None:
    wanted = list(ga4().wanted(message))
    assert [each.name for each in wanted] == names
    assert len({each.key for each in wanted}) == len(names)


def test_an_unpaid_order_a_crawler_and_what_the_options_leave_out_are_not_wanted() -> None:
    unpaid, crawled = order(), event()
    unpaid.ClearField("sold_at")
    crawled.enrichment.is_bot = True
    assert [*ga4().wanted(unpaid), *ga4().wanted(crawled)] == []
    assert list(ga4(events=["refund"]).wanted(order())) == []


def test_an_order_that_is_published_again_is_wanted_under_the_same_keys() -> None:
    first, again = order(), refunded(order(), "29.90")
    again.payment_status = PaymentStatus.PAYMENT_STATUS_PARTIALLY_REFUNDED
    assert {each.key for each in ga4().wanted(first)} < {each.key for each in ga4().wanted(again)}


def test_a_repeated_event_is_the_same_and_its_key_is_never_too_long() -> None:
    stored = event()
    stored.key = "~" + "x" * 255
    [wanted] = ga4().wanted(stored)
    stored.is_update = True
    assert [wanted] == list(ga4().wanted(stored))
    assert len(wanted.key) <= 255


def test_without_a_client_id_nothing_is_sent_unless_pseudonyms_are_allowed() -> None:
    for visitor in ({}, {"ga_client_id": "none"}, {"ga_client_id": "0.1"}, {"ga_client_id": 7}):
        assert only(order(), sealed(visitor)) is None
    [one, same] = [only(event(metadata={}), pseudonyms=True) for _ in range(2)]
    other = only(event(metadata={}, session_id="s2"), pseudonyms=True)
    assert one == same
    assert one["client_id"] != other["client_id"]
    assert not list(violations_of(orjson.dumps(one)))
    assert only(event(metadata={}, session_id=""), pseudonyms=True) is None
    assert only(event(), pseudonyms=True)["client_id"] == "1234567890.1732096530", "Google's own id counts"


def test_what_google_may_do_with_it_follows_the_consent_and_unknown_is_no() -> None:
    granted = {"ad_user_data": "GRANTED", "ad_personalization": "GRANTED"}
    denied = dict.fromkeys(granted, "DENIED")
    refusal = Consent(third_party_sharing=Choice(granted=False, decided_at=NOW))
    assert only(event())["consent"] == granted
    assert only(event(), consent=Consent())["consent"] == denied
    assert only(event(), consent=refusal)["consent"] == denied
    assert only(event(global_privacy_control=True))["consent"] == denied
    assert only(order(), sealed({"ga_client_id": "1.2", "global_privacy_control": True}))["consent"] == denied


def test_a_user_is_named_only_if_an_option_says_so() -> None:
    assert "user_id" not in only(order(), sealed())
    assert only(order(), sealed(), user_ids=True)["user_id"] == "42"
    assert "user_id" not in only(event(), user_ids=True)


def test_a_whole_refund_has_its_items_and_a_partial_one_its_value() -> None:
    destination = ga4(events=["refund"])
    refunds = [sent(each, destination)["events"][0]["params"] for each in outgoing(destination, refunded(order(), "228.90"), sealed())]
    assert [(each["value"], [item["item_id"] for item in each["items"]]) for each in refunds] == [(228.9, ["201", "305"])]
    partial = only(refunded(order(), "29.90"), sealed(), events=["refund"])["events"][0]["params"]
    assert (partial["value"], "items" in partial) == (29.9, False)


def test_a_partial_refund_has_the_items_that_were_returned_and_no_part_of_a_price() -> None:
    returned = [
        {"product_id": "305", "quantity": 1, "amount": "14.95"},
        {"product_id": "201", "quantity": 0, "amount": "20.00"},
        {"product_id": "gone", "quantity": 2, "amount": "3.00"},
    ]
    payload = only(refunded(order(), "37.95", lines=returned), sealed(), events=["refund"])
    assert not list(violations_of(orjson.dumps(payload)))
    params = payload["events"][0]["params"]
    assert (params["value"], params["items"]) == (
        37.95,
        [
            {"item_id": "305", "item_name": "Formula guide", "item_category": "guide", "price": 14.95, "quantity": 1},
            {"item_id": "gone", "price": 1.5, "quantity": 2},
        ],
    )


def restating(message: PurchaseChanged, at: datetime) -> PurchaseChanged:
    """The order after the refund of 29.90 that was booked for a time was taken back, by a report that arrives now."""
    entry = message.entries.add(kind="ENTRY_KIND_CORRECTION", reason="ENTRY_REASON_RESTATED", amount="29.90")
    entry.timestamp.FromDatetime(at)
    entry.booked_at.FromDatetime(NOW)
    return message


def test_a_refund_that_its_provider_reports_before_the_shop_is_one_and_has_the_shops_items() -> None:
    lines = [{"product_id": "305", "quantity": 2, "amount": "29.90"}]
    by_provider = refunded(order(), "29.90", ago(hours=2), reference="ch_1:2990")
    [_, first] = ga4().wanted(by_provider)
    now = {"booked_at": NOW.isoformat()}
    by_shop = restating(refunded(by_provider, "29.90", ago(hours=3), reference="501", lines=lines, **now), ago(hours=2))
    [_, again] = outgoing(ga4(), by_shop, sealed())
    assert again.wanted.key == first.key
    assert [item["item_id"] for item in sent(again, ga4())["events"][0]["params"]["items"]] == ["305"]
    another = refunded(by_shop, "29.90", reference="502")
    assert len({each.key for each in ga4().wanted(another)}) == 3
    edited = restating(refunded(order(), "29.90", ago(hours=2)), ago(hours=2))
    assert len(list(ga4().wanted(edited))) == 2, "what was taken back without another refund was one, and may be known already"


def test_what_is_reported_ahead_of_time_is_sent_as_of_now() -> None:
    assert only(event(at=ago(hours=-3)))["timestamp_micros"] == int(NOW.timestamp() * 1_000_000)


def test_the_value_of_a_cart_needs_a_currency() -> None:
    stored = event("begin_checkout", metadata={"ga_client_id": "1.2", "value": 199})
    assert "value" not in only(stored)["events"][0]["params"]
    stored.enrichment.currency = "EUR"
    params = only(stored)["events"][0]["params"]
    assert (params["value"], params["currency"]) == (199, "EUR")


def test_texts_are_cut_to_the_length_that_they_may_have() -> None:
    long = "https://shop.example/" + "x" * 5000
    params = only(event(page_url=long, page_title=long, referrer=long))["events"][0]["params"]
    assert [len(params[name]) for name in ("page_location", "page_title", "page_referrer")] == [1000, 300, 420]


def test_an_order_larger_than_a_request_loses_its_last_items() -> None:
    message = order()
    del message.lines[:]
    for _ in range(300):
        message.lines.add(product_id="😀" * 100, product_name="😀" * 255, product_type="course", quantity=1, amount="1.00")
    payload = only(message, sealed())
    assert 100 < len(payload["events"][0]["params"]["items"]) < 200
    assert not list(violations_of(orjson.dumps(payload)))


TEXTS = st.text(max_size=1200)
LINES = st.fixed_dictionaries(
    {
        "product_id": st.text(min_size=1, max_size=100),
        "product_name": st.text(max_size=255),
        "product_type": st.just("course"),
        "quantity": st.integers(0, 1000),
        "amount": st.integers(-10_000, 1_000_000).map(lambda cents: f"{cents / 100:.2f}"),
    }
)


@settings(deadline=None)
@given(
    lines=st.lists(LINES, max_size=4),
    many=st.sampled_from([1, 300]),
    coupons=st.lists(st.text(min_size=1, max_size=255), max_size=5),
    texts=st.tuples(TEXTS, TEXTS),
    number=st.text(min_size=1, max_size=100),
)
def test_any_order_keeps_the_rules(lines: list[Any], many: int, coupons: list[str], texts: tuple[str, str], number: str) -> None:
    message = order(coupon_codes=coupons, order_id=number)
    page, session = texts
    del message.lines[:]
    for line in [*lines, {"product_id": "1", "product_name": "😀" * 255, "product_type": "course", "amount": "1.00"}] * many:
        message.lines.add(**line)
    visitor = {"ga_client_id": "1.2", "ga_session_id": session, "page_url": page}
    payload = only(message, sealed(visitor))
    assert not list(violations_of(orjson.dumps(payload)))
    assert payload["events"][0]["params"]["value"] == GOLDEN["amount"]


@settings(deadline=None)
@given(url=TEXTS, title=TEXTS, referrer=TEXTS, value=st.one_of(st.none(), st.floats(allow_nan=False, allow_infinity=False), TEXTS))
def test_any_event_keeps_the_rules(url: str, title: str, referrer: str, value: Any) -> None:
    for event_type in ("page_view", "lead_capture", "begin_checkout"):
        stored = event(event_type, metadata={"ga_client_id": "1.2", "value": value}, page_url=url, page_title=title, referrer=referrer)
        stored.enrichment.currency = "EUR"
        assert not list(violations_of(orjson.dumps(only(stored))))


def test_a_service_account_deletes_by_user_id_and_so_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GA4_ACCOUNT", json.dumps({"client_email": "a@b.iam", "private_key": "-", "private_key_id": "1"}))
    several: list[dict[str, Any]] = [{}, {"user_ids": True}, {"property_id": "1"}]
    for options in several:
        with pytest.raises(ValidationError, match="needs user_ids and property_id"):
            ga4(service_account="GA4_ACCOUNT", **options)
    monkeypatch.setenv("GA4_ACCOUNT", json.dumps({"private_key": "the key itself"}))
    with pytest.raises(ValidationError, match="the JSON of a key file") as refused:
        ga4(service_account="GA4_ACCOUNT", user_ids=True, property_id="1")
    assert "the key itself" not in str(refused.value)


@pytest.mark.parametrize(
    ("option", "value"),
    [("measurement_id", "UA-1"), ("api_secret", "NOT_SET"), ("events", []), ("events", ["add_to_cart"]), ("endpoint", "x")],
)
def test_a_wrong_option_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=option):
        ga4(**{option: value})
