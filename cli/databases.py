"""Access to the services' databases for commands."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy import make_url
from sqlalchemy.exc import SQLAlchemyError

from cli.addresses import checked_database_url
from cli.errors import CommandFailed
from cli.folder import DataFolder, in_pod
from cli.layout import databases
from cli.state import running_mesh
from kit.database.engine import open_database
from kit.database.transactions import Sessions


def find_database_url(folder: DataFolder, chosen: str | None) -> str:
    """The chosen URL, else that of the mesh on the folder, with `{service}` for the database's name.

    Raises:
        CommandFailed: services can't use the chosen URL, or this is a pod without one.
    """
    if chosen:
        return checked_database_url(chosen)
    if in_pod(folder):
        raise CommandFailed("this pod has no PMP_DATABASE_URL: run the command in a pod of the service")
    return running_mesh(folder).database_url if folder.is_locked() else folder.database_url()


def checked_service(service: str) -> str:
    """Returns the service if it has a database.

    Raises:
        CommandFailed: it has none, or the service does not exist.
    """
    known = databases()
    if service not in known:
        raise CommandFailed(f"there is no service {service!r} with a database: there are {', '.join(known)}")
    return service


@asynccontextmanager
async def service_sessions(service: str, url: str) -> AsyncGenerator[Sessions]:
    """Database sessions of a service.

    Raises:
        CommandFailed: the service or database does not exist, or the database fails.
    """
    own = url.replace("{service}", checked_service(service))
    must_exist(own, service)
    try:
        async with open_database(own, pool=1) as database:
            yield database.sessions
    except (SQLAlchemyError, OSError) as error:
        raise CommandFailed(f"the database of {service} refuses: {error}") from error


def must_exist(url: str, service: str) -> None:
    """Checks that the database exists: SQLite would create an empty one.

    Raises:
        CommandFailed: it does not.
    """
    target = make_url(url)
    if target.get_backend_name() == "sqlite" and not Path(target.database or "").exists():
        raise CommandFailed(f"{service} has no database at {target.database}: run `pmp up` first, or name the mesh's folder with --data")
