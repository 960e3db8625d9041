"""The outcome of a call: the status for its caller, and the fields of its log line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import grpc
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status

from kit.boundary.caller import Call, Context
from kit.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    LogFull,
    MeshError,
    NotFound,
    Overloaded,
    Unauthenticated,
    Unavailable,
    Violation,
)
from kit.outages import refusal_of

STATUSES: Mapping[type[BaseException], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    LogFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
"""The status of each error of the domain."""
_RETRY_AFTER: Mapping[grpc.StatusCode, str] = {grpc.StatusCode.RESOURCE_EXHAUSTED: "5", grpc.StatusCode.UNAVAILABLE: "1"}
"""Seconds after which a caller may try again."""

FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE})
"""Statuses that are the fault of the service, not of the caller."""
_MAX_VIOLATIONS_BYTES = 1536
"""Bytes of violations in one response: they are in the message and in the details, and clients refuse trailers over 8 KiB."""
_MAX_CHARACTERS = 200
"""Characters of a violation's field and of its description in a response."""


class Ended(NamedTuple):
    """A call that has ended: its fields do not change any more."""

    call: Call
    code: grpc.StatusCode
    seconds: float
    time: datetime
    trace: str
    role: str

    def line(self) -> dict[str, Any]:
        """Returns the fields of its log line."""
        call = self.call
        return {
            **call.facts,
            "method": call.method.name,
            "status": self.code.name,
            "duration_ms": round(self.seconds * 1000, 3),
            "client": call.caller.client,
            "scope": "internal" if call.caller.internal else call.caller.scope,
            "trace": self.trace,
            "request_id": call.request_id,
            "time": self.time,
            **({"role": self.role} if self.role else {}),
        }


class Outcome(NamedTuple):
    """The status, message and trailers of an rpc."""

    code: grpc.StatusCode
    message: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()


def cancelled(context: Context) -> grpc.StatusCode:
    """Returns the status of a call that was cancelled by its caller or its deadline."""
    return grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED


def outcome_of(error: Exception) -> Outcome:
    """Maps an error to the outcome for the caller. The text of an error that is neither of the domain nor an outage is not returned."""
    if not isinstance(error, MeshError):
        error = refusal_of(error, "something this call needs is down; try again") or error
    code = next((STATUSES[kind] for kind in type(error).__mro__ if kind in STATUSES), None)
    if code is None:
        return Outcome(grpc.StatusCode.INTERNAL, "internal error")
    message = str(error)
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    if code in _RETRY_AFTER:
        trailers = (("retry-after", _RETRY_AFTER[code]),)
    if isinstance(error, InvalidRequest):
        named = _named(error.violations)
        message = str(InvalidRequest(named))
        trailers = (("grpc-status-details-bin", _details(code, message, named)),)
    return Outcome(code, message, trailers)


def _named(violations: Sequence[Violation]) -> list[Violation]:
    """Returns as many violations as fit in one response, and how many more there are."""
    named: list[Violation] = []
    size = 0
    for violation in (Violation(each.field[:_MAX_CHARACTERS], each.description[:_MAX_CHARACTERS]) for each in violations):
        size += len(violation.field.encode()) + len(violation.description.encode())
        if named and size > _MAX_VIOLATIONS_BYTES:
            named.append(Violation("", f"and {len(violations) - len(named)} more"))
            break
        named.append(violation)
    return named


def _details(code: grpc.StatusCode, message: str, violations: Sequence[Violation]) -> bytes:
    status = Status(code=code.value[0], message=message)
    broken = (BadRequest.FieldViolation(field=each.field, description=each.description) for each in violations)
    status.details.add().Pack(BadRequest(field_violations=broken))
    return status.SerializeToString()
