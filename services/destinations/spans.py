"""The span of an attempt: it continues the trace of what is delivered."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager

from opentelemetry.trace import Span, SpanKind, StatusCode

from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span
from services.destinations.clearance import Cleared
from services.destinations.kind import Outcome, Result
from services.destinations.settling import PutOff

_PUT_OFF = "put off"


def delivery_span(destination: str, cleared: Sequence[Cleared]) -> AbstractContextManager[Span]:
    """Records a span around an attempt, within the trace of the first delivery in it and linked to those of the others."""
    parents = list(dict.fromkeys(each.traceparent for each in cleared if each.traceparent))
    attributes: dict[str, str | int] = {Attribute.DESTINATION: destination, Attribute.MESSAGES: len(cleared)}
    return span(SpanName.DELIVER, parent=parents[0] if parents else "", links=parents[1:], kind=SpanKind.CLIENT, attributes=attributes)


def describe_results(current: Span, results: Sequence[Result | PutOff]) -> None:
    """States in the span of an attempt what became of it."""
    outcomes = {result.outcome.value if isinstance(result, Result) else _PUT_OFF for result in results}
    current.set_attribute(Attribute.OUTCOME, ", ".join(sorted(outcomes)))
    if outcomes != {Outcome.DELIVERED.value}:
        current.set_status(StatusCode.ERROR)
