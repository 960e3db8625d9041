"""Starts and ends the telemetry of a process."""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from threading import Timer
from typing import TYPE_CHECKING, Final

import structlog
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace import Tracer

from kit.telemetry.deferred import flush_all
from kit.telemetry.errors import describe
from kit.telemetry.log_lines import log_to_stdout
from kit.telemetry.names import Attribute
from kit.telemetry.state import SCOPE, state
from kit.telemetry.version import installed_version

if TYPE_CHECKING:
    from kit.settings import Settings

FLUSH_SECONDS: Final = 3.0
"""How long spans, and metrics, are still sent at the end. Without a collector the SDK alone would try for 30 s: all the time of a pod."""
_log = structlog.get_logger(__name__)


@contextmanager
def telemetry(
    settings: Settings, *roles: str, exporters: Sequence[SpanExporter] = (), readers: Sequence[MetricReader] = ()
) -> Generator[None]:
    """Logs, and traces and measures if configured, until the block ends; then what is left is sent, for `FLUSH_SECONDS`.

    Args:
        settings: `log_level` and `metrics_port`. `OTEL_*` in the environment is the SDK's.
        roles: The roles of the process. Unless OTEL_SERVICE_NAME names another, a span has the name of its role as `service.name`;
            metrics, and spans of work that belongs to no role, have the names of all of them, joined by `+`.
        exporters: Receivers of spans besides the OTLP endpoint.
        readers: Readers of metrics besides Prometheus and the OTLP endpoint.

    Raises:
        OSError: The metrics port is taken.
    """
    flush = log_to_stdout(settings.log_level)
    process = os.environ.get("OTEL_SERVICE_NAME") or "+".join(roles)
    names = {"": process, **{role: os.environ.get("OTEL_SERVICE_NAME") or role for role in roles}}
    before = state.tracers, state.meters
    with ExitStack() as stack:
        stack.callback(flush)
        stack.callback(_restore, *before)
        _measure(stack, settings, names, readers)
        _trace(stack, names, exporters)
        stack.callback(flush_all)
        yield


def _restore(tracers: Mapping[str, Tracer], meters: Mapping[str, Meter]) -> None:
    state.tracers, state.meters = tracers, meters


def _resource(service: str) -> Resource:
    return Resource.create({SERVICE_NAME: service, SERVICE_VERSION: installed_version()})


def _trace(stack: ExitStack, names: Mapping[str, str], exporters: Sequence[SpanExporter]) -> None:
    exporters = [*exporters, *_otlp_spans()]
    if not exporters:
        return
    processors = [BatchSpanProcessor(exporter) for exporter in exporters]
    providers = {name: TracerProvider(resource=_resource(name), shutdown_on_exit=False) for name in set(names.values())}
    for provider in providers.values():
        for processor in processors:
            provider.add_span_processor(processor)
        stack.callback(_end_spans, provider, exporters)
    state.tracers = {role: providers[name].get_tracer(SCOPE) for role, name in names.items()}


def _end_spans(provider: TracerProvider, exporters: Sequence[SpanExporter]) -> None:
    """Sends what is left for `FLUSH_SECONDS`; an exporter that is shut down gives up what it is trying."""

    def give_up() -> None:
        for exporter in exporters:
            exporter.shutdown()

    timer = Timer(FLUSH_SECONDS, give_up)
    timer.start()
    provider.shutdown()
    timer.cancel()


def _measure(stack: ExitStack, settings: Settings, names: Mapping[str, str], readers: Sequence[MetricReader]) -> None:
    readers = [*readers, *_otlp_metrics(), *_prometheus(stack, settings)]
    if not readers:
        return
    provider = MeterProvider(readers, _resource(names[""]), exemplar_filter=AlwaysOffExemplarFilter(), shutdown_on_exit=False)
    stack.callback(_end_metrics, provider)
    state.meters = {role: provider.get_meter(SCOPE, attributes={Attribute.ROLE: role} if role else None) for role in names}


def _end_metrics(provider: MeterProvider) -> None:
    """Sends the last figures for `FLUSH_SECONDS`. A receiver that does not take them is no failure of the process."""
    try:
        provider.shutdown(FLUSH_SECONDS * 1000)
    except Exception as error:  # noqa: BLE001 (what the SDK raises for any reader)
        _log.warning("last metrics not sent", error=describe(error))


def _otlp_spans() -> Iterator[SpanExporter]:
    if _endpoint("TRACES"):
        # The exporters load a gRPC client and its protos: only imported where they are used.
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
