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

_ROWS: Final = 1000
"""Rows that are fetched at once."""


class _Cursor(aiosqlite.Cursor):
    """A cursor that fetches the first rows when it executes its statement: all of them, as a rule."""

    _rows: Sequence[Any] = ()
    """Rows that were fetched and not yet returned."""
    _ended = True
    """Whether there are no other rows."""

    async def __aenter__(self) -> Self:
        return self

    @override
    async def execute(self, sql: str, parameters: Any = None) -> Self:
        await self._execute(self._run, sql, parameters or ())
        return self

    @override
    async def fetchall(self) -> Sequence[Any]:
        rows, self._rows = self._rows, ()
        if self._ended:
            return rows
        others = await self._execute(self._cursor.fetchall)
        self._ended = True
        return [*rows, *others]

    @override
    async def fetchmany(self, size: int | None = None) -> Sequence[Any]:
        if not self._rows and not self._ended:
            await self._execute(self._fetch)
        size = size or self._cursor.arraysize
        rows, self._rows = self._rows[:size], self._rows[size:]
        return rows

    @override
    async def fetchone(self) -> Any:
        return next(iter(await self.fetchmany(1)), None)

    @override
    async def close(self) -> None:
        """Ends the statement; with its last row fetched it has ended."""
        if not self._ended:
            await super().close()

    def _run(self, sql: str, parameters: Any) -> None:
        self._cursor.execute(sql, parameters)
        if self._cursor.description:
            self._fetch()

    def _fetch(self) -> None:
        self._rows = self._cursor.fetchmany(_ROWS)
        self._ended = len(self._rows) < _ROWS


class _Connection(aiosqlite.Connection):
    def __init__(self, connector: Callable[[], sqlite3.Connection]) -> None:
        super().__init__(connector, _ROWS)
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
