"""What may come in, and what of it may go on."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1.event_pb2 import Event, ReceivedEvent, ReceivedEventBytes, ReceivedRecord
from pmp.log.v1.log_pb2 import Record

from kit.rules import deeper, may_nest, plain
from services.ingestion.rules import network


@pytest.mark.parametrize(
    ("address", "kept"),
    [
        ("203.0.113.77", "203.0.113.0"),
        ("2001:db8:85a3:8d3:1319:8a2e:370:7348", "2001:db8:85a3::"),
        ("fe80::1%eth0", "fe80::"),
        ("::ffff:203.0.113.77", "203.0.113.0"),
        ("", ""),
    ],
)
def test_an_address_becomes_its_network(address: str, kept: str) -> None:
    assert network(address) == kept


def _struct(random: Random, levels: int) -> dict[str, Any]:
    """A Struct of at most so many levels, of names and texts that look like tags."""
    return {random.choice("*2ab") * random.randrange(4) + str(number): _value(random, levels - 1) for number in range(random.randrange(4))}


def _value(random: Random, levels: int) -> Any:
    if levels and random.random() < 0.8:
        return _struct(random, levels) if random.random() < 0.5 else [_value(random, levels - 1) for _ in range(random.randrange(3))]
    return random.choice([None, True, 2.0, 42.0, "*", "2", "text"])


def test_what_is_seen_in_its_bytes_to_be_flat_is_flat() -> None:
    random = Random(20260101)  # noqa: S311  (the same cases in every run)
    seen: set[tuple[bool, bool]] = set()
    for _ in range(20_000):
        struct = ParseDict(_struct(random, random.randrange(1, 12)), Struct())
        levels = random.randrange(1, 9)
        seen.add((may_nest(struct.SerializeToString(), levels), deeper(struct, levels)))
    assert seen == {(False, False), (True, False), (True, True)}


def test_a_received_event_is_the_same_around_an_event_that_is_serialised_already() -> None:
    fields = {field.name: (field.number, field.is_repeated) for field in ReceivedEvent.DESCRIPTOR.fields}
    assert fields == {field.name: (field.number, field.is_repeated) for field in ReceivedEventBytes.DESCRIPTOR.fields}
    event = Event(id="e1", event_type="page_view")
    rest: dict[str, Any] = {
        "received_at": Timestamp(seconds=1, nanos=2),
        "content_hash": b"c",
        "sealed_email": b"s",
        "email_hash": b"h",
        "client": "shop",
        "scope": "site",
        "address": "203.0.113.0",
    }
    written = ReceivedEventBytes(event=event.SerializeToString(), **rest)
    assert ReceivedEvent.FromString(written.SerializeToString()) == ReceivedEvent(event=event, **rest)


def test_a_record_of_the_log_is_the_same_around_a_received_event_that_is_serialised_with_it() -> None:
    received = ReceivedEventBytes(event=Event(id="e1").SerializeToString(), client="shop")
    written = ReceivedRecord(type="t", payload=received, traceparent="p")
    assert Record.FromString(written.SerializeToString()) == Record(type="t", payload=received.SerializeToString(), traceparent="p")


def test_free_form_data_becomes_what_protobuf_itself_makes_of_it() -> None:
    data: dict[str, Any] = {"text": "a", "number": -2.5, "yes": True, "none": None, "list": [1, [], {"deep": [None, False]}], "empty": {}}
    struct = ParseDict(data, Struct())
    struct.fields["unset"].CopyFrom(Value())
    assert plain(struct) == MessageToDict(struct) == {**data, "unset": None}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
def test_a_number_that_json_lacks_has_no_plain_form(number: float) -> None:
    with pytest.raises(ValueError, match="JSON has no such number"):
        plain(Struct(fields={"list": Value(list_value=ListValue(values=[Value(number_value=number)]))}))
