"""Logs, spans and metrics of a process, and the names of them all.

A log line never carries the text of an exception or a value of a person: exceptions are written as types and frames.
Spans cost nothing unless an OTLP endpoint is set, and a caller's trace context rides along all the same.
"""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import re
import sys
import traceback
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast
from weakref import WeakSet

import orjson
import structlog
from opentelemetry import trace
from opentelemetry.metrics import CallbackOptions, Meter, NoOpMeter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import INVALID_SPAN, Link, NonRecordingSpan, Span, SpanContext, SpanKind, StatusCode, TraceFlags, Tracer
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import QueuePool

from kit.errors import MeshError

if TYPE_CHECKING:
    from structlog.typing import EventDict, WrappedLogger

    from kit.settings import Settings


_Item = TypeVar("_Item")


class SpanName(StrEnum):
    """Names of spans. An rpc's span is named after its method, an SQL span after its verb."""

    APPEND = "log append"
    CONSUME = "log consume"
    PUBLISH = "outbox publish"


class MetricName(StrEnum):
    """Names of metrics, as OpenTelemetry writes them: Prometheus shows `_` for `.` and appends the unit."""

    CALL_DURATION = "rpc.server.call.duration"
    LOG_LAG = "pmp.log.lag"
    LOG_BYTES = "pmp.log.bytes"
    LOG_LIMIT = "pmp.log.limit"
    LOG_DISK_FREE = "pmp.log.disk.free"
    OUTBOX_PENDING = "pmp.outbox.pending"
    DEAD_LETTERS = "pmp.dead_letters"
    BOOKS = "pmp.books"
    REPORT_AGE = "pmp.report.age"
    REQUEST_LEFT = "pmp.gdpr.request.left"
    STEPS_OVERDUE = "pmp.gdpr.steps.overdue"
    BODY_FAULTS = "pmp.body.faults"
    POOL_USED = "db.client.connection.count"


class Attribute(StrEnum):
    """Names of attributes of spans and metrics: OpenTelemetry's own where it has one."""

    RPC_METHOD = "rpc.method"
    RPC_STATUS = "rpc.response.status_code"
    CLIENT = "pmp.client"
    SCOPE = "pmp.scope"
    TOPIC = "messaging.destination.name"
    PARTITION = "messaging.destination.partition.id"
    MESSAGES = "messaging.batch.message_count"
    POSITION = "pmp.log.position"
    ACCOUNT = "pmp.account"
    SOURCE = "pmp.report.source"
    DB_SYSTEM = "db.system.name"
    DB_STATEMENT = "db.query.text"
    DB_NAME = "db.namespace"
    FAULT = "pmp.fault"
    POOL = "db.client.connection.pool.name"
    ERROR = "error.type"


class _Process:
    """The telemetry of this process: replaced by `telemetry`, off outside of it."""

    def __init__(self) -> None:
        self.tracer: Tracer | None = None
        self.meter: Meter = NoOpMeter("pmp")
        self.lingering: WeakSet[Lingering[Any]] = WeakSet()


_SCOPE = "pmp"
_LINGER_SECONDS = 0.02
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})", re.ASCII)
_process = _Process()
_incoming: ContextVar[str] = ContextVar("traceparent", default="")


@contextmanager
def telemetry(
    settings: Settings, service: str, *, exporters: Sequence[SpanExporter] = (), readers: Sequence[MetricReader] = ()
) -> Generator[None]:
    """Logs, and traces and measures if asked to, until the block ends; then everything is flushed.

    Args:
        settings: `log_level` and `metrics_port`. `OTEL_*` in the environment is the SDK's.
        service: `service.name` of the telemetry unless OTEL_SERVICE_NAME names another.
        exporters: Receivers of spans besides the OTLP endpoint.
        readers: Readers of metrics besides Prometheus and the OTLP endpoint.

    Raises:
        OSError: The metrics port is taken.
    """
    flush = log_to_stdout(settings.log_level)
    resource = Resource.create({SERVICE_NAME: os.environ.get("OTEL_SERVICE_NAME") or service})
    before = _process.tracer, _process.meter
    with ExitStack() as stack:
        stack.callback(flush)
        stack.callback(_restore, *before)
        _measure(stack, settings, resource, readers)
        _trace(stack, resource, exporters)
        stack.callback(_end_lingering)
        yield


def _end_lingering() -> None:
    for lingering in list(_process.lingering):
        lingering.flush()


def _restore(tracer: Tracer | None, meter: Meter) -> None:
    _process.tracer, _process.meter = tracer, meter


def _trace(stack: ExitStack, resource: Resource, exporters: Sequence[SpanExporter]) -> None:
    exporters = [*exporters, *_otlp_spans()]
    if not exporters:
        return
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(exporter))
    stack.callback(provider.shutdown)
    _process.tracer = provider.get_tracer(_SCOPE)


def _measure(stack: ExitStack, settings: Settings, resource: Resource, readers: Sequence[MetricReader]) -> None:
    readers = [*readers, *_otlp_metrics(), *_prometheus(stack, settings)]
    if not readers:
        return
    provider = MeterProvider(readers, resource, exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
    stack.callback(provider.shutdown)
    _process.meter = provider.get_meter(_SCOPE)


def _otlp_spans() -> Iterator[SpanExporter]:
    if _endpoint("TRACES"):
        # The exporters bring a gRPC client and its protos along: only loaded where they are used.
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

        yield OTLPSpanExporter()


def _otlp_metrics() -> Iterator[MetricReader]:
    if _endpoint("METRICS"):
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter  # noqa: PLC0415

        yield PeriodicExportingMetricReader(OTLPMetricExporter())


def _endpoint(signal: str) -> bool:
    return any(os.environ.get(name) for name in ("OTEL_EXPORTER_OTLP_ENDPOINT", f"OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"))


def _prometheus(stack: ExitStack, settings: Settings) -> Iterator[MetricReader]:
    if settings.metrics_port:
        from opentelemetry.exporter.prometheus import PrometheusMetricReader  # noqa: PLC0415
        from prometheus_client import CollectorRegistry, ProcessCollector, start_http_server  # noqa: PLC0415

        registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        server, thread = start_http_server(settings.metrics_port, settings.listen.rpartition(":")[0].strip("[]"), registry)
        stack.callback(thread.join)
        stack.callback(server.server_close)
        stack.callback(server.shutdown)
        yield PrometheusMetricReader(registry=registry, scope_info_enabled=False)


def tracing() -> bool:
    """Whether spans of this process go anywhere."""
    return _process.tracer is not None


def meter() -> Meter:
    """What makes instruments. Ask inside of `telemetry`: outside of it, instruments record nothing."""
    return _process.meter


def traceparent() -> str:
    """W3C trace context to hand on with a message: of the current span, else what the caller sent, else empty."""
    if _process.tracer is not None:
        context = trace.get_current_span().get_span_context()
        if context.is_valid:
            return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    return _incoming.get()


def span(
    name: str,
    *,
    parent: str = "",
    links: Sequence[str] = (),
    kind: SpanKind = SpanKind.INTERNAL,
    attributes: Mapping[str, str | int] | None = None,
) -> AbstractContextManager[Span]:
    """A span around the block, current within it; an exception's type becomes its error, never its text.

    Args:
        name: One of `SpanName`, or the method of an rpc.
        parent: traceparent of the cause; empty or malformed: the current span. When it is not sampled and a link is, the link.
        links: traceparents of further causes; those not sampled are left out.
        kind: What OpenTelemetry calls it: a server, a client, a producer, a consumer.
        attributes: Named in `Attribute`.
    """
    tracer = _process.tracer
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
    """A span of a process that records none: hands the cause's context on."""

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
            _fail(current, error)
            raise


def _fail(span: Span, error: BaseException) -> None:
    span.set_attribute(Attribute.ERROR, _type(error))
    span.set_status(StatusCode.ERROR)


def _context(traceparent: str) -> SpanContext | None:
    match = _TRACEPARENT.fullmatch(traceparent)
    if match is None:
        return None
    trace_id, span_id, flags = match.groups()
    return SpanContext(int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16)))


def instrument(engine: AsyncEngine) -> None:
    """Spans for the engine's statements (text without values) inside of a recorded span, and a gauge of its pool."""
    sync = engine.sync_engine
    name = Path(sync.url.database or "").stem
    if isinstance(sync.pool, QueuePool):
        meter().create_observable_gauge(
            MetricName.POOL_USED, [partial(_pool_use, sync.pool, {Attribute.POOL: name})], "{connection}", "Connections in use."
        )
    if tracing():
        attributes: dict[str, str] = {Attribute.DB_SYSTEM: sync.dialect.name, Attribute.DB_NAME: name}
        event.listen(sync, "before_cursor_execute", partial(_statement_begins, attributes))
        event.listen(sync, "after_cursor_execute", _statement_ends)
        event.listen(sync, "handle_error", _statement_fails)


def _pool_use(pool: QueuePool, attributes: Mapping[str, str], _options: CallbackOptions) -> Iterator[Observation]:
    yield Observation(pool.checkedout(), attributes)


def _statement_begins(
    attributes: Mapping[str, str], _connection: Any, _cursor: Any, statement: str, _parameters: Any, context: Any, _many: bool
) -> None:
    # Polling outside of any trace would fill the store with traces of one statement.
    if _process.tracer is not None and trace.get_current_span().is_recording():
        context.kit_span = _process.tracer.start_span(
            statement.split(None, 1)[0].upper(), kind=SpanKind.CLIENT, attributes={**attributes, Attribute.DB_STATEMENT: statement}
        )


def _statement_ends(_connection: Any, _cursor: Any, _statement: str, _parameters: Any, context: Any, _many: bool) -> None:
    current: Span | None = getattr(context, "kit_span", None)
    if current is not None:
        current.end()


def _statement_fails(failure: Any) -> None:
    current: Span | None = getattr(failure.execution_context, "kit_span", None)
    if current is not None and current.is_recording():
        _fail(current, failure.original_exception)
        current.end()


def log_to_stdout(level: str) -> Callable[[], None]:
    """Log lines from `level` on: JSON, or for people when stdout is a terminal. Libraries from `warning` on.

    Returns:
        What writes the lines that still linger.
    """
    threshold = logging.getLevelNamesMapping()[level.upper()]
    terminal = sys.stdout.isatty()
    stdout = _Stdout()
    structlog.configure(
        processors=[structlog.processors.add_log_level, _complete, structlog.dev.ConsoleRenderer() if terminal else _json],
        wrapper_class=structlog.make_filtering_bound_logger(threshold),
        logger_factory=structlog.PrintLoggerFactory() if terminal else lambda *_names: stdout,
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(handlers=[_Forward()], level=max(threshold, logging.WARNING), force=True)
    return stdout.flush


class Lingering(Generic[_Item]):
    """Gathers what need not be done at once, so that what an event loop's next moment brings is done together.

    Done between one call and the next, it costs several times as much: its code has left the processor's caches by then.
    When `telemetry` ends, nothing lingers any more.

    Args:
        do: does it, with one item or more, under a lock: it must not fail, nor add to what it does.
        seconds: how long items linger.
    """

    def __init__(self, do: Callable[[Sequence[_Item]], None], seconds: float = _LINGER_SECONDS) -> None:
        self._do = do
        self._seconds = seconds
        self._items: list[_Item] = []
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        _process.lingering.add(self)

    def add(self, item: _Item) -> None:
        """Takes an item; without an event loop it does not linger."""
        with self._lock:
            self._items.append(item)
            first = len(self._items) == 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if first or loop is not self._loop:  # a loop that ended took its timers with it
            self._loop = loop
            loop.call_later(self._seconds, self.flush)

    def flush(self) -> None:
        """Does what has lingered until now."""
        with self._lock:
            items, self._items = self._items, []
            if items:
                self._do(items)


class _Stdout:
    """Writes lines to stdout, those that linger together: each write gives the interpreter's lock away, which costs more than the line.

    What matters (`warning` and above) goes out at once.
    """

    def __init__(self) -> None:
        self._descriptor = sys.__stdout__.fileno() if sys.__stdout__ else 1
        self._lines: Lingering[bytes] = Lingering(self._write)
        atexit.register(self.flush)

    def info(self, line: bytes) -> None:
        self._lines.add(line)

    def error(self, line: bytes) -> None:
        self._lines.add(line)
        self.flush()

    def flush(self) -> None:
        self._lines.flush()

    def _write(self, lines: Sequence[bytes]) -> None:
        rest = memoryview(b"".join(line + b"\n" for line in lines))
        with suppress(OSError):  # nobody reads any more, or the disk is full: no reason to fail a call
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]

    debug = msg = info
    warning = critical = error


class _Forward(logging.Handler):
    """Sends what libraries log through the same pipeline."""

    def emit(self, record: logging.LogRecord) -> None:
        structlog.get_logger().log(record.levelno, record.getMessage(), logger=record.name, exc_info=record.exc_info)


def _json(_logger: WrappedLogger, _method: str, line: EventDict) -> bytes:
    return orjson.dumps(line, default=str, option=orjson.OPT_UTC_Z | orjson.OPT_NON_STR_KEYS)


def _complete(_logger: WrappedLogger, _method: str, line: EventDict) -> EventDict:
    """Adds the time, unless the line tells of an earlier one, and puts frames in the place of an exception."""
    if "time" not in line:
        line["time"] = datetime.now(UTC)
    if "exc_info" in line:
        error = _exception(line.pop("exc_info"))
        if error is not None:
            line["exception"] = "".join(_frames(error))
    return line


def _exception(exc_info: Any) -> BaseException | None:
    match exc_info:
        case BaseException() as error:
            return error
        case (_, BaseException() as error, _):
            return error
        case True:
            return sys.exception()
        case _:
            return None


def _frames(error: BaseException) -> Iterator[str]:
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None:
        yield from _frames(cause)
    yield from traceback.format_tb(error.__traceback__)
    yield f"{describe(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for each in cast("BaseExceptionGroup[BaseException]", error).exceptions:
            yield from _frames(each)


def describe(error: BaseException) -> str:
    """An exception in a log line: its type and number. Text only of those whose text is never personal."""
    if isinstance(error, MeshError | OSError):
        return f"{_type(error)}: {error}"
    number = next((detail for detail in error.args[:1] if isinstance(detail, int)), getattr(error, "sqlite_errorname", ""))
    return f"{_type(error)} {number}".rstrip()


def _type(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}".removeprefix("builtins.")
