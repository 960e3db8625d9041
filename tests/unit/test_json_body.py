"""JSON bodies as careless senders write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import Descriptor, MethodDescriptor
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import event_pb2, ingestion_pb2
from pmp.journeys.v1 import journeys_pb2
from pmp.options.v1 import options_pb2
from pmp.purchases.v1 import purchases_pb2

from kit.errors import InvalidRequest
from kit.json_body.body import JsonBody
from kit.json_body.essential import is_essential
from kit.json_body.notes import Notes
from kit.json_body.reader import JsonReader
from kit.json_body.values import parse

TRACK = ingestion_pb2.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["TrackEvent"]
PURCHASE = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["TrackPurchase"]
STATUS = purchases_pb2.DESCRIPTOR.services_by_name["PurchasesService"].methods_by_name["UpdatePaymentStatus"]
PURCHASE_TEXTS = {
    *("id", "user_id", "order_id", "session_id", "product_id", "product_type", "currency", "payment_status", "source"),
}
NEIGHBOUR = event_pb2.Event(id="neighbour", event_type="page_view")
READER = JsonReader(event_pb2.Event.DESCRIPTOR, ZoneInfo("Europe/Berlin"))


def read(body: Any) -> tuple[event_pb2.Event, Notes]:
    """An event, and what was remarkable about it."""
    event, notes = event_pb2.Event(), Notes()
    value = parse(body if isinstance(body, bytes) else json.dumps(body).encode())
    READER.fill(event, value, notes)
    among, its_notes = ingestion_pb2.TrackEventsRequest(events=[NEIGHBOUR]), Notes()
    READER.add(among.events, value, its_notes)
    assert [*among.events] == [NEIGHBOUR, event], "the shorter way reads the same"
    assert (refused(its_notes), faults(its_notes), its_notes.ignored) == (refused(notes), faults(notes), notes.ignored)
    return event, notes


def faults(notes: Notes) -> dict[str, str]:
    return {fault.field: fault.description for fault in notes.faults}


def refused(notes: Notes) -> dict[str, str]:
    return {violation.field: violation.description for violation in notes.violations}


EVENT: dict[str, Any] = {
    "id": "e1",
    "timestamp": "2026-11-28T10:00:00.123456+05:45",
    "event_type": "page_view",
    "user_id": None,
    "utm_parameters": {"source": "newsletter"},
    "metadata": {"a": [1, "x", None, {"b": [True, 2.5]}], "empty": {}, "none": []},
    "global_privacy_control": True,
}


texts = st.text(max_size=8) | st.sampled_from(
    ["2026-11-28T10:00:00Z", "2026-11-28T10:00:00", "203.0.113.9:51", "ä@münchen.example", "1", "true"]
)
anything = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**14), 10**14) | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["source", "medium", "user_id", "userId", "a"]), inner),
    max_leaves=5,
)
FIELDS = [name for field in event_pb2.Event.DESCRIPTOR.fields for name in (field.name, field.json_name)]


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from([*FIELDS, "nobody_knows"]), texts | anything, max_size=6))
def test_an_event_of_a_batch_is_read_as_a_single_one(body: dict[str, Any]) -> None:
    twice = [
        field for field in event_pb2.Event.DESCRIPTOR.fields if field.name != field.json_name and {field.name, field.json_name} <= set(body)
    ]
    if not twice:
        read(body)


def test_what_protobuf_reads_is_read_as_protobuf_does() -> None:
    event, notes = read(EVENT)
    assert event == ParseDict(EVENT, event_pb2.Event())
    assert (notes.violations, notes.faults, notes.ignored) == ([], [], [])
    camel = {"eventType": "x", "utmParameters": {"source": "s"}, "pageUrl": "/"}
    assert read(camel)[0] == ParseDict(camel, event_pb2.Event())


@pytest.mark.parametrize(
    ("written", "seconds", "nanos", "is_assumed"),
    [
        ("2026-11-28T10:00:00Z", 1795860000, 0, False),
        ("2026-11-28t10:00:00z", 1795860000, 0, False),
        ("2026-11-28T10:00:00.5+01:00", 1795856400, 500_000_000, False),
        ("2026-11-28T10:00:00.123456789Z", 1795860000, 123_456_000, False),
        ("2026-11-28T10:00:00", 1795856400, 0, True),
        ("2026-07-28 10:00:00", 1785225600, 0, True),
        (1795860000, 1795860000, 0, False),
        (1795860000.25, 1795860000, 250_000_000, False),
        (1795860000123, 1795860000, 123_000_000, False),
        (1795860000123456, 1795860000, 123_456_000, False),
        ("1795860000123", 1795860000, 123_000_000, False),
        (0, 0, 0, False),
    ],
)
def test_a_time_is_read_as_it_is_commonly_written(written: Any, seconds: int, nanos: int, is_assumed: bool) -> None:
    event, notes = read({"timestamp": written})
    assert event.HasField("timestamp")
    assert (event.timestamp.seconds, event.timestamp.nanos) == (seconds, nanos)
    assert faults(notes) == ({"timestamp": "has no zone: taken for local time in Europe/Berlin"} if is_assumed else {})


@pytest.mark.parametrize(
    "written", ["yesterday", "", "0000-00-00 00:00:00", "-0001-11-30T00:00:00Z", 1e300, True, {}, [1], "NaN", "9" * 400]
)
def test_no_time_at_all_refuses_the_event_that_needs_it(written: Any) -> None:
    _, notes = read({"timestamp": written})
    assert "timestamp format" in refused(notes)["timestamp"]


@pytest.mark.parametrize(
    ("written", "means"), [(12345, "12345"), (1234567, "1234567"), (2.0, "2"), (2**63, str(2**63)), (1e6, "1000000"), ("007", "007")]
)
def test_an_id_written_as_a_number_is_its_digits(written: Any, means: str) -> None:
    event, notes = read({"id": written, "user_id": written, "utm_parameters": {"campaign": written}})
    assert (event.id, event.user_id, event.utm_parameters.campaign) == (means, means, means)
    assert notes == Notes()


def test_a_type_is_no_number() -> None:
    assert refused(read({"event_type": 7})[1]) == {"event_type": "is not a text"}


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("203.0.113.9:51234", "203.0.113.9"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("[2001:db8::1]", "2001:db8::1"),
        (" 203.0.113.9 ", "203.0.113.9"),
        ("2001:DB8::1", "2001:db8::1"),
        ("", ""),
    ],
)
def test_an_address_is_read_without_its_port(written: str, means: str) -> None:
    event, notes = read({"ip_address": written})
    assert event.ip_address == means
    assert notes == Notes()


@pytest.mark.parametrize("written", [[], {}, ["completed"], True])
def test_an_essential_text_that_cannot_be_read_refuses_its_record(written: Any) -> None:
    purchase = json.dumps({"payment_status": written, "source": written, "currency": written, "reason": written}).encode()
    _, notes = _purchase(purchase)
    assert refused(notes) == dict.fromkeys(("purchase.payment_status", "purchase.source", "purchase.currency"), "is not a text")
    assert faults(notes) == {"reason": "is not a text: left out"}
    assert refused(read({"platform": written, "source": written})[1]) == {"platform": "is not a text"}


def _bodies() -> Iterator[tuple[MethodDescriptor, Descriptor]]:
    """Every rpc that takes a JSON body, and the message that its body holds."""
    for file in (gdpr_pb2, identity_pb2, ingestion_pb2, journeys_pb2, purchases_pb2):
        for service in file.DESCRIPTOR.services_by_name.values():
            for rpc in service.methods:
                if body := rpc.GetOptions().Extensions[options_pb2.body]:
                    yield rpc, rpc.input_type if body == "*" else rpc.input_type.fields_by_name[body].message_type


@pytest.mark.parametrize(("rpc", "descriptor"), [*_bodies()], ids=lambda each: each.name)
def test_an_unreadable_text_is_refused_where_an_invalid_one_is(rpc: MethodDescriptor, descriptor: Descriptor) -> None:
    fields: Any = descriptor.fields
    texts = {field.name: field for field in fields if field.type == field.TYPE_STRING and not field.is_repeated}
    request: Any = message_factory.GetMessageClass(rpc.input_type)()
    request.json_body.data = json.dumps({name: [] for name in texts}).encode()
    notes = Notes()
    body = JsonBody(rpc, UTC)
    body.read(request, notes)
    essential = {name for name, field in texts.items() if is_essential(field)}
    assert set(refused(notes)) == {body.prefix + name for name in essential}
    assert set(faults(notes)) == set(texts) - essential


def test_what_cannot_be_read_is_left_out_and_said() -> None:
    event, notes = read(
        {"ip_address": "unknown", "page_title": {"raw": "x"}, "utm_parameters": "utm", "metadata": "text", "referrer": False}
    )
    assert event == event_pb2.Event()
    assert faults(notes) == {
        "ip_address": "is not an IP address: left out",
        "page_title": "is not a text: left out",
        "utm_parameters": "is not an object: left out",
        "metadata": "is not an object: left out",
        "referrer": "is not a text: left out",
    }
    assert refused(read({"id": ["x"], "user_id": {}, "session_id": True})[1]) == dict.fromkeys(
        ("id", "user_id", "session_id"), "is not a text"
    )


def test_an_empty_list_of_php_is_an_empty_object() -> None:
    event, notes = read({"metadata": [], "utm_parameters": []})
    assert event.HasField("metadata")
    assert event.HasField("utm_parameters")
    assert notes == Notes()


def test_an_international_host_is_written_in_the_letters_of_mail_servers() -> None:
    assert read({"email": "a@münchen.example"})[0].email == "a@xn--mnchen-3ya.example"


@pytest.mark.parametrize(
    ("written", "means"), [(True, True), (1, True), ("yes", True), ("1", True), (0, False), ("false", False), ("", False)]
)
def test_a_choice_has_many_words(written: Any, means: bool) -> None:
    assert read({"global_privacy_control": written})[0].global_privacy_control is means


def test_a_choice_that_cannot_be_read_is_not_taken_for_one() -> None:
    assert "global_privacy_control" in refused(read({"global_privacy_control": "maybe"})[1])


def test_a_lone_surrogate_and_a_number_that_is_none_spoil_their_own_value_alone() -> None:
    body = rb'{"id": "e1", "page_title": "caf\ud83d", "metadata": {"a": NaN, "b": 1, "c": ["\udc00"]}, "source": "x"}'
    event, notes = read(body)
    assert (event.id, event.page_title, event.source) == ("e1", "caf\ufffd", "x")
    assert MessageToDict(event.metadata) == {"a": None, "b": 1, "c": ["\ufffd"]}
    assert set(faults(notes)) == {"page_title", "metadata"}
    assert read('{"page_title": "café"}'.encode("latin-1"))[0].page_title == "caf\ufffd"
    assert read(b'\xef\xbb\xbf{"id": "bom"}')[0].id == "bom"
    assert refused(_purchase(b'{"amount": NaN}')[1]) == {"purchase.amount": "is not a number"}


def test_unknown_fields_are_named_and_never_their_values() -> None:
    body = {"eventtype": "x", "utm_parameters": {"sauce": "SECRET"}, "secret@example.org": 1, "a b": 2}
    _, notes = read(body)
    assert notes.ignored == ["eventtype", "utm_parameters.sauce", "(not a name)", "(not a name)"]
    assert read({f"f{number}": 1 for number in range(1000)})[1].ignored == [f"f{number}" for number in range(20)]


def test_strict_refuses_what_would_only_be_reported() -> None:
    request, notes = purchases_pb2.TrackPurchaseRequest(strict=True), Notes()
    request.json_body.data = b'{"total": 5, "timestamp": "2026-11-28T10:00:00"}'
    JsonBody(PURCHASE, UTC).read(request, notes)
    assert set(refused(notes)) == {"purchase.total", "purchase.timestamp"}


def test_free_form_data_is_read_no_deeper_than_any_rule_allows() -> None:
    deep = b'{"metadata": ' + b'{"a": ' * 900 + b"1" + b"}" * 900 + b"}"
    assert read(deep)[0].metadata.ByteSize() < 1000
    lists = b'{"metadata": {"a": ' + b"[" * 900 + b"]" * 900 + b"}}"
    assert read(lists)[0].metadata.ByteSize() < 1000


@pytest.mark.parametrize("body", [b"", b"{", b"[" * 100_000, b'{"a": ' * 100_000, b"\xff", b'{"a": 1} x', b"'a'"])
def test_what_is_no_json_is_refused_without_being_repeated(body: bytes) -> None:
    with pytest.raises(InvalidRequest, match=r"^the body is not JSON$"):
        parse(body)


def _purchase(body: bytes) -> tuple[purchases_pb2.Purchase, Notes]:
    request, notes = purchases_pb2.TrackPurchaseRequest(), Notes()
    request.json_body.data = body
    JsonBody(PURCHASE, UTC).read(request, notes)
    return request.purchase, notes


def test_an_order_is_read_line_by_line() -> None:
    purchase, notes = _purchase(
        b'{"order_id": 727, "amount": "19.99", "total": 1, "lines": [{"product_id": 7, "sku": 1}, null, {"quantity": 2.0}]}'
    )
    assert (purchase.order_id, purchase.amount) == ("727", 19.99)
    assert [(line.product_id, line.quantity) for line in purchase.lines] == [("7", 0), ("", 2)]
    assert notes.ignored == ["total", "lines[0].sku"]
    assert faults(notes) == {"lines[1]": "is not an object: left out"}


@pytest.mark.parametrize(
    ("written", "means", "left_out"),
    [
        (["spring10", 10, None, {"code": "x"}, True], ["spring10", "10"], ["[2]", "[3]", "[4]"]),
        ({}, [], []),
        ("spring10", [], [""]),
    ],
)
def test_of_a_list_of_texts_what_cannot_be_read_is_left_out(written: Any, means: list[str], left_out: list[str]) -> None:
    request, notes = purchases_pb2.TrackPurchaseRequest(), Notes()
    request.json_body.data = json.dumps({"order_id": "1", "coupon_codes": written}).encode()
    JsonBody(PURCHASE, UTC).read(request, notes)
    assert [*request.purchase.coupon_codes] == means
    assert ([*faults(notes)], refused(notes)) == ([f"coupon_codes{each}" for each in left_out], {})


def test_what_the_path_says_wins_over_the_body() -> None:
    request, notes = purchases_pb2.UpdatePaymentStatusRequest(id="42"), Notes()
    request.json_body.data = b'{"id": "43", "payment_status": "completed", "json_body": {}}'
    JsonBody(STATUS, UTC).read(request, notes)
    assert (request.id, request.payment_status, request.HasField("json_body")) == ("42", "completed", False)
    assert notes.ignored == ["json_body"]


def test_a_call_without_a_json_body_is_left_as_it_is() -> None:
    request: Message = ingestion_pb2.TrackEventRequest(event=event_pb2.Event(id="native"))
    JsonBody(TRACK, UTC).read(request, Notes())
    assert request == ingestion_pb2.TrackEventRequest(event=event_pb2.Event(id="native"))


def test_times_without_a_zone_follow_the_clocks_of_the_shop() -> None:
    event, _ = read({"timestamp": "2026-07-01T00:30:00"})
    assert event.timestamp.ToDatetime(UTC) == datetime(2026, 6, 30, 22, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("message", "essential"),
    [
        (gdpr_pb2.EraseUserDataRequest, {"id", "email"}),
        (gdpr_pb2.ExportUserDataRequest, {"id", "email"}),
        (purchases_pb2.Purchase, PURCHASE_TEXTS),
        (purchases_pb2.Refund, {"reference", "source", "payment"}),
        (purchases_pb2.UpdatePaymentStatusRequest, {"id", "payment_status", "reference", "source"}),
        (event_pb2.Event, {"id", "event_type", "user_id", "session_id", "platform"}),
        (event_pb2.UtmParameters, set[str]()),
    ],
)
def test_these_texts_are_essential(message: type[Message], essential: set[str]) -> None:
    fields: Any = message.DESCRIPTOR.fields
    texts = [field for field in fields if field.type == field.TYPE_STRING]
    assert {field.name for field in texts if is_essential(field)} == essential


def test_amounts_and_choices_are_essential_and_what_only_adds_to_a_record_is_not() -> None:
    fields: Any = purchases_pb2.Purchase.DESCRIPTOR.fields
    others = {field.name for field in fields if field.type != field.TYPE_STRING and is_essential(field)}
    assert others == {"timestamp", "amount", "refunded_total", "is_test", "is_staff", "reported_at", "historical"}


def test_an_essential_time_that_cannot_be_read_refuses_its_record() -> None:
    _, notes = _purchase(b'{"reported_at": "yesterday", "paid_at": "0000-00-00 00:00:00"}')
    assert refused(notes).keys() == {"purchase.reported_at"}
    assert faults(notes).keys() == {"paid_at"}
