"""Spans, and the propagation of trace context."""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token

from opentelemetry import trace
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags

from kit.telemetry.errors import error_type
from kit.telemetry.names import Attribute
from kit.telemetry.state import state

_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_incoming: ContextVar[str] = ContextVar("traceparent", default="")


def tracing() -> bool:
    """True if spans of this process are exported."""
    return state.tracer is not None


def traceparent() -> str:
    """Returns the W3C trace context to propagate: of the current span, else of the caller, else empty."""
    if state.tracer is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return _incoming.get()


def trace_id_of(traceparent: str) -> str:
    """Returns the id of the trace that a W3C trace context continues, in hex; empty if there is none or it is malformed."""
    match = _TRACEPARENT.fullmatch(traceparent)
    return match[1] if match else ""


def span(
    name: str,
    *,
    parent: str = "",
    links: Sequence[str] = (),
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int] | None = None,
) -> AbstractContextManager[Span]:
    """Records a span around the block, current within it; of an exception only the type is recorded, never the text.

    Args:
        name: One of `SpanName`, or the method of an rpc.
        parent: traceparent of the cause; empty or malformed: the current span. When it is not sampled and a link is, the link.
        links: traceparents of further causes; those not sampled are left out.
        kind: As in OpenTelemetry: server, client, producer, consumer.
        attributes: Named in `Attribute`.
    """
    tracer = state.tracer
    if tracer is None:
        return _Unrecorded(parent)
    origin = _context(parent)
    causes = [cause for cause in map(_context, dict.fromkeys(links)) if cause and cause.trace_flags.sampled]
    if origin and causes and not origin.trace_flags.sampled:
        origin = causes.pop(0)
    return _recorded(
        tracer.start_span(
            name,
            context=trace.set_span_in_context(NonRecordingSpan(origin)) if origin else None,
            kind=kind,
            attributes=attributes,
            links=[Link(cause) for cause in causes if cause != origin],
        )
    )


class _Unrecorded:
    """A span of a process that records none: propagates the parent's context."""

    __slots__ = ("_parent", "_token")

    def __init__(self, parent: str) -> None:
        self._parent = parent
        self._token: Token[str] | None = None

    def __enter__(self) -> Span:
        if self._parent and _TRACEPARENT.fullmatch(self._parent):
            self._token = _incoming.set(self._parent)
        return INVALID_SPAN

    def __exit__(self, *_error: object) -> None:
        if self._token is not None:
            _incoming.reset(self._token)


@contextmanager
def _recorded(current: Span) -> Generator[Span]:
    with trace.use_span(current, end_on_exit=True, record_exception=False, set_status_on_exception=False):
        try:
            yield current
        except Exception as error:
            fail(current, error)
            raise


def fail(span: Span, error: BaseException) -> None:
    """Marks a span as failed, by the type of the error."""
    span.set_attribute(Attribute.ERROR, error_type(error))
    span.set_status(StatusCode.ERROR)


def _context(traceparent: str) -> SpanContext | None:
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))
