"""Arguments and options that several commands share."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from cli.private_urls import private_url

Data = Annotated[Path, typer.Option(envvar="PMP_DATA", help="Folder of the mesh: its secrets, databases and logs.")]
DatabaseUrl = Annotated[
    str | None,
    typer.Option(
        envvar="PMP_DATABASE_URL",
        callback=private_url,
        help="SQLAlchemy URL with {service} for the database's name, or @FILE that contains it. Default: SQLite in the folder.",
    ),
]
RedisUrl = Annotated[
    str | None,
    typer.Option(
        envvar="PMP_REDIS_URL",
        callback=private_url,
        help="URL of an existing Redis, or @FILE that contains it. Default: a Redis is started.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Service = Annotated[str, typer.Argument(help="Name of a service.")]
Letters = Annotated[list[int] | None, typer.Argument(help="Ids of the messages.")]
Every = Annotated[bool, typer.Option("--all", help="All of them.")]
DATA = Path(".data")


class FileFormat(StrEnum):
    """Format of an exported file."""

    PARQUET = "parquet"
    CSV = "csv"
