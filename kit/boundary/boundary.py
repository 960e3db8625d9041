"""The interceptor of every server of the mesh."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from contextvars import ContextVar
from datetime import UTC, tzinfo
from time import perf_counter
from typing import Any, TypeAlias, cast

import grpc
from google.protobuf.message import DecodeError, Message
from opentelemetry.trace import SpanKind

from kit.boundary.admission import Admission, admit
from kit.boundary.caller import Call, Context, Method, current_call, remark
from kit.boundary.nobody import NOBODY, forget_nobody
from kit.boundary.outcome import Outcome, cancelled, outcome_of
from kit.boundary.recording import Recorder
from kit.boundary.validation import broken_still, validate
from kit.errors import InvalidRequest, Overloaded, Violation
from kit.json_body.notes import Notes
from kit.overload import BUSY, CALLS, Limit, expect
from kit.scrubbing.scrubber import Scrubber
from kit.telemetry.names import MetricName
from kit.telemetry.roles import act_as
from kit.telemetry.state import meter
from kit.telemetry.tracing import span

Handler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
_Respond: TypeAlias = Callable[[Message, Context], Awaitable[Message | None]]
_Work: TypeAlias = Callable[[bytes, Context], Awaitable[Message | None]]
_Answer: TypeAlias = Callable[["Call", bytes, Context], Awaitable[Message | None]]

_OPEN = ("/grpc.health.v1.Health/", "/grpc.reflection.v1alpha.ServerReflection/")
"""Services of probes and tools: no credential, no span, no log line. They reveal nothing but the contract."""

_LEFT = 0.2
"""The fraction of its deadline that a call must have left to be started: otherwise it, and those after it, would finish too late."""

_metadata: ContextVar[Any] = ContextVar("metadata")
"""The call's metadata as the interceptor gets it: reading it from the context would decode all of it again."""


class Boundary(grpc.aio.ServerInterceptor):
    """Admits rpcs (credential, access, size, rules, scrubbed texts) and records them: span, metric, log line, status.

    An error of `kit.errors` becomes its status; an outage becomes UNAVAILABLE; anything else is INTERNAL, and its text is neither
    returned nor logged.

    Args:
        mesh_tokens: returns the mesh's own credentials that are accepted at this moment.
        timezone: the shop's, of times in JSON bodies without a zone.
        scrubber: removes personal data from requests; not from those whose rules the servicer applies itself.
        most_calls: the maximum of concurrent calls of one rpc.
        slow_seconds: while calls of an rpc take longer, its concurrency is reduced, and further calls are refused.
        roles: the roles of the process that serve a gRPC service, by its name.
    """

    def __init__(
        self,
        mesh_tokens: Callable[[], Sequence[str]],
        *,
        timezone: tzinfo = UTC,
        scrubber: Scrubber | None = None,
        most_calls: int = 1024,
        slow_seconds: float = 5.0,
        roles: Mapping[str, Sequence[str]] | None = None,
    ) -> None:
        self.admission = Admission(mesh_tokens)
        """Of all calls of the process, over whichever protocol they come."""
        self.recorder = Recorder()
        """Of the same calls."""
        self._scrubber = scrubber or Scrubber()
        self._timezone = timezone
        self._limits = most_calls, slow_seconds
        self._roles = roles or {}
        self._faults = meter().create_counter(
            MetricName.BODY_FAULTS, MetricName.BODY_FAULTS.unit, "Fields of JSON bodies that were ignored, or not read as written."
        )
        self._handlers: dict[str, Handler] = {}

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Returns the rpc's handler within the boundary; created at the method's first call."""
        path = handler_call_details.method
        handler = self._handlers.get(path)
        if handler is None:
            inner = await continuation(handler_call_details)
            if inner is None or path.startswith(_OPEN):
                return inner
            handler = self._handlers[path] = self._guard(self.method(path), inner)
        _metadata.set(handler_call_details.invocation_metadata)
        return handler

    def method(self, path: str) -> Method:
        """Returns what all calls of an rpc have in common.

        Args:
            path: `/package.Service/Method`.
        """
        roles = self._roles.get(path[1:].rpartition("/")[0], ())
        return Method(path, Limit(*self._limits), self._timezone, self._faults, roles)

    def _guard(self, method: Method, inner: Handler) -> Handler:
        answer_to = _in_time(method, self._work(method, inner), streams=inner.response_streaming)

        async def guarded(raw: bytes, context: Context) -> Message | None:
            metadata: dict[str, Any] = dict(_metadata.get())
            call = self.admission.call(method, metadata)
            current_call.set(call)
            act_as(method.role(metadata))
            answer: Message | None = None
            fault: BaseException | None = None
            with span(method.name, parent=metadata.get("traceparent", ""), kind=SpanKind.SERVER, attributes=method.attributes) as current:
                try:
                    admit(call)
                    answer = await answer_to(call, raw, context)
                    outcome = Outcome(context.code() or grpc.StatusCode.OK)
                except grpc.aio.AbortError as error:
                    outcome, fault = Outcome(context.code()), error
                except asyncio.CancelledError as error:
                    outcome, fault = Outcome(cancelled(context)), error
                except Exception as error:  # noqa: BLE001  (the boundary is where every error ends)
                    outcome, fault = outcome_of(error), error
                self.recorder.record(call, current, outcome.code, fault)
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

    def _work(self, method: Method, inner: Handler) -> _Work:
        """Returns what handles an admitted call: reads and checks its request, and calls the servicer."""
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

    def _checked(self, method: Method, parse: Callable[[bytes], Message], raw: bytes, notes: Notes) -> Message:
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
        body = method.body
        may_leave_out = body is not None and request.HasField("json_body") and not request.strict
        if body is not None:
            body.read(request, notes)
        if method.changes_state:
            forget_nobody(request, NOBODY)
        broken = validate(request)
        if body is not None and may_leave_out:
            broken = broken_still(request, broken, notes, body.prefix)
        if refused := notes.broken(broken):
            raise InvalidRequest(refused)
        if method.changes_state:
            # After the rules: an id of nobody satisfies the rule that requires an id, and a text may get longer by scrubbing.
            forget_nobody(request)
            self._scrubber.scrub(request)
        return request


def _respond(inner: Handler) -> _Respond | None:
    """Returns the servicer's method as one coroutine, whether its response is a single message or a stream."""
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


def _in_time(method: Method, work: _Work, *, streams: bool) -> _Answer:
    """Handles admitted calls if there is enough time left."""

    async def answer(call: Call, raw: bytes, context: Context) -> Message | None:
        # A stream lasts as long as its reader wants; calls within the mesh are few, and other calls wait for them.
        if streams or call.caller.internal:
            return await work(raw, context)
        left = cast("float | None", context.time_remaining())  # the stubs know deadlines only
        if left is not None and left < float(call.timeout) * _LEFT:
            raise Overloaded(BUSY)
        method.limit.begin()
        CALLS.begin()
        try:
            expect(left)
            return await work(raw, context)
        finally:
            CALLS.end()
            method.limit.end(call.started, perf_counter())

    return answer


def _too_large(bound: int) -> InvalidRequest:
    return InvalidRequest([Violation("", f"the request is larger than {bound} bytes")])
