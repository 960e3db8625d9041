"""Identifiers of persons in messages: every declared field is read, whatever message holds it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message_factory import GetMessageClass
from pmp.gdpr.v1 import change_pb2 as gdpr_changes
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import change_pb2 as identity_changes
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import event_pb2, ingestion_pb2
from pmp.journeys.v1 import change_pb2 as journey_changes
from pmp.journeys.v1 import journeys_pb2
from pmp.options.v1 import options_pb2
from pmp.privacy.v1 import privacy_pb2
from pmp.purchases.v1 import change_pb2 as purchase_changes
from pmp.purchases.v1 import purchases_pb2

from kit.people.identifiers import identifiers_in, identifiers_in_payload

EXAMPLES: dict[int, tuple[Any, str]] = {
    options_pb2.IDENTIFIER_USER_ID: ("ada-1", "user:ada-1"),
    options_pb2.IDENTIFIER_WORDPRESS_ID: (42, "wordpress:42"),
    options_pb2.IDENTIFIER_SESSION_ID: ("s-1", "session:s-1"),
    options_pb2.IDENTIFIER_ANONYMOUS_ID: ("a-1", "anonymous:a-1"),
    options_pb2.IDENTIFIER_EMAIL_HASH: (b"\xab", "email:ab"),
    options_pb2.IDENTIFIER_SUBJECT: ("visitor:v-1", "visitor:v-1"),
}
MODULES = (
    *(gdpr_changes, identity_changes, journey_changes, purchase_changes),
    *(event_pb2, gdpr_pb2, identity_pb2, ingestion_pb2, journeys_pb2, privacy_pb2, purchases_pb2),
)


def _declared() -> Iterator[tuple[Descriptor, FieldDescriptor]]:
    for module in MODULES:
        messages: Iterable[Descriptor] = module.DESCRIPTOR.message_types_by_name.values()
        for message in messages:
            fields: Iterable[FieldDescriptor] = message.fields
            yield from ((message, field) for field in fields if field.GetOptions().Extensions[options_pb2.identifier])


@pytest.mark.parametrize(("message", "field"), [pytest.param(*each, id=each[1].full_name) for each in _declared()])
def test_every_declared_field_is_read(message: Descriptor, field: FieldDescriptor) -> None:
    value, identifier = EXAMPLES[field.GetOptions().Extensions[options_pb2.identifier]]
    filled = GetMessageClass(message)(**{field.name: [value] if field.is_repeated else value})
    assert identifiers_in(filled) == {identifier}
    assert identifiers_in_payload(message.full_name, filled.SerializeToString()) == {identifier}


def test_every_kind_of_identifier_is_read() -> None:
    assert EXAMPLES.keys() == set(options_pb2.Identifier.values()) - {options_pb2.IDENTIFIER_UNSPECIFIED}


def test_identifiers_are_found_in_messages_within_messages_and_in_lists() -> None:
    events = [event_pb2.EventStored(event=event_pb2.Event(user_id=user), email_hash=b"\1") for user in ("7", "ada")]
    assert identifiers_in(ingestion_pb2.ListEventsResponse(events=events)) == {"wordpress:7", "user:7", "user:ada", "email:01"}


def test_what_identifies_nobody_is_passed_over() -> None:
    assert identifiers_in(event_pb2.Event(session_id="undefined")) == set()
    assert identifiers_in(ParseDict({"id": "e-1", "metadata": {"user_id": "7"}}, event_pb2.Event())) == set()
    assert identifiers_in(gdpr_pb2.GetConsentRequest(id="42")) == {"wordpress:42"}


@pytest.mark.parametrize(("message_type", "payload"), [("pmp.nothing.v1.Nothing", b""), ("pmp.ingestion.v1.Event", b"\xff")])
def test_what_can_not_be_parsed_has_no_identifiers(message_type: str, payload: bytes) -> None:
    assert identifiers_in_payload(message_type, payload) == set()
