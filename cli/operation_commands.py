"""`pmp trace` and `pmp doctor`: commands for who operates a mesh."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.arguments import DATA, AsJson, Data, DatabaseUrl

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cli.traces.event import Fetch
    from cli.traces.spans import Span


def trace(
    event_id: Annotated[str, typer.Argument(help="Id of the event, as its sender gave it or was answered.")],
    backend: Annotated[
        str | None,
        typer.Option(envvar="PMP_TRACES_URL", help="Address of Jaeger or Tempo. Default: the spans that `pmp up --traces` keeps."),
    ] = None,
    file: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="Spans as lines of OTLP in JSON.")] = None,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
    *,
    statements: Annotated[bool, typer.Option("--statements", help="Show each SQL statement.")] = False,
    json: AsJson = False,
) -> None:
    """Show the path of one event from the gateway to all that follows from it, with durations; exit 1 when spans are missing."""
    import orjson
    from rich.console import Console

    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.traces.event import arrivals, collect, show

    folder = DataFolder(data)
    found = asyncio.run(arrivals(find_database_url(folder, database_url), event_id))
    fetch = _spans_of(folder.traces, backend, file)
    if json:
        typer.echo(orjson.dumps(asyncio.run(collect(found, fetch)), option=orjson.OPT_INDENT_2).decode())
        return
    raise typer.Exit(0 if asyncio.run(show(found, fetch, Console(), statements=statements)) else 1)


def _spans_of(folder: Path, backend: str | None, file: Path | None) -> Fetch:
    """Where the spans are."""
    from cli.traces.backend import fetch
    from cli.traces.files import SpanFiles, find_in

    async def find(trace_id: str) -> Sequence[Span]:
        return SpanFiles(folder).find(trace_id) if file is None else find_in([file], trace_id)

    return partial(fetch, backend) if backend and file is None else find


def doctor(data: Data = DATA, *, json: AsJson = False) -> None:
    """Examine the running mesh, or in a pod what its settings lead to, and say what to do; exit 1 when something is not well."""
    from rich.console import Console

    from cli.doctor.examination import examine
    from cli.doctor.printing import print_report
    from cli.folder import DataFolder

    report = asyncio.run(examine(DataFolder(data)))
    if json:
        typer.echo(report.model_dump_json(indent=2))
    else:
        print_report(Console(), report)
    raise typer.Exit(0 if report.is_well else 1)
