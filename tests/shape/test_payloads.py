"""The golden payloads, which PHP's tests build and these tests send: one for each call that takes a body."""

from __future__ import annotations

import importlib
import json
import re
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from google.api import annotations_pb2
from google.protobuf.descriptor import FileDescriptor, MethodDescriptor
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from pmp.ingestion.v1.event_pb2 import Event
from pmp.options.v1 import options_pb2
from protovalidate import Validator

from kit.json_body.body import JsonBody
from kit.json_body.notes import Notes

ROOT = Path(__file__).parent.parent.parent
PAYLOADS = ROOT / "tests" / "payloads"
LISTS = ("events", "purchases", "users")
"""The fields of the records of a batch."""


def _with_body() -> list[MethodDescriptor]:
    names = sorted(path.parent.name for path in (ROOT / "services").glob("*/servicer.py"))
    files: list[FileDescriptor] = [importlib.import_module(f"pmp.{name}.v1.{name}_pb2").DESCRIPTOR for name in names]
    methods = [method for file in files for service in file.services_by_name.values() for method in service.methods]
    return [method for method in methods if _body(method)]


def _body(method: MethodDescriptor) -> str:
    """The field of the request that the JSON body holds; `*` is the request itself."""
    http: Any = annotations_pb2.http  # the stubs of googleapis take it for a plain field
    bindings = (rule := method.GetOptions().Extensions[http]), *rule.additional_bindings
    body = method.GetOptions().Extensions[options_pb2.body]
    assert {each.body for each in bindings} - {""} == ({"json_body"} if body else set()), "a service sees the JSON as it came"
    return body if rule.body else ""


def _path_fields(method: MethodDescriptor) -> list[str]:
    """The fields of the request that its address carries, all of them text."""
    http: Any = annotations_pb2.http
    rule = method.GetOptions().Extensions[http]
    return re.findall(r"\{(\w+)\}", getattr(rule, rule.WhichOneof("pattern")))


def _name(method: MethodDescriptor) -> str:
    return method.name


@pytest.mark.parametrize("method", _with_body(), ids=_name)
def test_every_call_with_a_body_has_a_golden_payload_that_keeps_all_rules(method: MethodDescriptor) -> None:
    package = method.containing_service.full_name.split(".")[1]
    payload = json.loads((PAYLOADS / f"{package}.{method.name}.json").read_text())
    body = _body(method)
    request: Message = GetMessageClass(method.input_type)()
    # Strict as services are on request only: a field that nobody knows, or that is not written as its type is.
    ParseDict(payload if body == "*" else {body: payload}, request)
    read: Any = GetMessageClass(method.input_type)()
    read.json_body.data = json.dumps(payload).encode()
    notes = Notes()
    JsonBody(method, UTC).read(read, notes)
    assert (read, notes) == (request, Notes()), "a service reads it as protobuf does"
    for field in _path_fields(method):
        setattr(request, field, "42")
    validator = Validator()
    validator.validate(request)
    names = [body] if body != "*" else [name for name in LISTS if name in method.input_type.fields_by_name]
    several: list[Any] = [getattr(request, name) for name in names]
    records = several if body != "*" else [record for records in several for record in records]
    for record in records:
        validator.validate(record)


def test_the_payload_of_a_page_view_has_every_field_of_an_event() -> None:
    payload = json.loads((PAYLOADS / "ingestion.TrackEvent.json").read_text())
    assert {*payload, "context"} == set(Event.DESCRIPTOR.fields_by_name), "a context is of events that a server passes on"
