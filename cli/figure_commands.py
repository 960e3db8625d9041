"""`pmp report`, `pmp export` and `pmp export-days`: commands for the shop's figures."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer
from pmp_mesh_client.tokens import Scope

from cli.arguments import DATA, AsJson, Data, DatabaseUrl, FileFormat

_Zone = Annotated[str, typer.Option(envvar="PMP_SITE_TIMEZONE", help="Time zone of the days.")]
reports = typer.Typer(no_args_is_help=True, help="Show the shop's figures.")


@reports.command("dashboard")
def show_dashboard(
    since: Annotated[str, typer.Option("--from", help="First day, YYYY-MM-DD. Default: 29 days before the last.")] = "",
    until: Annotated[str, typer.Option("--to", help="Last day, YYYY-MM-DD. Default: today.")] = "",
    data: Data = DATA,
    *,
    json: AsJson = False,
) -> None:
    """Show the figures of a period beside those of the one before it."""
    from rich.console import Console

    from cli.credentials import credentials as make
    from cli.folder import DataFolder
    from cli.report import fetch_dashboard, print_dashboard

    answer = asyncio.run(fetch_dashboard(make(DataFolder(data), Scope.READ), since, until))
    if json:
        typer.echo(answer)
    else:
        print_dashboard(Console(), answer)


def export(
    *,
    what: Annotated[str, typer.Option(help="events, orders, sessions or customers.")],
    form: Annotated[FileFormat, typer.Option("--format", help="Format of the file.")] = FileFormat.PARQUET,
    since: Annotated[datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day. Default: the first of all.")] = None,
    until: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day. Default: the last of all.")] = None,
    timezone: _Zone = "UTC",
    output: Annotated[Path | None, typer.Option(help="The file. Default: orders.parquet, sessions.csv, ...")] = None,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
) -> None:
    """Write events, orders, sessions or customers to a file, as Parquet or CSV."""
    from rich.console import Console

    from cli.databases import find_database_url
    from cli.export import export as write
    from cli.export import period_of
    from cli.folder import DataFolder

    file = output or Path(f"{what}.{form}")
    url, period = find_database_url(DataFolder(data), database_url), period_of(since and since.date(), until and until.date(), timezone)
    count = asyncio.run(write(url, what, period, form=form, file=file, console=Console(stderr=True)))
    typer.echo(f"{count:,} rows in {file}, which DuckDB reads: duckdb -c \"FROM '{file}'\"")


def export_days(
    url: Annotated[
        str, typer.Argument(envvar="PMP_SITE_EXPORTS_URL", help="A folder or object store: file:///folder, s3://bucket/folder, gs://...")
    ],
    what: Annotated[list[str] | None, typer.Option(help="events, orders, sessions or customers; repeatable. Default: all.")] = None,
    since: Annotated[
        datetime | None, typer.Option("--from", formats=["%Y-%m-%d"], help="First day. Default: all that are missing since the first.")
    ] = None,
    until: Annotated[datetime | None, typer.Option("--to", formats=["%Y-%m-%d"], help="Last day. Default: the last closed one.")] = None,
    timezone: _Zone = "UTC",
    *,
    again: Annotated[bool, typer.Option("--again", help="Replace files that are there.")] = False,
    data: Data = DATA,
    database_url: DatabaseUrl = None,
) -> None:
    """Write each closed day once to a folder or an object store, as Parquet files WHAT/day=YYYY-MM-DD/part-0.parquet."""
    from rich.console import Console

    from cli.databases import find_database_url
    from cli.export_days import Store
    from cli.export_days import export_days as write
    from cli.folder import DataFolder

    first, last = since and since.date(), until and until.date()
    found, console = find_database_url(DataFolder(data), database_url), Console(stderr=True)
    typer.echo(asyncio.run(write(found, Store(url), what or (), first, last, timezone=timezone, again=again, console=console)))
