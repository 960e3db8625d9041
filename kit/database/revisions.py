"""The newest revisions of the databases, and whether a database has them: without Alembic, which takes a second to import and to run."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Final

from kit.settings import KEYS_DATABASE

_ROOT: Final = Path(__file__).resolve().parents[2]
_SQLITE: Final = "sqlite+aiosqlite:///"


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


def newest(database: str) -> Sequence[str]:
    """Returns the newest revision of each branch of a database, such as `kit_0005`: files are named after the numbers of revisions."""
    files = {name: max(folder.glob("[0-9]*.py")) for name, folder in branches(database).items()}
    return [f"{name}_{file.name.partition('_')[0]}" for name, file in files.items()]


def is_newest(database: str, url: str) -> bool:
    """True if a database has its newest revisions. Only SQLite's files are looked into: False says nothing.

    Args:
        database: the service's name, or that of keys.
        url: its SQLAlchemy URL.
    """
    path = Path(url.removeprefix(_SQLITE))
    if not url.startswith(_SQLITE) or not path.is_file():
        return False
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
            found = [revision for (revision,) in connection.execute("SELECT version_num FROM alembic_version")]
    except sqlite3.Error:
        return False
    return sorted(found) == sorted(newest(database))
