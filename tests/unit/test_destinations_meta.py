"""What is sent to Meta: normalised and hashed as its documentation says, for anything that a shop may report."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmp.identity.v1.identity_pb2 import User
from pydantic import ValidationError

from services.destinations.kind import Message, Outcome, Outgoing
from services.destinations.meta.destination import KIND, Meta
from services.destinations.meta.graph import read
from services.destinations.meta.mapping import event as meta_event
from services.destinations.meta.options import MetaOptions
from services.destinations.meta.user_data import Customer, hashed
from services.destinations.occasions import happened
from tests.doubles.meta import DATASET, TOKEN, wrong_event
from tests.outgoing import AGENT, GOLDEN, NOW, TAGS, event, order, outgoing, refunded, registration, sealed

PAYLOADS = Path(__file__).parent.parent / "payloads" / "destinations"
EVERYTHING = ["PageView", "Lead", "CompleteRegistration", "InitiateCheckout", "Purchase"]
HTTP = httpx.AsyncClient()
AT = datetime(2026, 11, 20, 10, 16, 2, tzinfo=UTC)


@pytest.fixture(autouse=True)
def token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("META_TOKEN", TOKEN)


def meta(**options: Any) -> Meta:
    table = {"kind": "meta", "dataset_id": DATASET, "access_token": "META_TOKEN", "events": EVERYTHING, **options}
    return KIND("shop", MetaOptions.model_validate(table), HTTP)


def sent(each: Outgoing, destination: Meta, now: datetime = NOW) -> Any:
    [occasion] = [found for found in happened(each.message) if found.key == each.wanted.key]
    return meta_event(each, occasion, destination.options, now)


def only(message: Message, sealed_: dict[str, str] | None = None, profile: User | None = None, **options: Any) -> Any:
    """The event of the only delivery of a message."""
    destination = meta(**options)
    [each] = outgoing(destination, message, sealed_, profile=profile)
    return sent(each, destination)


def digest(text: str) -> list[str]:
    return [sha256(text.encode()).hexdigest()]


@pytest.mark.parametrize(
    ("customer", "key", "expected"),
    [
        # The vectors of Meta's documentation, customer-information-parameters.
        (Customer(email="John_Smith@gmail.com"), "em", "62a14e44f765419d10fea99367361a727c12365e2520f32218d505ed9aa0f62f"),
        (
            Customer(phone="(650) 555-1212", country="US"),
            "ph",
            "e323ec626319ca94ee8bff2e4c87cf613be6ea19919ed1364124e16807ab3176",
        ),
        (Customer(first_name="Mary"), "fn", "6915771be1c5aa0c886870b6951b03d7eafc121fea0e80a5ea83beb7c449f4ec"),
        (Customer(first_name="정"), "fn", "8fa8cd9c440be61d0151429310034083132b35975c4bea67fdd74158eb51db14"),
        (Customer(first_name="Valéry"), "fn", "08e1996b5dd49e62a4b4c010d44e4345592a863bb9f8e3976219bac29417149c"),
    ],
)
def test_the_vectors_of_the_documentation(customer: Customer, key: str, expected: str) -> None:
    assert hashed(customer)[key] == [expected]


@pytest.mark.parametrize(
    ("customer", "key", "normalised"),
    [
        (Customer(email=" Ada@Example.org\n"), "em", "ada@example.org"),
        (Customer(phone="+44 (0)20 7946 0000", country="GB"), "ph", "442079460000"),
        (Customer(phone="020 7946 0000", country="gb"), "ph", "442079460000"),
        (Customer(phone="+44 20 7946 0000", country="DE"), "ph", "442079460000"),
        (Customer(phone="0151 23456789", country="DE"), "ph", "4915123456789"),
        (Customer(phone="0043 1 58858-0", country="DE"), "ph", "431588580"),
        (Customer(last_name=" O'Brien "), "ln", "obrien"),
        (Customer(first_name="Anna-Maria"), "fn", "annamaria"),
        (Customer(first_name="Anna  Maria"), "fn", "anna maria"),
        (Customer(city="St. Gallen"), "ct", "stgallen"),
        (Customer(city="Zürich"), "ct", "zürich"),
        (Customer(state=" C A"), "st", "ca"),
        (Customer(postcode="SW1Y 4JH", country="GB"), "zp", "sw1y4jh"),
        (Customer(postcode="94025-1234", country="US"), "zp", "94025"),
        (Customer(country="DE"), "country", "de"),
    ],
)
def test_customer_information_is_normalised_before_it_is_hashed(customer: Customer, key: str, normalised: str) -> None:
    assert hashed(customer)[key] == digest(normalised)


@pytest.mark.parametrize(
    ("customer", "key"),
    [
        (Customer(phone="020 7946 0000"), "ph"),
        (Customer(phone="12", country="GB"), "ph"),
        (Customer(phone="none", country="GB"), "ph"),
        (Customer(first_name="—"), "fn"),
        (Customer(country="Germany"), "country"),
        (Customer(), "em"),
    ],
)
def test_what_can_not_be_matched_is_left_out(customer: Customer, key: str) -> None:
    assert key not in hashed(customer)


def test_the_golden_purchase_is_sent_as_the_golden_payload() -> None:
    destination = meta()
    [each] = outgoing(destination, order(AT), sealed())
    payload = sent(each, destination, AT + timedelta(minutes=1))
    assert payload == json.loads((PAYLOADS / "meta.Purchase.json").read_text())
    user = payload["user_data"]
    billing = GOLDEN["billing_address"]
    assert (user["em"], user["fn"], user["ph"]) == (digest("ada@example.org"), digest("ada"), digest("442079460000"))
    assert (user["ct"], user["zp"], user["country"]) == (digest("london"), digest("sw1y4jh"), digest("gb"))
    for personal in (billing["last_name"], billing["address_1"], billing["phone"], GOLDEN["email"], "s-9f8e7d6c"):
        assert personal not in json.dumps(payload)


@pytest.mark.parametrize(
    ("message", "names"),
    [
        (event("page_view"), ["PageView"]),
        (event("lead_capture"), ["Lead"]),
        (event("initiate_checkout"), ["InitiateCheckout"]),
        (registration(), ["CompleteRegistration"]),
        (order(), ["Purchase"]),
        (order(historical=True), []),
        (order(excluded=True), []),
        (refunded(order(), "29.90"), ["Purchase"]),
    ],
)
def test_what_is_wanted_and_a_refund_is_not(message: Message, names: list[str]) -> None:
    assert [each.name for each in meta().wanted(message)] == names
    assert list(meta(events=["Lead"]).wanted(message)) == [each for each in meta().wanted(message) if each.name == "Lead"]


def test_an_event_has_the_id_of_the_browsers_own() -> None:
    assert only(event())["event_id"] == "e1"
    assert only(order(), sealed())["event_id"] == "order-1016"
    assert only(registration())["event_id"] == "wp-user-42-signup"


def test_where_it_happened() -> None:
    web = only(order(), sealed())
    assert (web["action_source"], web["event_source_url"]) == ("website", "https://shop.example/checkout/")
    assert (web["user_data"]["client_user_agent"], web["user_data"]["fbp"]) == (AGENT, GOLDEN["metadata"]["fbp"])
    renewal = only(order(), sealed({}))
    assert (renewal["action_source"], "event_source_url" in renewal) == ("other", False)
    assert {"fbp", "fbc", "client_user_agent"} & renewal["user_data"].keys() == set()


def test_who_refuses_to_be_shared_is_not() -> None:
    assert only(event(global_privacy_control=True)) is None
    assert only(order(), sealed({"global_privacy_control": True})) is None
    assert only(registration(metadata={**TAGS, "global_privacy_control": True})) is None


def test_without_anything_to_find_the_person_by_nothing_is_sent() -> None:
    assert only(event(metadata={})) is None
    assert only(event(metadata={"fbp": "malformed"})) is None
    known = only(event(metadata={}), profile=User(email="ada@example.org", first_name="Ada"))
    assert (known["user_data"]["em"], known["user_data"]["fn"]) == (digest("ada@example.org"), digest("ada"))
    assert only(event("lead_capture", metadata={}), {"email": "ada@example.org"})["user_data"]["em"] == digest("ada@example.org")


def test_the_profile_is_asked_for_only_where_it_is_used() -> None:
    assert [meta().uses_profile(each) for each in (event(), registration(), order())] == [True, True, False]


def test_data_processing_options_are_sent_as_configured() -> None:
    assert "data_processing_options" not in only(event())
    assert only(event(), data_processing_options=[])["data_processing_options"] == []
    options = {"data_processing_options": ["LDU"], "data_processing_options_country": 1, "data_processing_options_state": 1000}
    [each] = outgoing(meta(**options), event())
    assert options.items() <= sent(each, meta(**options)).items()


TEXTS = st.text(max_size=300)
ADDRESSES = st.dictionaries(
    st.sampled_from(["first_name", "last_name", "city", "state", "postcode", "phone", "country", "email"]),
    st.one_of(TEXTS, st.from_regex(r"[+(0-9][0-9 ()/-]{4,20}"), st.integers(), st.none()),
)
VISITORS = st.dictionaries(
    st.sampled_from(["fbp", "fbc", "user_agent", "page_url"]),
    st.one_of(TEXTS, st.just("https://shop.example/checkout/"), st.just("fb.1.1763633000123.9"), st.integers()),
)


@settings(deadline=None)
@given(billing=ADDRESSES, visitor=VISITORS, country=st.sampled_from(["", "GB", "US", "DE", "AQ", "ZZ"]))
def test_any_order_keeps_the_rules(billing: dict[str, Any], visitor: dict[str, Any], country: str) -> None:
    kept = {**sealed(visitor), "billing": json.dumps(billing)}
    assert list(wrong_event(only(order(country=country), kept))) == []


@settings(deadline=None)
@given(
    metadata=st.dictionaries(st.sampled_from(["fbp", "fbc", "value"]), st.one_of(TEXTS, st.integers(), st.none())), url=TEXTS, agent=TEXTS
)
def test_any_event_keeps_the_rules(metadata: dict[str, Any], url: str, agent: str) -> None:
    for message in (
        event("initiate_checkout", metadata=metadata, page_url=url, user_agent=agent),
        registration(metadata={**metadata, "page_url": url, "user_agent": agent}),
    ):
        payload = only(message)
        assert payload is None or list(wrong_event(payload)) == []


@pytest.mark.parametrize(
    ("status", "answer", "outcome", "is_invalid"),
    [
        (200, {"events_received": 2}, Outcome.DELIVERED, False),
        (200, {"events_received": 1}, Outcome.RETRY, False),
        (200, None, Outcome.RETRY, False),
        (400, {"error": {"code": 190, "error_subcode": 463}}, Outcome.UNAUTHORIZED, False),
        (403, {"error": {"code": 200}}, Outcome.UNAUTHORIZED, False),
        (400, {"error": {"code": 100, "error_subcode": 33}}, Outcome.UNAUTHORIZED, False),
        (400, {"error": {"code": 100, "error_subcode": 2804003}}, Outcome.REJECTED, True),
        (400, {"error": {"code": 100, "is_transient": True}}, Outcome.RETRY, False),
        *((400, {"error": {"code": code}}, Outcome.RETRY, False) for code in (1, 2, 4, 17, 32, 613, 80004)),
        (400, {"error": {"code": 368}}, Outcome.REJECTED, False),
        (500, {"error": {"code": 100}}, Outcome.RETRY, False),
        (400, {"error": "odd"}, Outcome.REJECTED, False),
        (503, None, Outcome.RETRY, False),
        (429, None, Outcome.RETRY, False),
        (404, ["odd"], Outcome.REJECTED, False),
    ],
)
def test_what_an_answer_of_the_graph_means(status: int, answer: Any, outcome: Outcome, is_invalid: bool) -> None:
    found = read(status, answer, 2)
    assert (found.result.outcome, found.is_invalid) == (outcome, is_invalid)


def test_an_error_is_shown_without_its_text_which_may_quote_what_was_sent() -> None:
    error = {"code": 100, "error_subcode": 2804003, "message": "ada@example.org", "error_user_msg": "ada@example.org"}
    assert read(400, {"error": error}, 1).result.detail == "HTTP 400, Graph error 100/2804003"


@pytest.mark.parametrize(
    ("option", "value"),
    [("dataset_id", "shop"), ("access_token", "NOT_SET"), ("events", ["Refund"]), ("version", "26"), ("data_processing_options", ["CCPA"])],
)
def test_a_wrong_option_is_refused(option: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=option):
        meta(**{option: value})
