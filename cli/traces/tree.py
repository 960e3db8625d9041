"""Arranges the spans of a trace as a tree, and prints it with durations and with the pauses between a cause and its consequence."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

from rich.console import Console
from rich.text import Text
from rich.tree import Tree

from cli.traces.spans import Span
from kit.telemetry.names import Attribute

_SHOWN: Final = (Attribute.TOPIC, Attribute.DESTINATION, Attribute.OUTCOME, Attribute.RPC_STATUS)
_MILLION: Final = 1_000_000
_BILLION: Final = 1_000_000_000


@dataclass(slots=True)
class Node:
    """A span, with its parts and consequences."""

    span: Span
    parts: list[Node] = field(default_factory=list["Node"])


def arrange(trace_id: str, spans: Sequence[Span]) -> list[Node]:
    """Returns the spans that have no parent among these, with all others below them, each in the order in which they began.

    A span of another trace is a consequence of the span that it links to.
    """
    nodes = {span.span_id: Node(span) for span in sorted(spans, key=lambda span: (span.start, -span.end))}
    roots: list[Node] = []
    for node in nodes.values():
        parent = next((nodes[cause] for cause in _causes(trace_id, node.span) if cause in nodes and cause != node.span.span_id), None)
        (roots if parent is None else parent.parts).append(node)
    return roots


def print_trace(console: Console, trace_id: str, spans: Sequence[Span], *, statements: bool) -> None:
    """Prints a trace.

    Args:
        console: where to.
        trace_id: its id.
        spans: at least one.
        statements: whether each SQL statement is shown, or only how many there were.
    """
    first, last = min(span.start for span in spans), max(span.end for span in spans)
    services = {span.service for span in spans}
    at = datetime.fromtimestamp(first / _BILLION, UTC)
    summary = f"{len(spans)} spans of {len(services)} services in {_milliseconds(last - first)} from {at:%Y-%m-%d %H:%M:%S.%f} UTC on"
    tree = Tree(Text(summary))
    for node in arrange(trace_id, spans):
        _add(tree, node, None, trace_id, statements=statements)
    console.print(tree, soft_wrap=True)


def as_json(spans: Sequence[Span]) -> list[Mapping[str, object]]:
    """Returns spans in the order in which they began, for programs."""
    return [
        {
            "trace_id": span.trace_id,
            "span_id": span.span_id,
            "parent_id": span.parent_id,
            "service": span.service,
            "name": span.name,
            "start": datetime.fromtimestamp(span.start / _BILLION, UTC).isoformat(),
            "milliseconds": (span.end - span.start) / _MILLION,
            "failed": span.failed,
            "attributes": span.attributes,
            "links": [{"trace_id": of, "span_id": cause} for of, cause in span.links],
        }
        for span in sorted(spans, key=lambda span: span.start)
    ]


def _causes(trace_id: str, span: Span) -> list[str]:
    """The spans that one may belong below, the closest first."""
    return [span.parent_id, *(cause for of, cause in span.links if of == trace_id)]


def _add(tree: Tree, node: Node, parent: Span | None, trace_id: str, *, statements: bool) -> None:
    branch = tree.add(_label(node.span, parent, trace_id))
    executed = [] if statements else [part.span for part in node.parts if Attribute.DB_STATEMENT in part.span.attributes]
    for part in node.parts:
        if part.span not in executed:
            _add(branch, part, node.span, trace_id, statements=statements)
    if executed:
        branch.add(Text(f"SQL: {len(executed)} statements in {_milliseconds(sum(span.end - span.start for span in executed))}", "dim"))


def _label(span: Span, parent: Span | None, trace_id: str) -> Text:
    label = Text.assemble((span.service, "bold"), f" {span.name}", (f" {_milliseconds(span.end - span.start)}", "cyan"))
    if parent is not None and span.start > parent.end:
        label.append(f", {_milliseconds(span.start - parent.end)} later", "yellow")
    if shown := [span.attributes[name] for name in _SHOWN if name in span.attributes]:
        label.append(f" ({', '.join(shown)})", "dim")
    if span.trace_id != trace_id and (count := span.attributes.get(Attribute.MESSAGES)):
        label.append(f", with {count} messages of several traces", "dim")
    if statement := span.attributes.get(Attribute.DB_STATEMENT):
        label.append(f" {' '.join(statement.split())}", "dim")
    if span.failed:
        label.append(" failed", "red")
    return label


def _milliseconds(nanoseconds: int) -> str:
    return f"{nanoseconds / _MILLION:,.1f} ms"
