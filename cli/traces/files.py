"""The files in which a local mesh keeps its spans: a line of OTLP in JSON for each export, and a bound on their size.

https://opentelemetry.io/docs/specs/otel/protocol/file-exporter/: what the OpenTelemetry collector's file exporter writes is read as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import orjson
from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from cli.errors import CommandFailed
from cli.traces.spans import Span, of_otlp

MOST_BYTES: Final = 64 * 2**20
"""Size of all files together."""
_CURRENT: Final = "spans.jsonl"
_OLDER: Final = "spans.1.jsonl"
_IDS: Final = ("traceId", "spanId", "parentSpanId")


class SpanFiles:
    """The files in a folder: the current one, and the one before it.

    Args:
        folder: exists.
        most_bytes: their size together; the older one is dropped when the current one has half of it.
    """

    def __init__(self, folder: Path, most_bytes: int = MOST_BYTES) -> None:
        self._current = folder / _CURRENT
        self._older = folder / _OLDER
        self._most = most_bytes // 2

    def append(self, line: bytes) -> None:
        """Appends a line.

        Raises:
            OSError: it can't be written.
        """
        descriptor = os.open(self._current, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            if os.fstat(descriptor).st_size + len(line) >= self._most and os.fstat(descriptor).st_size:
                self._current.replace(self._older)
                os.close(descriptor)
                descriptor = os.open(self._current, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
            os.write(descriptor, line + b"\n")
        finally:
            os.close(descriptor)

    def find(self, trace_id: str) -> list[Span]:
        """Returns the spans of a trace, and those that followed from it in other traces.

        Raises:
            CommandFailed: there are no files, or they hold no spans.
        """
        return find_in((self._older, self._current), trace_id)


def find_in(files: Sequence[Path], trace_id: str) -> list[Span]:
    """Returns the spans of a trace in files, and those that followed from it in other traces; files that do not exist are left out.

    Raises:
        CommandFailed: none of them exists, or one holds something else.
    """
    existing = [path for path in files if path.is_file()]
    if not existing:
        where = " or ".join(map(str, files))
        raise CommandFailed(f"there are no spans in {where}: start the mesh with `pmp up --traces`, or name a --backend or a --file")
    named = [*_spans(existing, {trace_id})]
    own = [span for span in named if span.trace_id == trace_id]
    linked = [span for span in named if any(of == trace_id for of, _ in span.links)]
    others = [*_spans(existing, {span.trace_id for span in linked})] if linked else []
    return [*own, *_below(linked, others)]


def line_of(exported: ExportTraceServiceRequest) -> bytes:
    """Returns an export as a line of OTLP in JSON, which has ids in hex where protobuf's own has them in base64."""
    document = MessageToDict(exported, use_integers_for_enums=True)
    for resource, own in zip(document.get("resourceSpans", ()), exported.resource_spans, strict=True):
        for scope, spans in zip(resource.get("scopeSpans", ()), own.scope_spans, strict=True):
            for each, span in zip(scope.get("spans", ()), spans.spans, strict=True):
                _write_ids(each, span.trace_id, span.span_id, span.parent_span_id)
                for link, cause in zip(each.get("links", ()), span.links, strict=True):
                    _write_ids(link, cause.trace_id, cause.span_id)
    return orjson.dumps(document)


def _write_ids(document: dict[str, Any], *ids: bytes) -> None:
    document.update({name: value.hex() for name, value in zip(_IDS, ids, strict=False) if value})


def _spans(files: Sequence[Path], trace_ids: set[str]) -> Iterator[Span]:
    """Yields the spans in lines that name one of the traces."""
    wanted = [trace_id.encode() for trace_id in trace_ids]
    for path in files:
        with path.open("rb") as lines:
            for line in lines:
                # The last line may only be half written.
                if line.endswith(b"\n") and any(trace_id in line for trace_id in wanted):
                    try:
                        yield from of_otlp(orjson.loads(line))
                    except (AttributeError, KeyError, TypeError, ValueError) as error:
                        raise CommandFailed(f"{path} does not hold spans as lines of OTLP in JSON") from error


def _below(roots: Sequence[Span], spans: Sequence[Span]) -> list[Span]:
    """Returns spans, and all that are a part or a consequence of them."""
    found = {span.span_id: span for span in roots}
    more = True
    while more:
        below = {span.span_id: span for span in spans if span.parent_id in found and span.span_id not in found}
        more = bool(below)
        found |= below
    return [*found.values()]
