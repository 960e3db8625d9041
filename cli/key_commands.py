"""The commands of `pmp keys`."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

import asyncio

import typer

from cli.arguments import DATA, Data, DatabaseUrl

keys = typer.Typer(no_args_is_help=True, help="Manage the keys that wrap persons' keys.")


@keys.command("new")
def new_key(data: Data = DATA, database_url: DatabaseUrl = None) -> None:
    """Add a new key to the folder. The mesh wraps with it from its next start on."""
    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.keys import check_not_in_pod, new

    check_not_in_pod(folder := DataFolder(data))
    asyncio.run(new(folder, find_database_url(folder, database_url)))
    typer.echo("a new key was added: restart the mesh, then run `pmp keys rotate`")


@keys.command("rotate")
def rotate_keys(data: Data = DATA, database_url: DatabaseUrl = None) -> None:
    """Wrap the keys of all persons with the newest key while the mesh is running."""
    from rich.console import Console

    from cli.databases import find_database_url
    from cli.folder import DataFolder
    from cli.keys import rotate

    folder = DataFolder(data)
    count = asyncio.run(rotate(folder, find_database_url(folder, database_url), Console(stderr=True)))
    typer.echo(f"{count} keys were wrapped anew; all of them are wrapped by the newest key")
