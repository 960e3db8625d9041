"""Requests over HTTP: query parameters are fields of the rpc's request, and errors are answered in the shape of google.rpc.Status."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import parse_qsl

import grpc
from google.protobuf.descriptor import Descriptor
from google.protobuf.json_format import MessageToJson
from google.protobuf.message_factory import GetMessageClass
from google.rpc import error_details_pb2
from google.rpc.status_pb2 import Status

from kit.boundary.outcome import Outcome
from kit.boundary.validation import validate
from kit.errors import InvalidRequest, Violation

RESUME: Final = "since"
"""The field of a request that names where to continue, which `Last-Event-ID` replaces."""
DETAILS: Final = error_details_pb2.BadRequest.DESCRIPTOR.full_name
"""The type of the details of an error: importing it makes it known to the JSON encoder."""
_MOST_PARAMETERS: Final = 200
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,50}", re.ASCII)
_HTTP: Final[Mapping[grpc.StatusCode, HTTPStatus]] = {
    grpc.StatusCode.INVALID_ARGUMENT: HTTPStatus.BAD_REQUEST,
    grpc.StatusCode.UNAUTHENTICATED: HTTPStatus.UNAUTHORIZED,
    grpc.StatusCode.PERMISSION_DENIED: HTTPStatus.FORBIDDEN,
    grpc.StatusCode.NOT_FOUND: HTTPStatus.NOT_FOUND,
    grpc.StatusCode.RESOURCE_EXHAUSTED: HTTPStatus.TOO_MANY_REQUESTS,
    grpc.StatusCode.UNAVAILABLE: HTTPStatus.SERVICE_UNAVAILABLE,
}


def request_of(kind: Descriptor, query: str, last_event_id: str) -> Any:
    """Makes the request of an rpc from the query of a URL.

    Args:
        kind: type of the request; its fields are texts and lists of texts.
        query: as in the URL.
        last_event_id: the header `Last-Event-ID`; empty without one.

    Raises:
        InvalidRequest: a parameter is unknown, is given twice or can't be read, or the request breaks its rules.
    """
    request: Any = GetMessageClass(kind)()
    try:
        parameters = parse_qsl(query, keep_blank_values=True, errors="strict", max_num_fields=_MOST_PARAMETERS)
    except ValueError:
        raise InvalidRequest([Violation("", f"the parameters can't be read, or there are more than {_MOST_PARAMETERS}")]) from None
    unknown = [name for name, _ in parameters if name not in kind.fields_by_name]
    if unknown:
        raise InvalidRequest(list(_unknown(unknown)))
    single = [name for name, _ in parameters if not kind.fields_by_name[name].is_repeated]
    if twice := {name for name in single if single.count(name) > 1}:
        raise InvalidRequest([Violation(name, f"{name} may be given once") for name in sorted(twice)])
    for name, value in parameters:
        if kind.fields_by_name[name].is_repeated:
            getattr(request, name).append(value)
        else:
            setattr(request, name, value)
    if last_event_id and RESUME in kind.fields_by_name:
        setattr(request, RESUME, last_event_id)
    if broken := validate(request):
        raise InvalidRequest(broken)
    return request


def _unknown(names: list[str]) -> Iterator[Violation]:
    for name in dict.fromkeys(names):
        # What is no name of a parameter may be anything, such as a token.
        yield Violation("", f"there is no parameter {name}" if _NAME.fullmatch(name) else "there is no such parameter")


def refusal(outcome: Outcome) -> bytes:
    """The HTTP response with which a call is refused, after which the connection is closed."""
    trailers = dict(outcome.trailers)
    details = trailers.pop("grpc-status-details-bin", b"")
    code: int = outcome.code.value[0]
    status = Status.FromString(details) if isinstance(details, bytes) and details else Status(code=code, message=outcome.message)
    body = MessageToJson(status, preserving_proto_field_name=True, always_print_fields_with_no_presence=True, indent=None).encode()
    http = _HTTP.get(outcome.code, HTTPStatus.INTERNAL_SERVER_ERROR)
    headers = {"content-type": "application/json", "content-length": str(len(body)), "connection": "close", **trailers}
    return head(http, headers) + body


def head(status: HTTPStatus, headers: Mapping[str, Any]) -> bytes:
    """The status line and the headers of an HTTP response."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    return "\r\n".join(lines).encode("latin-1")
