"""What can go wrong in the domain, in nouns. The boundary interceptor turns each into one gRPC status.

Messages are read by callers: they name fields and rules, never personal values.
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
    """What is wrong with it."""


class MeshError(Exception):
    """Base of the errors a caller is told about. `str()` is the message."""


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
    """There is no such thing: NOT_FOUND."""


class Conflict(MeshError):
    """The thing is there, and is another one: ALREADY_EXISTS."""


class LogFull(MeshError):
    """The log takes nothing more for now: RESOURCE_EXHAUSTED with `retry-after`."""


class Overloaded(MeshError):
    """More is asked for than can be done in time; nothing was begun: RESOURCE_EXHAUSTED with `retry-after`."""


class Unavailable(MeshError):
    """Something the call needs is down; nothing was kept, or what was is kept once if the call is repeated: UNAVAILABLE."""
