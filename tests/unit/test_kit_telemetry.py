"""Telemetry: causes stay connected, nothing personal is recorded, and without a receiver nothing is done."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import socket
import urllib.request
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from enum import StrEnum
from pathlib import Path
from time import monotonic
from typing import Any

import grpc
import pytest
import structlog
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest, ExportTraceServiceResponse
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from pydantic import SecretStr
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from kit.errors import NotFound
from kit.settings import Settings
from kit.telemetry.errors import describe
from kit.telemetry.instrumentation import instrument
from kit.telemetry.names import Attribute, MetricName, SpanName
from kit.telemetry.setup import FLUSH_SECONDS, telemetry
from kit.telemetry.state import meter
from kit.telemetry.tracing import span, traceparent, tracing
from tests.servers import free_port

PERSONAL = "ada@example.com"
FIRST = "00-11111111111111111111111111111111-aaaaaaaaaaaaaaaa-01"
SECOND = "00-22222222222222222222222222222222-bbbbbbbbbbbbbbbb-01"
UNSAMPLED = "00-33333333333333333333333333333333-cccccccccccccccc-00"


def settings(**more: Any) -> Settings:
    return Settings(
        mesh_token=SecretStr("token"),
        vault_key=SecretStr(""),
        key_encryption_keys=SecretStr(""),
        database_url="sqlite+aiosqlite://",
        redis_url="redis://127.0.0.1",
        **more,
    )


class Spans:
    """What was exported; filled when the block ends."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()

    def __getitem__(self, name: str) -> ReadableSpan:
        (found,) = [each for each in self.exporter.get_finished_spans() if each.name == name]
        return found

    @property
    def names(self) -> list[str]:
        return [each.name for each in self.exporter.get_finished_spans()]


@contextmanager
def traced() -> Generator[Spans]:
    spans = Spans()
    with telemetry(settings(), "telemetry-test", exporters=[spans.exporter]):
        yield spans


def ids(finished: ReadableSpan) -> tuple[str, str]:
    assert finished.context is not None
    return f"{finished.context.trace_id:032x}", f"{finished.context.span_id:016x}"


def parent_id(finished: ReadableSpan) -> str:
    return f"{finished.parent.span_id:016x}" if finished.parent else ""


def lines(output: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in output.splitlines()]


def test_a_message_connects_what_wrote_it_with_what_reads_it() -> None:
    with traced() as spans:
        with span(SpanName.APPEND, kind=SpanKind.PRODUCER):
            carried = traceparent()
        with span(SpanName.CONSUME, parent=carried, kind=SpanKind.CONSUMER, attributes={Attribute.PARTITION: 3}):
            pass
    trace_id, span_id = ids(spans[SpanName.APPEND])
    assert carried.startswith(f"00-{trace_id}-{span_id}-0")
    assert ids(spans[SpanName.CONSUME])[0] == trace_id
    assert parent_id(spans[SpanName.CONSUME]) == span_id
    assert spans[SpanName.CONSUME].kind is SpanKind.CONSUMER
    assert spans[SpanName.CONSUME].attributes == {Attribute.PARTITION: 3}


def test_further_causes_are_linked_once_and_the_unsampled_are_left_out() -> None:
    with traced() as spans, span(SpanName.CONSUME, parent=FIRST, links=[FIRST, SECOND, UNSAMPLED, SECOND, "nonsense", ""]):
        pass
    consumed = spans[SpanName.CONSUME]
    assert parent_id(consumed) == "a" * 16
    assert [f"{link.context.trace_id:032x}" for link in consumed.links] == ["2" * 32]


def test_a_sampled_cause_is_followed_when_the_first_is_not_sampled() -> None:
    with traced() as spans, span(SpanName.CONSUME, parent=UNSAMPLED, links=[SECOND]):
        pass
    assert parent_id(spans[SpanName.CONSUME]) == "b" * 16


def test_what_nobody_samples_is_not_recorded_and_its_context_rides_along() -> None:
    with traced() as spans, span(SpanName.CONSUME, parent=UNSAMPLED) as current:
        assert not current.is_recording()
        assert traceparent().startswith("00-" + "3" * 32)
        assert traceparent().endswith("-00")
    assert spans.names == []


MALFORMED = [
    "",
    "nonsense",
    FIRST[:-1],
    FIRST + "0",
    FIRST.replace("1" * 32, "0" * 32),
    FIRST.replace("a" * 16, "0" * 16),
    "ff" + FIRST[2:],
    FIRST.upper(),
]


@pytest.mark.parametrize("parent", MALFORMED)
def test_a_malformed_context_is_no_context(parent: str) -> None:
    with telemetry(settings(), "telemetry-test"), span(SpanName.CONSUME, parent=parent):
        assert traceparent() == ""
    with traced() as spans, span(SpanName.CONSUME, parent=parent):
        pass
    assert spans[SpanName.CONSUME].parent is None


def test_without_a_receiver_nothing_is_recorded_and_the_context_rides_along() -> None:
    with telemetry(settings(), "telemetry-test"):
        assert not tracing()
        assert traceparent() == ""
        with span(SpanName.CONSUME, parent=FIRST) as outer:
            with span(SpanName.PUBLISH):
                assert traceparent() == FIRST
            with span(SpanName.PUBLISH, parent=SECOND):
                assert traceparent() == SECOND
            assert traceparent() == FIRST
        assert not outer.is_recording()
        assert traceparent() == ""


def test_an_error_marks_its_span_and_leaves_its_text_out() -> None:
    with traced() as spans, pytest.raises(LookupError), span(SpanName.CONSUME):
        raise LookupError(PERSONAL)
    failed = spans[SpanName.CONSUME]
    assert (failed.status.status_code, failed.attributes) == (StatusCode.ERROR, {Attribute.ERROR: "LookupError"})
    assert PERSONAL not in failed.to_json()


def test_telemetry_ends_with_its_block() -> None:
    with traced():
        with traced():
            assert tracing()
        assert tracing()
    assert not tracing()


def test_each_name_stands_for_one_thing() -> None:
    for kind in (SpanName, MetricName, Attribute):
        assert issubclass(kind, StrEnum)
        assert list(kind) == list(kind.__members__.values())


@asynccontextmanager
async def database(folder: Path) -> AsyncGenerator[AsyncEngine]:
    engine = create_async_engine(f"sqlite+aiosqlite:///{folder}/people.db", pool_size=2, max_overflow=0)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE people (email VARCHAR(99) PRIMARY KEY)"))
    instrument(engine)
    try:
        yield engine
    finally:
        await engine.dispose()


async def insert(engine: AsyncEngine) -> None:
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO people VALUES (:email)"), {"email": PERSONAL})


async def test_a_statement_is_a_span_without_its_values(tmp_path: Path) -> None:
    with traced() as spans:
        async with database(tmp_path) as engine:
            with span(SpanName.CONSUME):
                await insert(engine)
    statement = spans["INSERT"]
    assert parent_id(statement) == ids(spans[SpanName.CONSUME])[1]
    assert statement.kind is SpanKind.CLIENT
    assert statement.attributes == {
        Attribute.DB_SYSTEM: "sqlite",
        Attribute.DB_NAME: "people",
        Attribute.DB_STATEMENT: "INSERT INTO people VALUES (?)",
    }


async def test_a_statement_that_fails_is_a_failed_span_without_its_values(tmp_path: Path) -> None:
    with traced() as spans:
        async with database(tmp_path) as engine:
            await insert(engine)
            with span(SpanName.CONSUME), pytest.raises(IntegrityError):
                await insert(engine)
    statement = spans["INSERT"]
    assert statement.status.status_code is StatusCode.ERROR
    assert statement.attributes is not None
    assert statement.attributes[Attribute.ERROR] == "sqlite3.IntegrityError"
    assert PERSONAL not in statement.to_json()


async def test_statements_outside_of_a_trace_are_no_traces_of_their_own(tmp_path: Path) -> None:
    with traced() as spans:
        async with database(tmp_path) as engine:
            await insert(engine)
            with span(SpanName.CONSUME, parent=UNSAMPLED):
                assert (await (await engine.connect()).close()) is None
    assert spans.names == []


async def test_connections_in_use_are_measured(tmp_path: Path) -> None:
    reader = InMemoryMetricReader()
    with telemetry(settings(), "telemetry-test", readers=[reader]):
        async with database(tmp_path) as engine, engine.connect(), engine.connect():
            data = reader.get_metrics_data()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    (point,) = metric.data.data_points
    assert (metric.name, getattr(point, "value", None), point.attributes) == (MetricName.POOL_USED, 2, {Attribute.POOL: "people"})


async def scrape(port: int) -> str:
    def read() -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            return answer.read().decode()

    return await asyncio.to_thread(read)


async def test_prometheus_scrapes_what_was_measured() -> None:
    port = free_port()
    with telemetry(settings(metrics_port=port), "telemetry-test"):
        meter().create_counter(MetricName.DEAD_LETTERS).add(3, {Attribute.TOPIC: "events"})
        page = await scrape(port)
    assert 'pmp_dead_letters_total{messaging_destination_name="events"} 3.0' in page
    assert "process_resident_memory_bytes" in page
    assert 'service_name="telemetry-test"' in page
    with telemetry(settings(metrics_port=port), "telemetry-test"):
        assert "process_resident_memory_bytes" in await scrape(port)


def test_a_metrics_port_that_is_taken_is_an_error() -> None:
    with socket.socket() as taken:
        taken.bind(("0.0.0.0", 0))
        taken.listen()
        with pytest.raises(OSError, match="Address already in use"), telemetry(settings(metrics_port=taken.getsockname()[1]), "x"):
            pass


@asynccontextmanager
async def collector(received: list[ExportTraceServiceRequest]) -> AsyncGenerator[str]:
    """An OTLP receiver."""

    async def export(request: ExportTraceServiceRequest, _context: object) -> ExportTraceServiceResponse:
        received.append(request)
        return ExportTraceServiceResponse()

    handler = grpc.unary_unary_rpc_method_handler(
        export, ExportTraceServiceRequest.FromString, ExportTraceServiceResponse.SerializeToString
    )
    server = grpc.aio.server()
    service = "opentelemetry.proto.collector.trace.v1.TraceService"
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {"Export": handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_spans_reach_the_collector_before_the_process_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    received: list[ExportTraceServiceRequest] = []
    async with collector(received) as endpoint:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SERVICE_NAME", "renamed")

        def one_span() -> None:
            with telemetry(settings(), "telemetry-test"), span(SpanName.PUBLISH, parent=FIRST):
                pass

        await asyncio.to_thread(one_span)
    (resource,) = received[0].resource_spans
    attributes = {each.key: each.value.string_value for each in resource.resource.attributes}
    (sent,) = resource.scope_spans[0].spans
    assert attributes["service.name"] == "renamed"
    assert (sent.name, sent.trace_id.hex(), sent.parent_span_id.hex()) == (SpanName.PUBLISH, "1" * 32, "a" * 16)


@pytest.mark.parametrize("collector", ["down", "silent"])
def test_a_collector_that_takes_nothing_neither_holds_the_process_nor_fails_it(monkeypatch: pytest.MonkeyPatch, collector: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        if collector == "silent":
            silent.listen()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with telemetry(settings(metrics_port=free_port()), "telemetry-test"):
            meter().create_counter("counted").add(1)
            for _ in range(1000):  # more than one request has
                with span(SpanName.PUBLISH):
                    pass
            begun = monotonic()
        assert monotonic() - begun < 2 * FLUSH_SECONDS + 1


@pytest.mark.parametrize(("level", "logged"), [("debug", ["a", "b", "c"]), ("info", ["b", "c"]), ("warning", ["c"]), ("ERROR", [])])
def test_lines_below_the_level_are_left_out(level: str, logged: list[str], capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry(settings(log_level=level), "telemetry-test"):
        log = structlog.get_logger()
        log.debug("a")
        log.info("b")
        log.warning("c")
    assert [line["event"] for line in lines(capfd.readouterr().out)] == logged


def test_a_line_is_json_with_its_facts_level_and_time(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry(settings(), "telemetry-test"):
        structlog.get_logger().warning("full", topic="events", bytes=7, partitions={"0": 1}, path=Path("x"))
    (line,) = lines(capfd.readouterr().out)
    assert line.pop("time")[-1] == "Z"
    assert line == {"event": "full", "level": "warning", "topic": "events", "bytes": 7, "partitions": {"0": 1}, "path": "x"}


async def test_lines_linger_for_a_moment_and_a_warning_takes_them_along(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry(settings(), "telemetry-test"):
        log = structlog.get_logger()
        log.info("first")
        assert capfd.readouterr().out == ""
        log.warning("second")
        assert [line["event"] for line in lines(capfd.readouterr().out)] == ["first", "second"]
        log.info("third")
        await asyncio.sleep(0.3)
        assert [line["event"] for line in lines(capfd.readouterr().out)] == ["third"]
        log.info("fourth")
    assert [line["event"] for line in lines(capfd.readouterr().out)] == ["fourth"]


def test_a_line_longer_than_a_pipe_is_written_whole(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry(settings(), "telemetry-test"):
        structlog.get_logger().info("x" * 200_000)
    assert len(lines(capfd.readouterr().out)[0]["event"]) == 200_000


def test_what_libraries_log_takes_the_same_way(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry(settings(), "telemetry-test"):
        logging.getLogger("somebody.else").info("chatter")
        logging.getLogger("somebody.else").error("it %s", "failed", exc_info=LookupError(PERSONAL))
    output = capfd.readouterr()
    (line,) = lines(output.out)
    assert (line["event"], line["logger"], line["level"]) == ("it failed", "somebody.else", "error")
    assert "LookupError" in line["exception"]
    assert PERSONAL not in output.out + output.err


def _fail_for_a_reason() -> None:
    try:
        {}[PERSONAL]
    except KeyError as cause:
        raise ExceptionGroup(PERSONAL, [ValueError(PERSONAL), NotFound("no such event")]) from cause


def test_an_exception_is_logged_as_frames_and_types_with_its_causes(capfd: pytest.CaptureFixture[str]) -> None:
    with telemetry(settings(), "telemetry-test"):
        try:
            _fail_for_a_reason()
        except ExceptionGroup:
            structlog.get_logger().exception("failed")
    output = capfd.readouterr().out
    (line,) = lines(output)
    described = [each for each in line["exception"].splitlines() if not each.startswith(" ")]
    assert described == ["KeyError", "ExceptionGroup", "ValueError", "kit.errors.NotFound: no such event"]
    assert "test_kit_telemetry.py" in line["exception"]
    assert PERSONAL not in output


DESCRIBED = [
    (ValueError(PERSONAL), "ValueError"),
    (Exception(1062, f"Duplicate entry '{PERSONAL}'"), "Exception 1062"),
    (ConnectionRefusedError(111, "Connection refused"), "ConnectionRefusedError: [Errno 111] Connection refused"),
    (NotFound("no such event"), "kit.errors.NotFound: no such event"),
]


@pytest.mark.parametrize(("error", "described"), DESCRIBED, ids=lambda each: type(each).__name__)
def test_an_exception_is_described_by_type_and_number(error: Exception, described: str) -> None:
    assert describe(error) == described


def test_a_reader_that_went_away_does_not_fail_the_work() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    stdout = os.dup(1)
    try:
        with telemetry(settings(), "telemetry-test"):
            os.dup2(writing, 1)
            with pytest.raises(BrokenPipeError):
                os.write(1, b"the pipe is broken")
            structlog.get_logger().info("nobody reads this")
    finally:
        os.dup2(stdout, 1)
        for descriptor in (stdout, writing):
            os.close(descriptor)
