"""Finds the traces of an event: each delivery of it to the mesh, also a repetition, names its own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import NamedTuple

from rich.console import Console
from sqlalchemy import select

from cli.databases import service_sessions
from cli.errors import CommandFailed
from cli.traces.spans import Span
from cli.traces.tree import as_json, print_trace
from services.ingestion.models import ProcessingRow

Fetch = Callable[[str], Awaitable[Sequence[Span]]]
"""Returns the spans of a trace, given its id in hex."""


class Arrival(NamedTuple):
    """A delivery of an event to the mesh."""

    received_at: datetime
    outcome: str
    """stored, duplicate, suppressed or dead_lettered."""
    trace_id: str
    """In hex; empty if nothing traced the call."""


async def arrivals(url: str, event_id: str) -> Sequence[Arrival]:
    """Returns the deliveries of an event whose outcome is known, in order.

    Args:
        url: of the databases.
        event_id: the client's id of the event.

    Raises:
        CommandFailed: there is none, or the database fails.
    """
    columns = (ProcessingRow.received_at, ProcessingRow.outcome, ProcessingRow.trace_id)
    async with service_sessions("ingestion", url) as sessions, sessions.reading() as session:
        rows = (await session.execute(select(*columns).where(ProcessingRow.event_id == event_id).order_by(ProcessingRow.id))).all()
    if not rows:
        raise CommandFailed(f"the outcome of an event {event_id} is not known: it never arrived, or is still pending (`pmp books`)")
    return [Arrival(row.received_at, row.outcome, row.trace_id or "") for row in rows]


async def show(found: Sequence[Arrival], fetch: Fetch, console: Console, *, statements: bool) -> bool:
    """Prints what became of each delivery of an event, and its trace; returns whether there are spans of every one."""
    complete, shown = True, set[str]()
    for arrival in found:
        known = f", trace {arrival.trace_id}" if arrival.trace_id else ""
        when = f"{arrival.received_at:%Y-%m-%d %H:%M:%S.%f} UTC"
        console.print(f"{arrival.outcome}, received at {when}{known}", highlight=False, soft_wrap=True)
        if not arrival.trace_id:
            console.print("  nothing traced this call: OTEL_EXPORTER_OTLP_ENDPOINT, or `pmp up --traces`, says where spans go")
        elif arrival.trace_id in shown:
            console.print("  in the same trace")
        elif spans := await fetch(arrival.trace_id):
            print_trace(console, arrival.trace_id, spans, statements=statements)
        else:
            console.print("  no spans: the trace is too old, was not sampled, or its spans are still on their way")
            complete = False
        complete = complete and bool(arrival.trace_id)
        shown.add(arrival.trace_id)
    return complete


async def collect(found: Sequence[Arrival], fetch: Fetch) -> list[dict[str, object]]:
    """Returns the deliveries of an event with their spans, for programs."""
    return [
        {
            "received_at": arrival.received_at.isoformat(),
            "outcome": arrival.outcome,
            "trace_id": arrival.trace_id,
            "spans": as_json(await fetch(arrival.trace_id)) if arrival.trace_id else [],
        }
        for arrival in found
    ]
