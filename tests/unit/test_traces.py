"""Spans in files and in backends, and the tree that they are printed as."""

from __future__ import annotations

import io
import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Status
from rich.console import Console
from typing_extensions import override

from cli.errors import CommandFailed
from cli.traces.backend import fetch
from cli.traces.files import SpanFiles, find_in, line_of
from cli.traces.spans import Span
from cli.traces.tree import arrange, as_json, print_trace

TRACE, OTHER = "4bf92f3577b34da6a3ce929d0e0e4736", "0af7651916cd43dd8448eb211c80319c"
MILLISECOND = 1_000_000
START = 1_795_000_000_000_000_000


def id_of(number: int) -> str:
    return f"{number:016x}"


def span(number: int, parent: int = 0, *, at: int = 0, lasts: int = 1, name: str = "work", **more: Any) -> Span:
    """A span of the service `shop`, with times in milliseconds."""
    begins = START + at * MILLISECOND
    own: dict[str, Any] = {"trace_id": TRACE, "parent_id": id_of(parent) if parent else "", "attributes": {}, **more}
    return Span(span_id=id_of(number), service="shop", name=name, start=begins, end=begins + lasts * MILLISECOND, **own)


def exported(*spans: Span) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource = request.resource_spans.add()
    resource.resource.attributes.add(key="service.name").value.string_value = "shop"
    scope = resource.scope_spans.add()
    for each in spans:
        own = scope.spans.add(name=each.name, start_time_unix_nano=each.start, end_time_unix_nano=each.end)
        own.trace_id, own.span_id, own.parent_span_id = (bytes.fromhex(text) for text in (each.trace_id, each.span_id, each.parent_id))
        for key, value in each.attributes.items():
            own.attributes.add(key=key).value.string_value = value
        for trace_id, span_id in each.links:
            own.links.add(trace_id=bytes.fromhex(trace_id), span_id=bytes.fromhex(span_id))
        if each.failed:
            own.status.code = Status.STATUS_CODE_ERROR
    return request


@pytest.fixture
def kept(tmp_path: Path) -> SpanFiles:
    return SpanFiles(tmp_path)


def test_spans_are_found_as_they_were_exported(kept: SpanFiles) -> None:
    own = [span(1, attributes={"rpc.method": "Track"}), span(2, 1, at=3, lasts=4, failed=True)]
    kept.append(line_of(exported(own[0], span(9, trace_id=OTHER))))
    kept.append(line_of(exported(own[1])))
    assert kept.find(TRACE) == own
    assert kept.find("f" * 32) == []


def test_what_follows_from_a_trace_in_another_one_belongs_to_it(kept: SpanFiles) -> None:
    batch = span(3, 50, trace_id=OTHER, at=5, links=((TRACE, id_of(1)),), attributes={"messaging.batch.message_count": "7"})
    statement = span(4, 3, trace_id=OTHER, at=6)
    strangers = [span(50, trace_id=OTHER), span(51, 50, trace_id=OTHER)]
    kept.append(line_of(exported(*strangers, statement)))
    kept.append(line_of(exported(span(1), batch)))
    found = kept.find(TRACE)
    assert {each.span_id for each in found} == {id_of(1), id_of(3), id_of(4)}
    (root,) = arrange(TRACE, found)
    assert [part.span.span_id for part in root.parts] == [id_of(3)]
    assert [part.span.span_id for part in root.parts[0].parts] == [id_of(4)]


def test_files_stay_within_their_bound_and_keep_the_newest(tmp_path: Path) -> None:
    line = line_of(exported(span(1)))
    kept = SpanFiles(tmp_path, 10 * len(line))
    for number in range(100):
        kept.append(line_of(exported(span(number + 1))))
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) <= 10 * len(line)
    numbers = [int(each.span_id, 16) for each in kept.find(TRACE)]
    assert numbers == list(range(min(numbers), 101))
    assert len(numbers) >= 4
    assert all(path.stat().st_mode & 0o077 == 0 for path in tmp_path.iterdir())


def test_a_line_that_is_half_written_is_left_out(tmp_path: Path, kept: SpanFiles) -> None:
    kept.append(line_of(exported(span(1))))
    with (tmp_path / "spans.jsonl").open("ab") as file:
        file.write(line_of(exported(span(2)))[:-20])
    assert [each.span_id for each in kept.find(TRACE)] == [id_of(1)]


def test_files_without_spans_are_reported(tmp_path: Path, kept: SpanFiles) -> None:
    with pytest.raises(CommandFailed, match="start the mesh with `pmp up --traces`"):
        kept.find(TRACE)
    file = tmp_path / "other.jsonl"
    file.write_text(f'["{TRACE}"]\n')
    with pytest.raises(CommandFailed, match="does not hold spans as lines of OTLP in JSON"):
        find_in([file], TRACE)


SPANS = [
    span(1, 99, lasts=5, name="POST"),
    span(2, 1, at=1, lasts=3, name="Track"),
    span(3, 2, at=14, lasts=10, name="log consume", attributes={"messaging.destination.name": "events"}),
    span(4, 3, at=15, lasts=2, name="INSERT", attributes={"db.query.text": "INSERT INTO\n  events"}),
    span(5, 3, at=18, lasts=1, name="UPDATE", attributes={"db.query.text": "UPDATE books"}, failed=True),
]


def printed(*, statements: bool) -> list[str]:
    text = io.StringIO()
    print_trace(Console(file=text, width=200), TRACE, SPANS[::-1], statements=statements)
    return text.getvalue().splitlines()


def test_a_tree_has_durations_and_the_pauses_between_cause_and_consequence() -> None:
    assert printed(statements=False) == [
        "5 spans of 1 services in 24.0 ms from 2026-11-18 11:06:40.000000 UTC on",
        "└── shop POST 5.0 ms",
        "    └── shop Track 3.0 ms",
        "        └── shop log consume 10.0 ms, 10.0 ms later (events)",
        "            └── SQL: 2 statements in 3.0 ms",
    ]


def test_statements_are_shown_when_asked_for() -> None:
    assert printed(statements=True)[-2:] == [
        "            ├── shop INSERT 2.0 ms INSERT INTO events",
        "            └── shop UPDATE 1.0 ms UPDATE books failed",
    ]


def test_spans_for_programs_are_in_order() -> None:
    assert [each["name"] for each in as_json(SPANS[::-1])] == ["POST", "Track", "log consume", "INSERT", "UPDATE"]


def tempo(spans: list[Span]) -> Any:
    """As Tempo shows a trace: ids in base64."""
    document: Any = json.loads(line_of(exported(*spans)))
    for scope in (scope for resource in document["resourceSpans"] for scope in resource["scopeSpans"]):
        for each in scope["spans"]:
            each |= {name: b64encode(bytes.fromhex(each[name])).decode() for name in ("traceId", "spanId", "parentSpanId") if name in each}
            each["status"] = {"code": "STATUS_CODE_ERROR"} if each.get("status") else {}
    return {"batches": document["resourceSpans"]}


def jaeger(spans: list[Span]) -> Any:
    def one(each: Span) -> dict[str, Any]:
        tags = [{"key": key, "type": "string", "value": value} for key, value in each.attributes.items()]
        return {
            "traceID": each.trace_id,
            "spanID": each.span_id,
            "operationName": each.name,
            "references": [{"refType": "CHILD_OF", "traceID": each.trace_id, "spanID": each.parent_id}] if each.parent_id else [],
            "startTime": each.start // 1000,
            "duration": (each.end - each.start) // 1000,
            "tags": [*tags, *([{"key": "error", "type": "bool", "value": True}] if each.failed else [])],
            "processID": "p1",
        }

    return {"data": [{"traceID": TRACE, "spans": [one(each) for each in spans], "processes": {"p1": {"serviceName": "shop"}}}]}


class Backend:
    """Answers with what a test sets."""

    url = ""
    status = 200
    answer: Any = None
    asked: str = ""


@pytest.fixture
def backend() -> Iterator[Backend]:
    backend = Backend()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            backend.asked = f"{self.path} {self.headers['accept']}"
            self.send_response(backend.status)
            self.end_headers()
            self.wfile.write(json.dumps(backend.answer).encode())

        @override
        def log_message(self, format: str, *args: Any) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        backend.url = f"http://127.0.0.1:{server.server_port}/"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield backend
        server.shutdown()


@pytest.mark.parametrize("document", [tempo, jaeger])
async def test_jaeger_and_tempo_show_the_same_trace(backend: Backend, document: Any) -> None:
    backend.answer = document(SPANS)
    found = await fetch(backend.url, TRACE)
    assert backend.asked == f"/api/traces/{TRACE} application/json"
    assert [(e.trace_id, e.span_id, e.parent_id, e.service, e.name, e.start, e.end, e.failed) for e in found] == [
        (e.trace_id, e.span_id, e.parent_id, e.service, e.name, e.start, e.end, e.failed) for e in SPANS
    ]
    assert found[2].attributes["messaging.destination.name"] == "events"


async def test_a_trace_that_the_backend_does_not_know_has_no_spans(backend: Backend) -> None:
    backend.status, backend.answer = 404, {"errors": [{"msg": "trace not found"}]}
    assert await fetch(backend.url, TRACE) == []


@pytest.mark.parametrize(
    ("status", "answer", "reason"), [(500, {}, "HTTP 500"), (200, {"spans": []}, "is it Jaeger or Tempo"), (200, [], "is it")]
)
async def test_a_backend_that_shows_no_trace_is_reported(backend: Backend, status: int, answer: Any, reason: str) -> None:
    backend.status, backend.answer = status, answer
    with pytest.raises(CommandFailed, match=reason):
        await fetch(backend.url, TRACE)


async def test_a_backend_that_is_down_is_reported() -> None:
    with pytest.raises(CommandFailed, match="does not answer: ConnectError"):
        await fetch("http://127.0.0.1:1", TRACE)
