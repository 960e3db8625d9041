"""The caller of an rpc, and the state of the current call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import tzinfo
from time import perf_counter
from typing import Any, Final, TypeAlias

import grpc
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from opentelemetry import metrics
from pmp.options.v1 import options_pb2 as options

from kit.boundary.access import MAX_REQUEST_BYTES, SCOPES
from kit.json_body.body import JsonBody
from kit.json_body.notes import Notes
from kit.overload import Limit
from kit.telemetry.names import Attribute

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"

ROLE_HEADER: Final = "x-pmp-role"
"""Names the role that is called, for rpcs that every service serves: several of them may share an address."""

_ENVELOPE_BYTES = 1024
"""What the gateway adds to a JSON body: its content type, and the fields from the path."""


@dataclass(frozen=True, slots=True)
class Caller:
    """The caller of the current rpc, as the gateway authenticated it."""

    client: str
    """Name of the API key's owner; empty for an internal caller."""
    scope: str
    """Scope of the token: track, site, read, admin or link; signed without one, empty for an internal caller."""
    user: str
    """The user that the token was issued for; empty without one."""
    address: str
    """The client's network address."""
    internal: bool
    """Whether the caller is another service or the command line: it has the mesh's credential and nothing else."""


class Method:
    """What all calls of one rpc have in common."""

    def __init__(self, path: str, limit: Limit, timezone: tzinfo, faults: metrics.Counter, roles: Sequence[str] = ()) -> None:
        self._roles = roles
        self.faults = faults
        self.name = path.removeprefix("/")
        self.limit = limit
        self.attributes = {Attribute.RPC_METHOD.value: self.name}
        descriptor = descriptor_pool.Default().FindMethodByName(self.name.replace("/", "."))
        facts = descriptor.GetOptions().Extensions
        self.scopes = frozenset(SCOPES.get(facts[options.access], ()))
        self.max_request_bytes = facts[options.max_request_bytes] or MAX_REQUEST_BYTES
        self.applies_rules = facts[options.applies_rules]
        self.body = None if self.applies_rules or not facts[options.body] else JsonBody(descriptor, timezone)
        self.envelope_bytes = _ENVELOPE_BYTES if facts[options.body] else 0
        # A query for nobody must not become one for everybody; requests between services were normalised when they entered the mesh.
        self.changes_state = bool(self.scopes) and descriptor.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        self._labels: dict[grpc.StatusCode, dict[str, str]] = {}

    def role(self, metadata: Mapping[str, Any]) -> str:
        """Returns the role that answers a call: the one that serves the rpc or, where several do, the one that the caller names."""
        if len(self._roles) == 1:
            return self._roles[0]
        named = metadata.get(ROLE_HEADER, "")
        return named if named in self._roles else ""

    def labels(self, code: grpc.StatusCode) -> dict[str, str]:
        """Returns the metric labels of a call with this status."""
        labels = self._labels.get(code)
        if labels is None:
            labels = self._labels[code] = {**self.attributes, Attribute.RPC_STATUS.value: code.name}
        return labels


class Call:
    """The state of the current rpc."""

    __slots__ = ("admitted", "caller", "facts", "method", "request_id", "started", "timeout")

    def __init__(self, method: Method, metadata: Mapping[str, Any], *, admitted: bool) -> None:
        self.method = method
        self.started = perf_counter()
        client, scope = metadata.get("x-pmp-client", ""), metadata.get("x-pmp-scope", "")
        user, address = metadata.get("x-pmp-user", ""), metadata.get("x-pmp-address", "")
        self.admitted = admitted
        self.caller = Caller(client, scope, user, address, internal=admitted and not (client or scope or user or address))
        self.request_id = metadata.get("x-request-id", "")
        self.timeout: str = metadata.get("x-pmp-timeout", "0")
        """Seconds that the gateway waits for the response, from when it forwarded the call."""
        self.facts: dict[str, Any] = {}


current_call: ContextVar[Call] = ContextVar("call")


def caller() -> Caller:
    """Returns the caller of the current rpc.

    Raises:
        LookupError: There is no current rpc.
    """
    return current_call.get().caller


def bind_log_fields(**facts: str | float | bool | None) -> None:
    """Adds fields to the log line of the current rpc; does nothing outside of one. They must not be personal."""
    call = current_call.get(None)
    if call is not None:
        call.facts.update(facts)


def remark(notes: Notes, answer: Any) -> None:
    """Reports in a response what was ignored or left out of the JSON body of the current rpc, and counts it.

    Args:
        notes: on the whole body, or on one item.
        answer: has `ignored_fields` and `faults`.
    """
    answer.ignored_fields.extend(notes.ignored)
    answer.faults.extend(notes.faults)
    method = current_call.get().method
    for kind, count in (("ignored", len(notes.ignored)), ("unread", len(notes.faults))):
        if count:
            method.faults.add(count, {**method.attributes, Attribute.FAULT.value: kind})
