"""aiosqlite with one visit of the connection's thread per statement.

Through SQLAlchemy's adapter a statement takes four: to make a cursor, to execute it, to fetch its rows, to close it. With the short
statements of a service these visits cost more than the statements.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final, Self

import aiosqlite
from typing_extensions import override

_CHUNK_ROWS: Final = 64


class _Cursor(aiosqlite.Cursor):
    """A cursor that has fetched all rows when its statement is executed."""

    _rows: Sequence[Any] = ()

    async def __aenter__(self) -> Self:
        return self

    @override
    async def execute(self, sql: str, parameters: Any = None) -> Self:
        self._rows = await self._execute(self._run, sql, parameters or ())
        return self

    @override
    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, ()
        return rows

    @override
    async def close(self) -> None:
        """Does nothing: with its last row fetched the statement has ended."""

    def _run(self, sql: str, parameters: Any) -> Sequence[Any]:
        self._cursor.execute(sql, parameters)
        return self._cursor.fetchall() if self._cursor.description else ()


class _Connection(aiosqlite.Connection):
    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, _CHUNK_ROWS)
        # As SQLAlchemy does: a connection that was not closed must not keep the process alive.
        self._thread.daemon = True

    @override
    def cursor(self) -> Any:
        return _Cursor(self, self._conn.cursor())


def connect(database: str, **options: Any) -> aiosqlite.Connection:
    """Makes a connection, as SQLAlchemy's `async_creator_fn`.

    Args:
        database: path of the file.
        options: of `sqlite3.connect`; for a file SQLAlchemy allows other threads to make and drop cursors.
    """
    return _Connection(partial(sqlite3.connect, database, **options))
