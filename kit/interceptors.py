"""The boundary of a service: what happens around every rpc, in one place, so that no rpc can forget it."""

from __future__ import annotations

import asyncio
import hmac
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from time import perf_counter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, cast

import grpc
import structlog
from google.protobuf import descriptor_pool
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from opentelemetry import metrics
from opentelemetry.trace import Span, SpanKind, StatusCode
from pmp.options.v1 import options_pb2 as options
from protovalidate import Validator

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
from kit.json_body.body import JsonBody
from kit.json_body.leaving_out import leave_out
from kit.json_body.notes import Notes
from kit.outages import refusal_of
from kit.overload import BUSY, Limit, expect
from kit.people.nobody import NOBODY, forget_nobody
from kit.scrubbing import Scrubber
from kit.telemetry.deferred import DeferredBatch
from kit.telemetry.errors import describe
from kit.telemetry.names import Attribute, MetricName
from kit.telemetry.state import meter
from kit.telemetry.tracing import span, traceparent

if TYPE_CHECKING:
    from protovalidate import Violation as BrokenRule

Context: TypeAlias = "grpc.aio.ServicerContext[Any, Any]"
Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Respond: TypeAlias = Callable[[Message, Context], Awaitable[Message | None]]
_Work: TypeAlias = Callable[[bytes, Context], Awaitable[Message | None]]
_Answer: TypeAlias = Callable[["_Call", bytes, Context], Awaitable[Message | None]]

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""Probes and tools: no credential, no span, no line. They tell nothing but the contract."""

_SCOPES: Mapping[int, frozenset[str]] = {
    options.ACCESS_TRACK: frozenset({"track", "site", "admin"}),
    options.ACCESS_SITE: frozenset({"site", "admin"}),
    options.ACCESS_READ: frozenset({"read", "admin"}),
    options.ACCESS_ADMIN: frozenset({"admin"}),
}
"""Token scopes that open an rpc, by its access option; none opens an INTERNAL one. An internal caller needs none."""

_STATUS: Mapping[type[BaseException], grpc.StatusCode] = {
    InvalidRequest: grpc.StatusCode.INVALID_ARGUMENT,
    Unauthenticated: grpc.StatusCode.UNAUTHENTICATED,
    Forbidden: grpc.StatusCode.PERMISSION_DENIED,
    NotFound: grpc.StatusCode.NOT_FOUND,
    Conflict: grpc.StatusCode.ALREADY_EXISTS,
    LogFull: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Overloaded: grpc.StatusCode.RESOURCE_EXHAUSTED,
    Unavailable: grpc.StatusCode.UNAVAILABLE,
}
_RETRY_AFTER: Mapping[grpc.StatusCode, str] = {grpc.StatusCode.RESOURCE_EXHAUSTED: "5", grpc.StatusCode.UNAVAILABLE: "1"}
"""Seconds after which a caller may try again."""

_FAULTS = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.UNAVAILABLE})
"""Statuses that are the service's own failure, not the caller's."""

_MAX_REQUEST_BYTES = 1_048_576
_ENVELOPE_BYTES = 1024
"""What the gateway adds to a JSON body: its content type, and what the path says."""
_MAX_VIOLATIONS_BYTES = 1536
"""Violations named in one answer: in the message and again in the details, and trailers over 8 KiB are refused by clients."""
_MAX_WORDS = 200
"""Characters of a violation's field and of its description in an answer."""

_LEFT = 0.2
"""Part of its time that a call has left when it is begun: with less, it and those behind it would be answered to nobody."""

_REFUSALS_SECONDS = 1.0
"""Calls that are refused for want of time in this time share one line of the log: writing each would take what is lacking."""

_SECONDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0]

_validator = Validator()


@dataclass(frozen=True, slots=True)
class Caller:
    """Who calls the current rpc, as the gateway established it."""

    client: str
    """Name of the API key's owner; empty for an internal caller."""
    scope: str
    """Scope of the token: track, site, read or admin; empty for an internal caller."""
    user: str
    """The user the token was made for; empty when it names none."""
    address: str
    """The client's network address."""
    internal: bool
    """Another service or the command line: the mesh's credential and nothing else."""


class _Method:
    """What is the same for all calls of one rpc."""

    def __init__(self, path: str, limit: Limit, timezone: tzinfo, faults: metrics.Counter) -> None:
        self.faults = faults
        self.name = path.removeprefix("/")
        self.limit = limit
        self.attributes = {Attribute.RPC_METHOD.value: self.name}
        descriptor = descriptor_pool.Default().FindMethodByName(self.name.replace("/", "."))
        facts = descriptor.GetOptions().Extensions
        self.scopes = _SCOPES.get(facts[options.access], frozenset())
        self.max_request_bytes = facts[options.max_request_bytes] or _MAX_REQUEST_BYTES
        self.applies_rules = facts[options.applies_rules]
        self.body = None if self.applies_rules or not facts[options.body] else JsonBody(descriptor, timezone)
        self.envelope_bytes = _ENVELOPE_BYTES if facts[options.body] else 0
        # What only asks must not ask for everybody when it asks for nobody; what services tell each other came in before.
        self.tells = bool(self.scopes) and descriptor.GetOptions().idempotency_level != MethodOptions.NO_SIDE_EFFECTS
        self._labels: dict[grpc.StatusCode, dict[str, str]] = {}

    def labels(self, code: grpc.StatusCode) -> dict[str, str]:
        """Labels of the metrics of a call that ended so."""
        labels = self._labels.get(code)
        if labels is None:
            labels = self._labels[code] = {**self.attributes, Attribute.RPC_STATUS.value: code.name}
        return labels


class _Call:
    """What is known of the current rpc."""

    __slots__ = ("admitted", "caller", "facts", "method", "request_id", "started", "timeout")

    def __init__(self, method: _Method, metadata: Mapping[str, Any], *, admitted: bool) -> None:
        self.method = method
        self.started = perf_counter()
        client, scope = metadata.get("x-pmp-client", ""), metadata.get("x-pmp-scope", "")
        user, address = metadata.get("x-pmp-user", ""), metadata.get("x-pmp-address", "")
        self.admitted = admitted
        self.caller = Caller(client, scope, user, address, internal=admitted and not (client or scope or user or address))
        self.request_id = metadata.get("x-request-id", "")
        self.timeout: str = metadata.get("x-pmp-timeout", "0")
        """Seconds that the gateway waits for it, from when it sent it here."""
        self.facts: dict[str, Any] = {}


_current: ContextVar[_Call] = ContextVar("call")
_metadata: ContextVar[Any] = ContextVar("metadata")
"""The call's metadata as the interceptor gets it: asking the context again would decode all of it again."""


def caller() -> Caller:
    """Who calls the current rpc.

    Raises:
        LookupError: There is none.
    """
    return _current.get().caller


def bind_facts(**facts: str | float | bool | None) -> None:
    """Adds facts to the log line of the current rpc; does nothing outside of one. Never a value of a person."""
    call = _current.get(None)
    if call is not None:
        call.facts.update(facts)


def remark(notes: Notes, answer: Any) -> None:
    """Says in an answer what was ignored or not read of the JSON body of the current rpc, and counts it.

    Args:
        notes: of the whole body, or of one item.
        answer: has `ignored_fields` and `faults`.
    """
    answer.ignored_fields.extend(notes.ignored)
    answer.faults.extend(notes.faults)
    method = _current.get().method
    for kind, count in (("ignored", len(notes.ignored)), ("unread", len(notes.faults))):
        if count:
            method.faults.add(count, {**method.attributes, Attribute.FAULT.value: kind})


def validate(message: Message) -> list[Violation]:
    """The rules of its proto that a message breaks, with paths such as `utm_parameters.source` and `events[3].id`."""
    return [_violation(broken) for broken in _validator.collect_violations(message)]


def _violation(broken: BrokenRule) -> Violation:
    proto = broken.proto
    path = ""
    for element in proto.field.elements if proto.field else ():
        path += f".{element.field_name}" if path else element.field_name
        if element.subscript is not None:
            path += f"[{element.subscript.value}]"
    return Violation(path, proto.message or proto.rule_id)


class _Ended(NamedTuple):
    """What is told of a call once it has ended: nothing adds to its facts any more."""

    call: _Call
    code: grpc.StatusCode
    seconds: float
    time: datetime
    trace: str

    def line(self) -> dict[str, Any]:
        """The facts of its log line."""
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
        }


class _Outcome(NamedTuple):
    """How an rpc ends."""

    code: grpc.StatusCode
    message: str = ""
    trailers: tuple[tuple[str, str | bytes], ...] = ()


class Boundary(grpc.aio.ServerInterceptor):
    """Lets an rpc in (credential, access, size, rules, nothing of persons in its texts), and tells of it: span, metric, log line, status.

    An error of `kit.errors` becomes its status; what is down becomes UNAVAILABLE; anything else is INTERNAL, and its
    text goes nowhere.

    Args:
        mesh_token: the mesh's own credential.
        rotating: another one that is accepted as well.
        timezone: the shop's: where times in JSON bodies are local that have no zone.
        scrubber: takes out of requests what names persons; not of those whose rules the servicer applies itself.
        most_calls: calls of one rpc that are under way at once, at most.
        slow_seconds: while calls of an rpc take longer, fewer of them are under way at once, and the others refused.
    """

    def __init__(
        self,
        mesh_token: str,
        rotating: str | None = None,
        *,
        timezone: tzinfo = UTC,
        scrubber: Scrubber | None = None,
        most_calls: int = 1024,
        slow_seconds: float = 5.0,
    ) -> None:
        self._scrubber = scrubber or Scrubber()
        self._token = mesh_token.encode()
        self._rotating = self._token if rotating is None else rotating.encode()
        self._timezone = timezone
        self._limits = most_calls, slow_seconds
        self._faults = meter().create_counter(
            MetricName.BODY_FAULTS, "1", "Fields of JSON bodies that were ignored, or not read as written."
        )
        self._handlers: dict[str, Handler] = {}
        self._log: Any = structlog.get_logger().bind()
        self._ended = DeferredBatch(self._tell_ended)
        self._refused = DeferredBatch(self._tell_refused, _REFUSALS_SECONDS)
        self._duration = meter().create_histogram(
            MetricName.CALL_DURATION, "s", "Duration of rpcs.", explicit_bucket_boundaries_advisory=_SECONDS
        )

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The rpc's handler inside of the boundary; made at the method's first call."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            inner = await continuation(handler_call_details)
            if inner is None or path.startswith(_OPEN):
                return inner
            handler = self._handlers[path] = self._guard(_Method(path, Limit(*self._limits), self._timezone, self._faults), inner)
        _metadata.set(handler_call_details.invocation_metadata)
        return handler

    def _guard(self, method: _Method, inner: Handler) -> Handler:
        answer_to = _in_time(method, self._work(method, inner), streams=inner.response_streaming)

        async def guarded(raw: bytes, context: Context) -> Message | None:
            metadata: dict[str, Any] = dict(_metadata.get())
            call = _Call(method, metadata, admitted=self._knows(metadata.get("x-pmp-mesh-token", "")))
            _current.set(call)
            answer: Message | None = None
            fault: BaseException | None = None
            with span(method.name, parent=metadata.get("traceparent", ""), kind=SpanKind.SERVER, attributes=method.attributes) as current:
                try:
                    _admit(call)
                    answer = await answer_to(call, raw, context)
                    outcome = _Outcome(context.code() or grpc.StatusCode.OK)
                except grpc.aio.AbortError as error:
                    outcome, fault = _Outcome(context.code()), error
                except asyncio.CancelledError as error:
                    outcome, fault = _Outcome(_cancelled(context)), error
                except Exception as error:  # noqa: BLE001  (the boundary is where every error ends)
                    outcome, fault = _failed(error), error
                self._tell(call, current, outcome.code, fault)
            try:
                if isinstance(fault, grpc.aio.AbortError | asyncio.CancelledError):
                    raise fault
                if fault is not None:
                    await context.abort(*outcome)
                return answer
            finally:
                fault = None  # or frame, error and traceback hold each other until the collector comes

        if inner.response_streaming:
            return grpc.unary_stream_rpc_method_handler(guarded, None, inner.response_serializer)
        return grpc.unary_unary_rpc_method_handler(guarded, None, inner.response_serializer)

    def _work(self, method: _Method, inner: Handler) -> _Work:
        """What is done of a call that is let in: its request is read and checked, and answered by the servicer."""
        parse = inner.request_deserializer
        respond = _respond(inner)
        if parse is None or respond is None:
            message = f"{method.name} streams requests: the boundary does not know how to check them"
            raise TypeError(message)

        async def work(raw: bytes, context: Context) -> Message | None:
            notes = Notes()
            answer = await respond(self._checked(method, parse, raw, notes), context)
            if notes.is_remarkable:
                remark(notes, answer)
            return answer

        return work

    def _knows(self, token: str) -> bool:
        sent = token.encode()
        return hmac.compare_digest(sent, self._token) or hmac.compare_digest(sent, self._rotating)

    def _checked(self, method: _Method, parse: Callable[[bytes], Message], raw: bytes, notes: Notes) -> Message:
        bound = method.max_request_bytes
        if len(raw) > bound + method.envelope_bytes:
            raise _too_large(bound)
        try:
            request: Any = parse(raw)
        except DecodeError:
            raise InvalidRequest([Violation("", "the request is not a valid message")]) from None
        if len(raw) > bound and not request.HasField("json_body"):
            raise _too_large(bound)
        if method.applies_rules:
            return request
        may_leave_out = method.body is not None and request.HasField("json_body") and not request.strict
        if method.body is not None:
            method.body.read(request, notes)
        if method.tells:
            forget_nobody(request, NOBODY)
        broken = validate(request)
        if broken and method.body is not None and may_leave_out and leave_out(request, broken, notes, method.body.prefix):
            broken = validate(request)
        if refused := notes.broken(broken):
            raise InvalidRequest(refused)
        if method.tells:
            # Behind the rules: whoever tells of nobody has said so, and a text may be longer without what it hid.
            forget_nobody(request)
            self._scrubber.scrub(request)
        return request

    def _tell(self, call: _Call, current: Span, code: grpc.StatusCode, fault: BaseException | None) -> None:
        ended = _Ended(call, code, perf_counter() - call.started, datetime.now(UTC), traceparent()[3:35])
        if current.is_recording():
            current.set_attribute(Attribute.RPC_STATUS, code.name)
            current.set_attribute(Attribute.CLIENT, call.caller.client)
            current.set_attribute(Attribute.SCOPE, call.caller.scope)
            if code in _FAULTS:
                current.set_status(StatusCode.ERROR)
        if isinstance(fault, Overloaded):
            self._refused.add(ended)
            return
        if code not in _FAULTS:
            self._ended.add(ended)
            return
        self._ended.flush()  # what came before a fault helps to understand it
        self._duration.record(ended.seconds, call.method.labels(code))
        if code is grpc.StatusCode.UNAVAILABLE:
            self._log.warning("call", error=describe(fault) if fault else "", **ended.line())
        else:
            self._log.error("call", exc_info=fault, **ended.line())

    def _tell_ended(self, calls: Sequence[_Ended]) -> None:
        for ended in calls:
            self._duration.record(ended.seconds, ended.call.method.labels(ended.code))
        for ended in calls:
            self._log.info("call", **ended.line())

    def _tell_refused(self, calls: Sequence[_Ended]) -> None:
        for ended in calls:
            self._duration.record(ended.seconds, ended.call.method.labels(ended.code))
        for method, count in Counter(ended.call.method.name for ended in calls).items():
            self._log.warning("calls refused", method=method, calls=count)


def _respond(inner: Handler) -> _Respond | None:
    """The servicer's method as one coroutine, whether it answers once or streams."""
    if inner.request_streaming:
        return None
    if not inner.response_streaming:
        return inner.unary_unary  # pyright: ignore[reportReturnType]  (the stubs know the blocking server's handlers only)
    behaviour: Any = inner.unary_stream

    async def stream(request: Message, context: Context) -> None:
        async with aclosing(behaviour(request, context)) as answers:
            async for answer in answers:
                await context.write(answer)

    return stream


def _in_time(method: _Method, work: _Work, *, streams: bool) -> _Answer:
    """Answers calls that are let in, those of which that there is time for."""

    async def answer(call: _Call, raw: bytes, context: Context) -> Message | None:
        # A stream lasts as long as its reader likes; what the mesh asks of itself is little, and others wait for it.
        if streams or call.caller.internal:
            return await work(raw, context)
        left = cast("float | None", context.time_remaining())  # the stubs know deadlines only
        if left is not None and left < float(call.timeout) * _LEFT:
            raise Overloaded(BUSY)
        method.limit.begin()
        try:
            expect(left)
            return await work(raw, context)
        finally:
            method.limit.end(call.started, perf_counter())

    return answer


def _admit(call: _Call) -> None:
    if not call.admitted:
        message = "this port takes calls from inside the mesh only"
        raise Unauthenticated(message)
    if not call.caller.internal and call.caller.scope not in call.method.scopes:
        message = "the token's scope does not open this method"
        raise Forbidden(message)


def _too_large(bound: int) -> InvalidRequest:
    return InvalidRequest([Violation("", f"the request is larger than {bound} bytes")])


def _cancelled(context: Context) -> grpc.StatusCode:
    return grpc.StatusCode.DEADLINE_EXCEEDED if context.time_remaining() == 0 else grpc.StatusCode.CANCELLED


def _failed(error: Exception) -> _Outcome:
    if not isinstance(error, MeshError):
        error = refusal_of(error, "something this call needs is down; try again") or error
    code = next((_STATUS[kind] for kind in type(error).__mro__ if kind in _STATUS), None)
    if code is None:
        return _Outcome(grpc.StatusCode.INTERNAL, "internal error")
    message = str(error)
    trailers: tuple[tuple[str, str | bytes], ...] = ()
    if code in _RETRY_AFTER:
        trailers = (("retry-after", _RETRY_AFTER[code]),)
    if isinstance(error, InvalidRequest):
        named = _named(error.violations)
        message = str(InvalidRequest(named))
        trailers = (("grpc-status-details-bin", _details(code, message, named)),)
    return _Outcome(code, message, trailers)


def _named(violations: Sequence[Violation]) -> list[Violation]:
    """As many violations as one answer holds, and how many more there are."""
    named: list[Violation] = []
    size = 0
    for violation in (Violation(each.field[:_MAX_WORDS], each.description[:_MAX_WORDS]) for each in violations):
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
