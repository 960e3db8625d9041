"""Migrated databases. Migrating takes longer than most tests, so that it is done once for each service and kind of server."""

from __future__ import annotations

import atexit
import shutil
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from sqlalchemy import Connection, MetaData, Table, make_url

from kit.database.engine import Database, open_database
from kit.migrate import migrate
from kit.settings import Settings

_files: dict[str, Path] = {}
"""By service, an SQLite database as its migrations leave it."""
_contents: dict[str, _Content] = {}
"""By URL, what is in a database of MariaDB that is used again."""


@dataclass(frozen=True, slots=True)
class _Content:
    """Rows that migrations leave."""

    tables: Sequence[Table]
    rows: Mapping[Table, Sequence[Mapping[str, Any]]]

    @classmethod
    def of(cls, connection: Connection) -> _Content:
        metadata = MetaData()
        metadata.reflect(connection)
        rows = {table: connection.execute(table.select()).mappings().all() for table in metadata.sorted_tables}
        return cls(metadata.sorted_tables, {table: [dict(row) for row in found] for table, found in rows.items() if found})

    def restore(self, connection: Connection) -> None:
        """Removes everything else."""
        for table in reversed(self.tables):
            connection.execute(table.delete())
        for table, rows in self.rows.items():
            connection.execute(table.insert(), rows)


@asynccontextmanager
async def newest_database(settings: Settings, service: str) -> AsyncGenerator[Database]:
    """A service's database at its newest version, with nothing in it but what migrations leave."""
    url = settings.database(service)
    if url.startswith("sqlite"):
        shutil.copyfile(await _file(service), make_url(url).database or "")
    elif url not in _contents:
        await migrate(service, url)
    async with open_database(url) as database:
        if url.startswith("mysql"):
            async with database.engine.begin() as connection:
                if url in _contents:
                    await connection.run_sync(_contents[url].restore)
                else:
                    _contents[url] = await connection.run_sync(_Content.of)
        yield database


async def _file(service: str) -> Path:
    if service not in _files:
        folder = Path(mkdtemp(prefix="pmp-migrated-"))
        atexit.register(shutil.rmtree, folder)
        _files[service] = folder / f"{service}.db"
        await migrate(service, f"sqlite+aiosqlite:///{_files[service]}")
    return _files[service]
