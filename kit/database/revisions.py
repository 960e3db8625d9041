"""The newest revisions of the databases, and whether a database has them: without Alembic, which takes a second to import and to run."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from kit.settings import KEYS_DATABASE

_ROOT: Final = Path(__file__).resolve().parents[2]
_SQLITE: Final = "sqlite+aiosqlite:///"
_REVISIONS: Final = "SELECT version_num FROM alembic_version"
_CONNECT_SECONDS: Final = 2


def branches(database: str) -> dict[str, Path]:
    """Returns the folders of a database's migrations, by the name with which their revisions begin.

    The kit's own tables are one branch and the service's another.

    Raises:
        FileNotFoundError: the service doesn't exist, or has no database.
    """
    if database == KEYS_DATABASE:
        return {database: _ROOT / "kit" / "people" / "keys" / "migrations"}
    own = _ROOT / "services" / database / "migrations"
    if not own.is_dir():
        message = f"there is no service {database!r} with migrations"
        raise FileNotFoundError(message)
    return {"kit": _ROOT / "kit" / "migrations", database: own}


def has_database(service: str) -> bool:
    """Whether a service has a database.

    Raises:
        FileNotFoundError: the service doesn't exist.
    """
    folder = _ROOT / "services" / service
    if not folder.is_dir():
        message = f"there is no service {service!r}"
        raise FileNotFoundError(message)
    return (folder / "migrations").is_dir()


def newest(database: str) -> Sequence[str]:
    """Returns the newest revision of each branch of a database, such as `kit_0005`: files are named after the numbers of revisions."""
    files = {name: max(folder.glob("[0-9]*.py")) for name, folder in branches(database).items()}
    return [f"{name}_{file.name.partition('_')[0]}" for name, file in files.items()]


def is_of_later_release(database: str, revisions: Iterable[str]) -> bool:
    """Whether a database with these revisions was migrated by a later release: after a rollback, or while both of them run.

    Releases only add to tables, so that this one works with the database as it is.
    """
    known = dict(revision.rsplit("_", 1) for revision in newest(database))
    found = dict(revision.rsplit("_", 1) for revision in revisions)
    return known.keys() <= found.keys() and any(branch not in known or int(number) > int(known[branch]) for branch, number in found.items())


def is_newest(database: str, url: str) -> bool:
    """True if a database has its newest revisions, or later ones. False says nothing: it may be out of reach, or its URL have options.

    Args:
        database: the service's name, or that of keys.
        url: its SQLAlchemy URL.
    """
    revisions = (_of_sqlite if url.startswith(_SQLITE) else _of_mysql)(url)
    return sorted(revisions) == sorted(newest(database)) or is_of_later_release(database, revisions)


def _of_sqlite(url: str) -> Sequence[str]:
    path = Path(url.removeprefix(_SQLITE))
    if not path.is_file():
        return ()
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            return [revision for (revision,) in connection.execute(_REVISIONS)]
    except sqlite3.Error:
        return ()


def _of_mysql(url: str) -> Sequence[str]:
    import pymysql  # noqa: PLC0415  (most meshes have no MySQL)

    at = urlsplit(url)
    if at.query:
        return ()
    try:
        with (
            pymysql.connect(
                host=at.hostname,
                port=at.port or 0,  # the driver's own
                user=unquote(at.username or ""),
                password=unquote(at.password or ""),
                database=at.path.removeprefix("/"),
                connect_timeout=_CONNECT_SECONDS,
            ) as connection,
            connection.cursor() as cursor,
        ):
            cursor.execute(_REVISIONS)
            return [revision for (revision,) in cursor.fetchall()]
    except (pymysql.Error, ValueError):
        return ()
