"""Spans, as OTLP in JSON and Jaeger describe them.

https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding, and what Tempo makes of it: `batches`, and ids in base64.
"""

from __future__ import annotations

from base64 import b64decode
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

TRACE_BYTES: Final = 16
SPAN_BYTES: Final = 8
_FAILED: Final = frozenset({2, "STATUS_CODE_ERROR"})
_KINDS: Final = ("stringValue", "intValue", "doubleValue", "boolValue")


@dataclass(frozen=True, slots=True)
class Span:
    """One piece of work."""

    trace_id: str
    """In hex, as all ids."""
    span_id: str
    parent_id: str
    """The span that it is a part of, or a consequence of; empty for none."""
    service: str
    name: str
    start: int
    """Nanoseconds since 1970."""
    end: int
    """Nanoseconds since 1970."""
    attributes: Mapping[str, str]
    links: tuple[tuple[str, str], ...] = ()
    """Trace and span of further causes."""
    failed: bool = False


def of_otlp(document: Mapping[str, Any]) -> Iterator[Span]:
    """Yields the spans of an export.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    for resource in document.get("resourceSpans") or document.get("batches") or ():
        service = _attributes(resource.get("resource", {}).get("attributes", ())).get("service.name", "")
        for scope in resource.get("scopeSpans", ()):
            for each in scope.get("spans", ()):
                yield Span(
                    trace_id=_hex(each["traceId"], TRACE_BYTES),
                    span_id=_hex(each["spanId"], SPAN_BYTES),
                    parent_id=_hex(each.get("parentSpanId", ""), SPAN_BYTES),
                    service=service,
                    name=each.get("name", ""),
                    start=int(each["startTimeUnixNano"]),
                    end=int(each["endTimeUnixNano"]),
                    attributes=_attributes(each.get("attributes", ())),
                    links=tuple((_hex(link["traceId"], TRACE_BYTES), _hex(link["spanId"], SPAN_BYTES)) for link in each.get("links", ())),
                    failed=each.get("status", {}).get("code") in _FAILED,
                )


def of_jaeger(document: Mapping[str, Any]) -> Iterator[Span]:
    """Yields the spans of a trace, as Jaeger's user interface gets it.

    Raises:
        KeyError, TypeError, ValueError: it is none.
    """
    for trace in document["data"]:
        for each in trace["spans"]:
            trace_id = each["traceID"].zfill(2 * TRACE_BYTES)
            causes = [(cause["traceID"].zfill(2 * TRACE_BYTES), cause["spanID"], cause["refType"]) for cause in each.get("references", ())]
            parents = [span for of, span, kind in causes if of == trace_id and kind == "CHILD_OF"]
            start = int(each["startTime"]) * 1000
            attributes = {tag["key"]: str(tag["value"]) for tag in each.get("tags", ())}
            yield Span(
                trace_id=trace_id,
                span_id=each["spanID"],
                parent_id=parents[0] if parents else "",
                service=trace["processes"][each["processID"]]["serviceName"],
                name=each["operationName"],
                start=start,
                end=start + int(each["duration"]) * 1000,
                attributes=attributes,
                links=tuple((of, span) for of, span, _ in causes if span not in parents),
                failed=attributes.get("otel.status_code") == "ERROR" or attributes.get("error") == "True",
            )


def _attributes(listed: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    return {each["key"]: str(next((each["value"][kind] for kind in _KINDS if kind in each["value"]), "")) for each in listed}


def _hex(identifier: str, size: int) -> str:
    """An id in hex, of one in hex or base64: they differ in length."""
    return identifier.lower() if len(identifier) in {0, 2 * size} else b64decode(identifier, validate=True).hex()
