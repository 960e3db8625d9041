"""SQLite without threads: the driver that the engine sees stops at every statement, and works on the disk of the moment.

It stands where `aiosqlite` stands, below SQLAlchemy and below everything that `kit.database` sets up.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Self

from sqlalchemy import event
from sqlalchemy.dialects.sqlite.aiosqlite import AsyncAdapt_aiosqlite_connection

from kit.database.engine import Database, open_database
from tests.simulation.memory_log import Pause


def broken_disk() -> sqlite3.OperationalError:
    """What a statement raises when the database went away."""
    error = sqlite3.OperationalError("disk I/O error")
    error.sqlite_errorcode = sqlite3.SQLITE_IOERR
    return error


class Disk:
    """Where one database lies: can be backed up and restored; connections of another life are broken."""

    def __init__(self, folder: Path, name: str, content: bytes, pause: Pause, dawdles: Callable[[], bool] = lambda: False) -> None:
        self._folder = folder
        self._name = name
        self.pause = pause
        self.dawdles = dawdles
        self.life = 0
        self._watcher: sqlite3.Connection | None = None
        self.path.write_bytes(content)

    @property
    def path(self) -> Path:
        """The file of the moment."""
        return self._folder / f"{self._name}-{self.life}.db"

    def connect(self) -> sqlite3.Connection:
        """A plain connection; a locked database is an error at once."""
        return sqlite3.connect(self.path, timeout=0, check_same_thread=False)

    def snapshot(self) -> bytes:
        """A backup of what is committed."""
        return self._looking().serialize()

    def restore(self, content: bytes) -> None:
        """Starts again with what a backup holds."""
        self.close()
        self.life += 1
        self.path.write_bytes(content)

    def ask(self, query: str, *parameters: object) -> list[Any]:
        """Rows of a query about what is committed."""
        return self._looking().execute(query, parameters).fetchall()

    def close(self) -> None:
        """Closes what `ask` opened."""
        if self._watcher:
            self._watcher.close()
            self._watcher = None

    def _looking(self) -> sqlite3.Connection:
        self._watcher = self._watcher or self.connect()
        return self._watcher


class _Inline:
    """Stands for the queue of aiosqlite's thread: what is put into it is done at once."""

    def put_nowait(self, work: tuple[asyncio.Future[object], Callable[[], object]]) -> None:
        future, call = work
        future.set_result(call())


class _Connection:
    def __init__(self, disk: Disk) -> None:
        self._disk = disk
        self._life = disk.life
        self._conn = disk.connect()
        self._connection: sqlite3.Connection | None = self._conn
        self._tx = _Inline()

    @property
    def isolation_level(self) -> str | None:
        return self._conn.isolation_level

    async def stand(self, statement: str) -> None:
        """Waits before a statement. Within a transaction little can happen that may not at its ends: most go on at once."""
        if not statement.startswith(("BEGIN", "COMMIT")) and not self._disk.dawdles():
            return
        await self._disk.pause("sql " + statement.split("(", 1)[0][:60].replace("\n", " "))
        if self._life != self._disk.life:
            raise broken_disk()

    def cursor(self) -> _Cursor:
        return _Cursor(self, self._conn.cursor())

    async def create_function(self, *arguments: Any, **options: Any) -> None:
        self._conn.create_function(*arguments, **options)

    async def commit(self) -> None:
        await self.stand("COMMIT")
        self._conn.commit()
        await self.stand("COMMIT done")

    async def rollback(self) -> None:
        self._conn.rollback()

    async def close(self) -> None:
        self.stop()

    def stop(self) -> None:
        if self._connection:
            self._connection = None
            self._conn.close()


class _Cursor:
    def __init__(self, connection: _Connection, cursor: sqlite3.Cursor) -> None:
        self._connection = connection
        self._cursor = cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)

    async def __aenter__(self) -> Self:
        return self

    async def execute(self, statement: str, parameters: Sequence[Any] = ()) -> None:
        if not statement.startswith("PRAGMA"):
            await self._connection.stand(statement)
        self._cursor.execute(statement, parameters)

    async def executemany(self, statement: str, rows: Sequence[Sequence[Any]]) -> None:
        await self._connection.stand(statement)
        self._cursor.executemany(statement, rows)

    async def fetchall(self) -> list[Any]:
        return self._cursor.fetchall()

    async def close(self) -> None:
        self._cursor.close()


class Server:
    """An engine of `kit.database` whose connections go to the disk of the moment. Made once: an engine's caches are dear."""

    def __init__(self, database: Database) -> None:
        self.database = database
        self.disk: Disk | None = None

    async def use(self, disk: Disk) -> None:
        """Goes over to another disk."""
        await self.database.engine.dispose()
        self.disk = disk


@asynccontextmanager
async def open_server() -> AsyncGenerator[Server]:
    """Opens a database through `kit.database`, with this driver in the place of aiosqlite's."""
    async with open_database("sqlite+aiosqlite:////nowhere.db", pool=64) as database:
        server = Server(database)
        engine = database.engine.sync_engine

        @event.listens_for(engine, "do_connect")
        def connect(dialect: Any, *_: object) -> object:
            assert server.disk is not None
            driver: Any = _Connection(server.disk)
            return AsyncAdapt_aiosqlite_connection(dialect.dbapi, driver)

        @event.listens_for(engine, "connect")
        def hurry(connection: Any, _record: object) -> None:
            # The machine under the simulation does not lose its power.
            cursor = connection.cursor()
            cursor.execute("PRAGMA synchronous=OFF")
            cursor.close()

        _ = connect, hurry
        yield server
