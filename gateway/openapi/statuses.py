"""The statuses of failed calls: those of the gateway's own replies, and those to which the boundary maps a service's errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import grpc

from gateway.openapi.rules import Schema
from kit.boundary.outcome import STATUSES

HTTP_STATUS: Final[Mapping[grpc.StatusCode, int]] = {
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.UNAUTHENTICATED: 401,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
}
"""How the transcoder answers a gRPC status."""
CONFLICT: Final = HTTP_STATUS[grpc.StatusCode.ALREADY_EXISTS]
"""Only a call that changes something conflicts with what exists."""
OF_BODIES: Final = frozenset({408, 413, 415})
"""Statuses of requests with a body."""
ERROR: Final[Schema] = {
    "type": "object",
    "description": "Every failure, as `google.rpc.Status`. It names fields and rules, never values.",
    "properties": {
        "code": {"type": "integer", "format": "int32", "description": "The code of gRPC."},
        "message": {"type": "string", "description": "What is wrong, in words."},
        "details": {
            "type": "array",
            "description": "For a broken rule one `google.rpc.BadRequest`, which names each field.",
            "items": {
                "type": "object",
                "properties": {
                    "@type": {"type": "string", "examples": ["type.googleapis.com/google.rpc.BadRequest"]},
                    "field_violations": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "field": {"type": "string", "description": "The field, as a path within the request."},
                                "description": {"type": "string", "description": "The rule that it breaks."},
                            },
                            "required": ["field", "description"],
                        },
                    },
                },
                "required": ["@type"],
            },
        },
    },
    "required": ["code", "message", "details"],
}
"""The schema of every failure."""
_RETRY_AFTER: Final = {"retry-after": {"description": "Seconds after which to try again.", "schema": {"type": "integer", "minimum": 0}}}
_WITH_RETRY_AFTER: Final = {429, 503}


def failures(replies: Sequence[Sequence[Any]]) -> dict[str, Schema]:
    """The responses of failed calls, by the names of their components.

    Args:
        replies: the table of the gateway's own replies in `envoy.base.yaml`.
    """
    meanings: dict[int, list[str]] = {}
    for op, _, _, answered, _, message in replies:
        if op == "EQ" and not message.startswith("%"):
            meanings.setdefault(answered, []).append(message.replace("%%", "%"))
    for error, code in STATUSES.items():
        meanings.setdefault(HTTP_STATUS[code], []).append(_meaning(error))
    return {name(status): _response(status, list(dict.fromkeys(texts))) for status, texts in sorted(meanings.items())}


def name(status: int) -> str:
    """The name of a failure's component."""
    return f"status_{status}"


def _meaning(error: type[BaseException]) -> str:
    """What an error of `kit.errors` says of itself before its code."""
    return (error.__doc__ or "").partition("\n")[0].rpartition(": ")[0]


def _response(status: int, meanings: Sequence[str]) -> Schema:
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    response: Schema = {"description": "\n".join(f"* {text}" for text in meanings), "content": content}
    return response | ({"headers": _RETRY_AFTER} if status in _WITH_RETRY_AFTER else {})
