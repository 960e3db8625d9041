"""Errors of the domain. The boundary interceptor maps each to one gRPC status.

Callers read the messages: they name fields and rules, never personal values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One broken rule of a request."""

    field: str
    """The field, as a path within the request."""
    description: str
    """The rule it breaks."""


class MeshError(Exception):
    """Base of the errors that are reported to callers. `str()` is the message."""


class InvalidRequest(MeshError):
    """The request breaks rules: INVALID_ARGUMENT with a `google.rpc.BadRequest`."""

    def __init__(self, violations: Sequence[Violation]) -> None:
        super().__init__("; ".join(f"{v.field}: {v.description}" if v.field else v.description for v in violations))
        self.violations = tuple(violations)


class Unauthenticated(MeshError):
    """The caller did not prove who it is: UNAUTHENTICATED."""


class Forbidden(MeshError):
    """The caller may not do this: PERMISSION_DENIED."""


class NotFound(MeshError):
    """It does not exist: NOT_FOUND."""


class Conflict(MeshError):
    """Something else exists under the same id: ALREADY_EXISTS."""


class LogFull(MeshError):
    """The log accepts nothing more for now: RESOURCE_EXHAUSTED with `retry-after`."""


class Overloaded(MeshError):
    """There are more calls than can be answered in time; this one was not done, or not all of it: RESOURCE_EXHAUSTED with `retry-after`."""


class Unavailable(MeshError):
    """A dependency of the call is down; nothing was stored, or repeating the call stores it only once: UNAVAILABLE."""
