"""The commands of `pmp dead-letters`."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio
from typing import Annotated

import typer

from cli.arguments import DATA, Data, DatabaseUrl, Every, Letters, Service

letters = typer.Typer(no_args_is_help=True, help="Manage the messages that a service set aside.")


@letters.command("list")
def list_letters(service: Service, data: Data = DATA, database_url: DatabaseUrl = None) -> None:
    """List the messages that a service set aside."""
    from rich.console import Console

    from cli.databases import find_database_url
    from cli.dead_letters import list_letters as print_letters
    from cli.folder import DataFolder

    asyncio.run(print_letters(service, find_database_url(DataFolder(data), database_url), Console()))


@letters.command("show")
def show_letter(
    service: Service, letter: Annotated[int, typer.Argument(help="Its id.")], data: Data = DATA, database_url: DatabaseUrl = None
) -> None:
    """Show one message, the reason why it was set aside, and its origin."""
    from cli.databases import find_database_url
    from cli.dead_letters import show_letter as print_letter
    from cli.folder import DataFolder

    asyncio.run(print_letter(service, find_database_url(DataFolder(data), database_url), letter))


@letters.command("retry")
def retry_letters(
    service: Service, ids: Letters = None, *, every: Every = False, data: Data = DATA, database_url: DatabaseUrl = None
) -> None:
    """Retry messages; the service does so within moments."""
    from cli.databases import find_database_url
    from cli.dead_letters import chosen, retry
    from cli.folder import DataFolder

    count = asyncio.run(retry(service, find_database_url(DataFolder(data), database_url), chosen(ids, every=every)))
    typer.echo(f"{count} of {service}'s messages get another try")


@letters.command("drop")
def drop_letters(
    service: Service, ids: Letters = None, *, every: Every = False, data: Data = DATA, database_url: DatabaseUrl = None
) -> None:
    """Drop messages for good; the books keep counting them as dead letters."""
    from cli.databases import find_database_url
    from cli.dead_letters import chosen, drop
    from cli.folder import DataFolder

    count = asyncio.run(drop(service, find_database_url(DataFolder(data), database_url), chosen(ids, every=every)))
    typer.echo(f"{count} of {service}'s messages are given up")
