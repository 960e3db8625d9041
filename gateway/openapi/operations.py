"""The operations of the document: one for each REST path of an rpc."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from google.api import annotations_pb2
from google.api.http_pb2 import HttpRule
from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from pmp.options.v1 import options_pb2

from gateway.contracts import Rpc
from gateway.openapi.rules import Schema, constraints
from gateway.openapi.schemas import HTTP_BODY, Location, Schemas
from gateway.openapi.statuses import CONFLICT, OF_BODIES, name
from kit.boundary.access import SCOPES

API_KEY: Final = "api_key"
"""Name of the security scheme of the API key."""
BEARER: Final = "bearer"
"""Name of the security scheme of the token."""
SESSION: Final = "session"
"""Name of the security scheme of the dashboard's cookie."""
_HTTP: Any = annotations_pb2.http  # Its stub does not declare what it extends.
_STRICT: Final = "strict"
"""The field of requests with a JSON body that comes with the query."""
_VARIABLE: Final = re.compile(r"\{(\w[\w.]*)\}")


@dataclass(frozen=True, slots=True)
class Binding:
    """A REST path of an rpc."""

    verb: str
    """HTTP method in lower case."""
    path: str
    """Template of the path."""
    body: str
    """The field of the request that the body holds, `*` for the request itself; empty without a body."""
    raw: str
    """The field of the request that the gateway fills with the body as received; empty where it parses the body itself."""


class Operations:
    """Renders the REST paths of rpcs.

    Args:
        schemas: collects the schemas that the operations mention.
        examples: request bodies by service and rpc, such as `ingestion.TrackEvent`.
        failed: statuses of failed calls.
    """

    def __init__(self, schemas: Schemas, examples: Mapping[str, Any], failed: Collection[int]) -> None:
        self._schemas = schemas
        self._examples = examples
        self._failed = failed

    def of(self, rpc: Rpc, method: MethodDescriptor) -> Iterator[tuple[str, str, Schema]]:
        """Paths, HTTP methods and operations of an rpc."""
        for number, binding in enumerate(_bindings(method), 1):
            suffix = f"_{number}" if number > 1 else ""
            yield binding.path, binding.verb, self._operation(rpc, method, binding, f"{rpc.cluster}_{rpc.name}{suffix}")

    def _operation(self, rpc: Rpc, method: MethodDescriptor, binding: Binding, operation_id: str) -> Schema:
        described = self._schemas.described(f"{rpc.service}.{rpc.name}")
        scopes = SCOPES[rpc.access]
        limits = [_needed(rpc, scopes)]
        if binding.body:
            limits.append(f"The body has at most {rpc.max_request_bytes} bytes.")
        operation: Schema = {
            "operationId": operation_id,
            "tags": [rpc.cluster],
            "summary": _first_sentence(described),
            "description": "\n\n".join([described, " ".join(limits)]),
            "security": _security(rpc, binding, scopes),
            "parameters": [*self._path(method.input_type, binding), *self._query(method.input_type, binding)],
        }
        if binding.body:
            operation["requestBody"] = self._body(rpc, method.input_type, binding)
        return operation | {"responses": self._responses(rpc, method, binding)}

    def _path(self, request: Descriptor, binding: Binding) -> Iterator[Schema]:
        for variable in _VARIABLE.findall(binding.path):
            field = _field(request, variable)
            parameter = self._parameter(field)
            parameter["schema"] = {"minLength": 1, **parameter["schema"]}
            yield {"name": variable, "in": "path", "required": True, **parameter}

    def _query(self, request: Descriptor, binding: Binding) -> Iterator[Schema]:
        for path, field in _leaves(request):
            # Addresses end up in logs.
            if _is_in_query(path, binding) and not _is_personal(field):
                is_required = constraints(field).is_required or _is_never_empty(field)
                yield {"name": path, "in": "query", "required": is_required, **self._parameter(field)}

    def _parameter(self, field: FieldDescriptor) -> Schema:
        schema = self._schemas.field(field, Location.URL)
        described = schema.pop("description", "")
        return {"description": described, "schema": schema}

    def _body(self, rpc: Rpc, request: Descriptor, binding: Binding) -> Schema:
        example = self._examples.get(f"{rpc.cluster}.{rpc.name}")
        if binding.body == "*":
            elsewhere = {binding.raw, *_VARIABLE.findall(binding.path), *({_STRICT} if binding.raw else ())}
            schema = self._schemas.message(request, Location.BODY, elsewhere)
            example = example and {field: value for field, value in example.items() if field not in elsewhere}
        else:
            field = _field(request, binding.body)
            if field.message_type is not None and field.message_type.full_name == HTTP_BODY:
                return {"required": True, "content": {"*/*": {}}}
            schema = self._schemas.field(field, Location.BODY)
            schema.pop("description", None)
        content: Schema = {"schema": schema, **({"example": example} if example else {})}
        return {"required": True, "content": {"application/json": content}}

    def _responses(self, rpc: Rpc, method: MethodDescriptor, binding: Binding) -> Schema:
        answer = method.output_type
        responses: Schema = {
            "200": {"description": self._schemas.described(answer.full_name) or "The body.", "content": self._content(rpc, answer)}
        }
        changes = method.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        left_out = (set[int]() if binding.body else OF_BODIES) | (set[int]() if changes else {CONFLICT})
        return responses | {
            str(status): {"$ref": f"#/components/responses/{name(status)}"} for status in self._failed if status not in left_out
        }

    def _content(self, rpc: Rpc, answer: Descriptor) -> Schema:
        if answer.full_name == HTTP_BODY:
            return {"*/*": {}}
        schema = self._schemas.message(answer, Location.ANSWER)
        return {"application/json": {"schema": {"type": "array", "items": schema} if rpc.streams else schema}}


def _needed(rpc: Rpc, scopes: Sequence[str]) -> str:
    if rpc.access == options_pb2.ACCESS_SIGNED:
        return "Needs neither an API key nor a token: the signature in the headers is the credential."
    return f"Needs a token with the scope {' or '.join(f'`{scope}`' for scope in scopes)}."


def _security(rpc: Rpc, binding: Binding, scopes: Sequence[str]) -> list[Schema]:
    """What opens a call, each alone; nothing where the body is signed."""
    if rpc.access == options_pb2.ACCESS_SIGNED:
        return []
    key: Schema = {} if rpc.keyless_client else {API_KEY: []}
    session: list[Schema] = [{SESSION: []}] if rpc.is_for_sessions(binding.verb.upper()) else []
    return [*(key | {BEARER: [scope]} for scope in scopes), *session]


def _bindings(method: MethodDescriptor) -> Iterator[Binding]:
    options = method.GetOptions()
    if not options.HasExtension(_HTTP):
        return
    first: HttpRule = options.Extensions[_HTTP]
    named: str = options.Extensions[options_pb2.body]
    for rule in (first, *first.additional_bindings):
        verb = rule.WhichOneof("pattern")
        kind, path = (rule.custom.kind, rule.custom.path) if verb == "custom" else (str(verb), getattr(rule, str(verb)))
        as_received = bool(rule.body and named)
        yield Binding(kind.lower(), path, named if as_received else rule.body, rule.body if as_received else "")


def _field(of: Descriptor, path: str) -> FieldDescriptor:
    first, _, rest = path.partition(".")
    field = of.fields_by_name[first]
    return _field(field.message_type, rest) if rest and field.message_type is not None else field


def _leaves(of: Descriptor, before: str = "") -> Iterator[tuple[str, FieldDescriptor]]:
    """Fields that fit in a query, with their paths."""
    for field in of.fields:
        inner = field.message_type
        if inner is None or inner.full_name.startswith("google.protobuf."):
            yield before + field.name, field
        elif not field.is_repeated and inner.full_name != HTTP_BODY:
            yield from _leaves(inner, f"{before}{field.name}.")


def _is_in_query(path: str, binding: Binding) -> bool:
    """Whether a field of the request is a query parameter: it is neither in the path nor in the body."""
    if binding.raw:
        return path == _STRICT
    elsewhere = {binding.body, *_VARIABLE.findall(binding.path)}
    return binding.body != "*" and path != _STRICT and path.partition(".")[0] not in elsewhere


def _is_personal(field: FieldDescriptor) -> bool:
    return field.GetOptions().Extensions[options_pb2.text] == options_pb2.TEXT_PERSONAL


def _is_never_empty(field: FieldDescriptor) -> bool:
    keywords = constraints(field).keywords
    return bool(keywords.get("minItems") or keywords.get("minLength"))


def _first_sentence(text: str) -> str:
    return re.split(r"(?<=[.:;])\s", text, maxsplit=1)[0].rstrip(".:;")
