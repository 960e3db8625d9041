"""The commands of `pmp destinations`."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from pmp_mesh_client.tokens import Scope

from cli.arguments import DATA, AsJson, Data, Every, Letters

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cli.destinations import Caller

destinations = typer.Typer(no_args_is_help=True, help="Manage the systems that are sent what happens.")

Name = Annotated[str, typer.Argument(help="Name of a destination.")]
_TIMES = ["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S"]


@destinations.command("list")
def list_destinations(data: Data = DATA, *, json: AsJson = False) -> None:
    """List the destinations and what became of what was to be delivered to each."""
    import orjson
    from rich.console import Console

    from cli.destinations import fetch, print_destinations

    found = asyncio.run(fetch(_caller(data, Scope.READ)))
    if json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print_destinations(Console(), found)


@destinations.command("test")
def call_destination(name: Name, data: Data = DATA) -> None:
    """Find out whether a destination can be reached and accepts the credentials; exit 0 if so."""
    answer = _operate(data, name, "test")
    typer.echo(answer.get("detail", ""))
    raise typer.Exit(0 if answer.get("success") else 1)


@destinations.command()
def pause(name: Name, data: Data = DATA, *, reason: Annotated[str, typer.Option(help="Why, for those who find it paused.")] = "") -> None:
    """Send nothing to a destination until it is resumed; deliveries queue."""
    _operate(data, name, "pause", reason=reason)
    typer.echo(f"{name} is paused")


@destinations.command()
def resume(name: Name, data: Data = DATA) -> None:
    """Send to a destination again that was paused, or that is left alone because attempts failed."""
    changed = _operate(data, name, "resume").get("changed")
    typer.echo(f"{name} is sent to again" if changed else f"{name} was not paused")


@destinations.command()
def replay(
    name: Name,
    since: Annotated[datetime, typer.Option("--from", formats=_TIMES, help="What happened from then on, in UTC.")],
    until: Annotated[datetime | None, typer.Option("--to", formats=_TIMES, help="What happened before then. Default: now.")] = None,
    data: Data = DATA,
    *,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only count.")] = False,
) -> None:
    """Deliver again what happened in a period, under the same ids."""
    to = until.replace(tzinfo=UTC).isoformat() if until else None
    answer = _operate(data, name, "replay", from_=since.replace(tzinfo=UTC).isoformat(), to=to, dry_run=str(dry_run).lower())
    would = "would be delivered" if dry_run else "are delivered"
    counts = {field: answer.get(field, "0") for field in ("replayed", "too_old", "not_repeatable", "gone")}
    typer.echo(f"{counts['replayed']} {would} again; {counts['too_old']} are too old for {name}")
    typer.echo(f"{counts['not_repeatable']} would count twice there, and of {counts['gone']} the content is gone")


@destinations.command("dead-letters")
def list_dead_letters(name: Name, data: Data = DATA) -> None:
    """List deliveries that a destination refused, or that failed at every attempt."""
    from rich.console import Console

    from cli.destinations import dead_letters, print_dead_letters

    print_dead_letters(Console(), asyncio.run(dead_letters(_caller(data, Scope.ADMIN), name)))


@destinations.command()
def retry(name: Name, ids: Letters = None, *, every: Every = False, data: Data = DATA) -> None:
    """Retry dead letters of a destination."""
    from cli.dead_letters import chosen

    answer = _operate(data, name, "dead-letters/retry", ids=chosen(ids, every=every))
    typer.echo(f"{answer.get('retried', '0')} dead letters of {name} get another try")


@destinations.command()
def drop(name: Name, ids: Letters = None, *, every: Every = False, data: Data = DATA) -> None:
    """Drop dead letters of a destination for good; the books keep counting them."""
    from cli.dead_letters import chosen

    answer = _operate(data, name, "dead-letters/drop", ids=chosen(ids, every=every))
    typer.echo(f"{answer.get('dropped', '0')} dead letters of {name} are given up")


@destinations.command("conflicts")
def list_conflicts(
    data: Data = DATA,
    *,
    user: Annotated[str, typer.Option(help="Only those of this person: a mesh user id, or a WordPress user id.")] = "",
    json: AsJson = False,
) -> None:
    """List the newest conflicts between the mesh and the shop's site: what each had of a field, and whose value was kept."""
    import orjson
    from rich.console import Console

    from cli.credentials import credentials
    from cli.destinations import conflicts, print_conflicts
    from cli.folder import DataFolder

    found = asyncio.run(conflicts(credentials(DataFolder(data), Scope.ADMIN), user))
    if json:
        typer.echo(orjson.dumps(found, option=orjson.OPT_INDENT_2).decode())
    else:
        print_conflicts(Console(), found)


def _operate(data: Data, name: str, operation: str, **parameters: Any) -> Mapping[str, Any]:
    from cli.destinations import operate

    return asyncio.run(operate(_caller(data, Scope.ADMIN), name, operation, **parameters))


def _caller(data: Data, scope: Scope) -> Caller:
    from cli.credentials import credentials
    from cli.folder import DataFolder
    from cli.pod import pod_settings

    return pod_settings(folder := DataFolder(data)) or credentials(folder, scope)
