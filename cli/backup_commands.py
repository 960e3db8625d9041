"""`pmp backup` and `pmp restore`."""

# ruff: noqa: PLC0415 (a command imports its modules when it is called)
from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cli.arguments import DATA, Data


def backup(
    target: Annotated[
        Path, typer.Argument(envvar="PMP_BACKUPS", metavar="FOLDER", help="Folder for the backup, which is created if it does not exist.")
    ],
    keep: Annotated[
        int | None, typer.Option(envvar="PMP_BACKUP_KEEP", min=1, help="Keep only this many of the newest backups in it. Default: all.")
    ] = None,
    data: Data = DATA,
) -> None:
    """Back a running mesh up to one file: its databases, its log and its secrets, as they are at one moment."""
    from cli.backup import back_up
    from cli.folder import DataFolder

    typer.echo(back_up(DataFolder(data), target, keep))


def restore(
    backup: Annotated[Path, typer.Argument(exists=True, dir_okay=False, metavar="FILE", help="A file that `pmp backup` made.")],
    data: Data = DATA,
) -> None:
    """Make a new data folder from a backup. The mesh is started on it by `pmp up`."""
    from cli.folder import DataFolder
    from cli.restore import restore as unpack

    made_at = unpack(backup, folder := DataFolder(data)).made_at
    typer.echo(f"{folder.path}: the mesh as it was at {made_at:%Y-%m-%d %H:%M:%S} UTC; `pmp up` starts it")
    typer.echo("What it accepted afterwards is missing, and who was erased afterwards is there again: docs/backup.md says what to do.")
