"""Transactions: their order, and retries after conflicts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from functools import cache
from typing import Any, Final, TypeVar, cast

from sqlalchemy import CursorResult, Delete, Insert, Table, Update
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker

from kit.database.turns import Turns
from kit.outages import code_of

_Result = TypeVar("_Result")
_Key = TypeVar("_Key", str, int, tuple[str, str], tuple[str, int], tuple[str, str, int])

_READING: Final[dict[str, Any]] = {"pmp_reading": True}
"""Execution options of a read-only transaction."""
# A deadlock, or a lock wait timeout: https://dev.mysql.com/doc/refman/8.0/en/innodb-error-handling.html
_CONFLICTS: Final = frozenset({1020, 1205, 1213})
_ATTEMPTS: Final = 5
_AT_ONCE: Final = 500


class Sessions(async_sessionmaker[AsyncSession]):
    """Creates the sessions of one database, and orders its write transactions."""

    def __init__(self, engine: AsyncEngine, *, one_writer: bool = False) -> None:
        super().__init__(engine, expire_on_commit=False, autoflush=False)
        self.turns = Turns(one_at_a_time=one_writer or engine.dialect.name == "sqlite")

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[AsyncSession]:
        """Begins a read-only transaction: in SQLite it takes no lock that a writer waits for."""
        async with self() as session:
            await session.connection(execution_options=_READING)
            yield session


async def rowcount(session: AsyncSession, statement: Update | Delete) -> int:
    """Executes an UPDATE or DELETE.

    Returns:
        The number of rows matched.
    """
    result = await session.execute(statement)
    return cast("CursorResult[Any]", result).rowcount


def chunks(keys: Collection[_Key], size: int = _AT_ONCE) -> Iterator[Sequence[_Key]]:
    """Yields keys in order, in chunks of as many as one statement takes."""
    ordered = sorted(keys)
    return (ordered[start : start + size] for start in range(0, len(ordered), size))


async def lock_rows(session: AsyncSession, table: Table, keys: Sequence[Mapping[str, Any]]) -> None:
    """Locks rows by their primary keys until the transaction ends; inserts those that do not exist.

    In SQLite a write transaction has locked the whole database: nothing is done, and a row may not exist.
    """
    if session.get_bind().dialect.name != "sqlite":
        await upsert(session, table, keys)


async def upsert(session: AsyncSession, table: Table, rows: Sequence[Mapping[str, Any]], changing: Sequence[str] = ()) -> None:
    """Inserts rows; of existing primary keys updates the columns in `changing`, or all. The rows stay locked."""
    if not rows:
        return
    await session.execute(_upsert(table, tuple(changing or rows[0]), session.get_bind().dialect.name), rows)


@cache
def _upsert(table: Table, columns: tuple[str, ...], dialect: str) -> Insert:
    """Builds the statement of `upsert`. Cached, since building it costs as much as executing it."""
    keys = {column.name for column in table.primary_key}
    names = [name for name in columns if name not in keys] or [next(iter(keys))]
    if dialect == "mysql":
        theirs = mysql.insert(table)
        # VALUES() is supported by both MySQL 8.0 and MariaDB.
        return theirs.on_duplicate_key_update({name: theirs.inserted[name] for name in names})
    ours = sqlite.insert(table)
    return ours.on_conflict_do_update(index_elements=sorted(keys), set_={name: ours.excluded[name] for name in names})


async def increase(session: AsyncSession, table: Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Inserts rows; where the primary key exists, adds the other columns to those of the row. The rows stay locked."""
    if rows:
        await session.execute(_increase(table, session.get_bind().dialect.name), rows)


@cache
def _increase(table: Table, dialect: str) -> Insert:
    """Builds the statement of `increase`."""
    keys = [column.name for column in table.primary_key]
    counts = [column for column in table.c if column.name not in keys]
    if dialect == "mysql":
        theirs = mysql.insert(table)
        return theirs.on_duplicate_key_update({column.name: column + theirs.inserted[column.name] for column in counts})
    ours = sqlite.insert(table)
    added = {column.name: column + ours.excluded[column.name] for column in counts}
    return ours.on_conflict_do_update(index_elements=keys, set_=added)


async def transact(sessions: Sessions, work: Callable[[AsyncSession], Awaitable[_Result]], *, follows: bool = False) -> _Result:
    """Does work in one transaction; retries it after a conflict: a deadlock, or a row that another transaction has inserted.

    Args:
        sessions: of the database.
        work: is done in the given transaction.
        follows: whether no caller waits for it, so that calls take precedence.

    Raises:
        Exception: the work's own error, or a conflict in five attempts.
    """
    turns = sessions.turns
    async with turns.follower() if follows else turns.call():
        return await run_transaction(sessions, work)


async def run_transaction(sessions: Sessions, work: Callable[[AsyncSession], Awaitable[_Result]]) -> _Result:
    """Does work in one transaction, as `transact` does, without waiting for a turn."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with sessions.begin() as session:
                return await work(session)
        except DBAPIError as error:
            if attempt == _ATTEMPTS or not (isinstance(error, IntegrityError) or code_of(error) in _CONFLICTS):
                raise
    raise AssertionError
