"""Requests that are broken in one field, with a value that no answer may repeat, generated from the contracts."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple
from urllib.parse import quote

from google.api import annotations_pb2
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.message_factory import GetMessageClass
from pmp.gdpr.v1 import gdpr_pb2
from pmp.identity.v1 import identity_pb2
from pmp.ingestion.v1 import ingestion_pb2
from pmp.journeys.v1 import journeys_pb2
from pmp.options.v1 import options_pb2
from pmp.purchases.v1 import purchases_pb2

MARKER: Final = "Zq9xMarker"
_FILES: Final = (gdpr_pb2, identity_pb2, ingestion_pb2, journeys_pb2, purchases_pb2)
_BROKEN: Final[Mapping[str, Any]] = {
    "text": f"{MARKER}\n@ {MARKER}",
    "long text": MARKER + "\x01" * 20_000,
    "key": {f"{MARKER} {MARKER}": {MARKER: [MARKER]}},
    "list": [MARKER, {MARKER + "@": MARKER}],
    "deep": json.loads('{"a":' * 12 + json.dumps(MARKER) + "}" * 12),
}
_UNREADABLE: Final = (
    b'{"%b": ' % MARKER.encode(),
    b"%b" % MARKER.encode(),
    b'"%b"' % MARKER.encode(),
    b'["%b"]' % MARKER.encode(),
    b'{"id": "%b", "id": "%b" %b}' % ((MARKER.encode(),) * 3),
)


class Call(NamedTuple):
    """A REST call."""

    rpc: MethodDescriptor
    verb: str
    path: str
    body: bytes | None
    what: str


def rpcs() -> list[MethodDescriptor]:
    """All unary rpcs that the gateway routes."""
    methods = [method for file in _FILES for service in file.DESCRIPTOR.services_by_name.values() for method in service.methods]
    return [
        each
        for each in methods
        if each.GetOptions().Extensions[options_pb2.access] != options_pb2.ACCESS_INTERNAL and not each.server_streaming
    ]


def rest(rpc: MethodDescriptor) -> Iterator[Call]:
    """An rpc's broken calls: each field of its body with each kind of breakage, each text of its path and query."""
    http: Any = annotations_pb2.http
    rule = rpc.GetOptions().Extensions[http]
    name = rpc.GetOptions().Extensions[options_pb2.body]
    for binding in (rule, *rule.additional_bindings):
        verb = binding.WhichOneof("pattern")
        template: str = getattr(binding, verb)
        path = template.replace("{id}", "1")
        if "{id}" in template:
            yield Call(
                rpc, verb, template.replace("{id}", quote(f"{MARKER} \n {MARKER}", safe="")), b"{}" if binding.body else None, "path"
            )
        if not binding.body:
            for field in rpc.input_type.fields:
                if field.type == FieldDescriptor.TYPE_STRING and f"{{{field.name}}}" not in template:
                    yield Call(
                        rpc, verb, f"{path}?{field.name}={quote(MARKER + chr(10) + 'x' * 3000, safe='')}", None, f"query {field.name}"
                    )
            continue
        for content in _UNREADABLE:
            yield Call(rpc, verb, path, content, "unreadable")
        target = rpc.input_type if name == "*" else rpc.input_type.fields_by_name[name].message_type
        for what, body in _bodies(target):
            yield Call(rpc, verb, path, json.dumps(body).encode(), what)


def _bodies(of: Descriptor | None, depth: int = 0) -> Iterator[tuple[str, Any]]:
    if of is None or depth > 2:
        return
    for field in of.fields:
        if field.name == "json_body":
            continue
        for kind, value in _BROKEN.items():
            yield f"{field.name}: {kind}", {field.name: value}
        if field.message_type is not None and not field.message_type.full_name.startswith("google."):
            for what, inner in _bodies(field.message_type, depth + 1):
                yield f"{field.name}.{what}", {field.name: [inner] if field.is_repeated else inner}


def native(rpc: MethodDescriptor) -> Iterator[tuple[str, bytes]]:
    """An rpc's broken native requests: each text of the request and of what it holds; and bytes that are no message."""
    yield "bytes", b"\xff" + MARKER.encode()
    for path in _texts(rpc.input_type):
        for value in (f"{MARKER}\n@ {MARKER}", MARKER + "\x01" * 5000):
            request: Any = GetMessageClass(rpc.input_type)()
            into = request
            for field in path[:-1]:
                into = getattr(into, field.name).add() if field.is_repeated else getattr(into, field.name)
                into.SetInParent()
            if path[-1].is_repeated:
                getattr(into, path[-1].name).append(value)
            else:
                setattr(into, path[-1].name, value)
            yield ".".join(field.name for field in path), request.SerializeToString()


def _texts(of: Descriptor, before: tuple[FieldDescriptor, ...] = ()) -> Iterator[tuple[FieldDescriptor, ...]]:
    for field in of.fields:
        if field.type == FieldDescriptor.TYPE_STRING:
            yield (*before, field)
        elif field.message_type is not None and not field.message_type.full_name.startswith("google.") and len(before) < 3:
            yield from _texts(field.message_type, (*before, field))
