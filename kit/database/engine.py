"""The engine of one service's database."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any, Final

import orjson
from pymysql.converters import escape_item
from sqlalchemy import event, make_url, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from kit.database.logins import log_in_by
from kit.database.sqlite_driver import connect
from kit.database.transactions import Sessions

_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"
_WAL_PAGES: Final = 4000
"""Pages in SQLite's write-ahead log, 16 MB, from which they are copied into the database: a page that changed often is copied once."""
_LONGEST_TEXT: Final = 2**20
"""Bytes of the longest text that a query may gather from several rows: MariaDB's default; MySQL's is 1024."""


class Database:
    """A pool of connections to one service's database.

    Args:
        one_writer: whether all write transactions take the same lock.
    """

    def __init__(self, engine: AsyncEngine, *, one_writer: bool = False) -> None:
        self.engine = engine
        self.sessions = Sessions(engine, one_writer=one_writer)

    async def check(self) -> None:
        """Raises the driver's error if the database does not respond."""
        async with self.sessions.reading() as session:
            await session.execute(text("SELECT 1"))

    async def close(self) -> None:
        """Closes the connections."""
        await self.engine.dispose()

    async def scrub(self) -> bool:
        """Removes deleted and overwritten data from SQLite's files; False while other connections prevent it.

        `secure_delete` overwrites deleted rows, but not the copies that remain when rows move to other pages: VACUUM drops those
        pages. The write-ahead log has all that was written until it is truncated.
        """
        if self.engine.dialect.name != "sqlite":
            return True
        async with self.engine.connect() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            try:
                await driver.execute("VACUUM")
            except sqlite3.OperationalError:
                return False
            cursor = await driver.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            (busy, *_) = await cursor.fetchone()
            await cursor.close()
        return not busy


def lazy_database(url: str, pool: int = 8, *, one_writer: bool = False, newest_url: Callable[[], str] | None = None) -> Database:
    """A database that is connected to when it is first used; the caller closes it.

    Args:
        url: as in SQLAlchemy.
        pool: the maximum number of connections.
        one_writer: whether all write transactions take the same lock, and so wait for it in the process.
        newest_url: returns the URL whose account new connections log in with, if that may change.
    """
    engine = _sqlite(url, pool) if make_url(url).get_backend_name() == "sqlite" else _mysql(url, pool, newest_url or (lambda: url))
    return Database(engine, one_writer=one_writer)


@asynccontextmanager
async def open_database(
    url: str, pool: int = 8, *, one_writer: bool = False, newest_url: Callable[[], str] | None = None
) -> AsyncGenerator[Database]:
    """Opens a database as `lazy_database` does; closes its connections at the end."""
    database = lazy_database(url, pool, one_writer=one_writer, newest_url=newest_url)
    try:
        yield database
    finally:
        await database.close()


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _literal(value: object) -> str:
    """Formats a value as SQL, for a connection in utf8mb4 without NO_BACKSLASH_ESCAPES.

    MySQL requires that the backslash and the enclosing quote be escaped, and no more:
    https://dev.mysql.com/doc/c-api/8.0/en/mysql-real-escape-string-quote.html
    """
    if isinstance(value, str):
        return "'" + value.replace("\\", "\\\\").replace("'", "\\'") + "'"
    if isinstance(value, bytes):
        return f"x'{value.hex()}'"
    if value is None:
        return "NULL"
    if isinstance(value, int):
        return str(int(value))
    return str(escape_item(value, "utf8mb4"))


def _mysql(url: str, pool: int, newest_url: Callable[[], str]) -> AsyncEngine:
    engine = create_async_engine(
        url,
        isolation_level="READ COMMITTED",
        pool_size=pool,
        max_overflow=0,
        pool_timeout=5,
        pool_pre_ping=True,
        pool_recycle=1800,
        json_serializer=_json,
        connect_args={
            "charset": "utf8mb4",
            "connect_timeout": 5,
            "init_command": f"SET time_zone = '+00:00', sql_mode = '{_SQL_MODE}', group_concat_max_len = {_LONGEST_TEXT}",
        },
    )

    log_in_by(engine, newest_url)

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver escapes a text character by character, which takes a fifth of a worker's time.
        connection.driver_connection.escape = _literal

    _ = configure
    return engine


def _sqlite(url: str, pool: int) -> AsyncEngine:
    engine = create_async_engine(
        url, pool_size=pool, max_overflow=0, json_serializer=_json, connect_args={"timeout": 10, "async_creator_fn": connect}
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver itself only begins a transaction before writes, so that two readers of one row would overwrite each other.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON", f"wal_autocheckpoint={_WAL_PAGES}"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        reading = connection.get_execution_options().get("pmp_reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    _ = configure, begin
    return engine
