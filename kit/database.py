"""One database per service: MySQL through aiomysql or SQLite through aiosqlite, with the same models and promises.

Every transaction reads committed rows and is serialised where it writes: MySQL runs under READ COMMITTED with row
locks, SQLite takes its write lock when a transaction begins.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from contextvars import Context, copy_context
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import cache, lru_cache
from typing import Any, Final, Generic, TypeVar, cast

import orjson
from pymysql.converters import escape_item
from sqlalchemy import (
    BigInteger,
    CursorResult,
    DateTime,
    Delete,
    Dialect,
    Insert,
    Integer,
    Numeric,
    String,
    Table,
    Text,
    Update,
    event,
    make_url,
    text,
)
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, async_sessionmaker, create_async_engine
from sqlalchemy.types import TypeDecorator
from typing_extensions import override

from kit.errors import Overloaded
from kit.outages import code_of, is_outage
from kit.overload import BUSY, leaves_at
from kit.turns import Turns

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")

READING: Final[dict[str, Any]] = {"pmp_reading": True}
"""Execution options of a transaction that only reads: `await session.connection(execution_options=READING)`."""

MYSQL: Final[dict[str, Any]] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4"}
"""How every table is made where the server lets one choose."""

_SQL_MODE: Final = "STRICT_ALL_TABLES,NO_ZERO_DATE,NO_ZERO_IN_DATE,ERROR_FOR_DIVISION_BY_ZERO"

# A deadlock, or a lock waited for too long: https://dev.mysql.com/doc/refman/8.0/en/innodb-error-handling.html
_LOST_RACES: Final = frozenset({1020, 1205, 1213})
_ATTEMPTS: Final = 5
_COMPANY: Final = 32
"""So much work shares a transaction: few wait long for others, and hardly anything is gained by more."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime, kept as UTC in DATETIME(6). Servers round or drop what is finer, so nothing finer is sent."""

    impl = DateTime
    cache_ok = True

    @override
    def load_dialect_impl(self, dialect: Dialect) -> Any:
        return dialect.type_descriptor(mysql.DATETIME(fsp=6) if dialect.name == "mysql" else DateTime())

    @override
    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        if value is None:
            return None
        if dialect.name == "mysql":
            return _utc_text(value)
        return value.astimezone(UTC).replace(tzinfo=None)

    @override
    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return None if value is None else value.replace(tzinfo=UTC)


class Id(TypeDecorator[str]):
    """An identifier that is compared byte by byte: MySQL's default collation takes `A` and `a` for one."""

    impl = String
    cache_ok = True

    def __init__(self, length: int = 255) -> None:
        super().__init__(length)
        self.length = length

    @override
    def load_dialect_impl(self, dialect: Dialect) -> Any:
        own = mysql.VARCHAR(self.length, charset="utf8mb4", collation="utf8mb4_bin")
        return dialect.type_descriptor(own if dialect.name == "mysql" else String(self.length))


class Exact(TypeDecorator[Decimal]):
    """A decimal that comes back as it went in. SQLite has none, and would keep a binary fraction: there it is text."""

    impl = Numeric
    cache_ok = True

    def __init__(self, precision: int = 19, scale: int = 4) -> None:
        super().__init__(precision, scale)
        self.precision = precision
        self.scale = scale

    @override
    def load_dialect_impl(self, dialect: Dialect) -> Any:
        own: Any = String(self.precision + 2) if dialect.name == "sqlite" else Numeric(self.precision, self.scale)
        return dialect.type_descriptor(own)

    @override
    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> Any:
        if value is None or dialect.name != "sqlite":
            return value
        return f"{value.quantize(Decimal(1).scaleb(-self.scale), ROUND_HALF_UP):f}"

    @override
    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


LongText: Final = Text().with_variant(mysql.LONGTEXT(), "mysql")
"""Text of more than the 64 KiB that MySQL's TEXT holds."""
Serial: Final = BigInteger().with_variant(Integer(), "sqlite")
"""A number that rows get by themselves: SQLite does so only for a column declared INTEGER."""


class Sessions(async_sessionmaker[AsyncSession]):
    """Makes the sessions of one database, and knows whose turn it is to write."""

    def __init__(self, engine: AsyncEngine, *, one_writer: bool = False) -> None:
        super().__init__(engine, expire_on_commit=False, autoflush=False)
        self.turns = Turns(one_at_a_time=one_writer or engine.dialect.name == "sqlite")


class Database:
    """A pool of connections to one service's database.

    Args:
        one_writer: all write transactions take the same lock.
    """

    def __init__(self, engine: AsyncEngine, *, one_writer: bool = False) -> None:
        self.engine = engine
        self.sessions = Sessions(engine, one_writer=one_writer)

    async def check(self) -> None:
        """Raises what keeps the database from answering."""
        async with self.sessions() as session:
            await session.connection(execution_options=READING)
            await session.execute(text("SELECT 1"))

    async def scrub(self) -> bool:
        """Takes what was deleted or overwritten out of SQLite's files; False while others are at work there.

        `secure_delete` overwrites a row that goes, and not the copies that are left when rows move to other pages: those go
        with the old pages. The write-ahead log keeps all that was written until it is emptied.
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


@asynccontextmanager
async def open_database(url: str, pool: int = 8, *, one_writer: bool = False) -> AsyncGenerator[Database]:
    """Opens a database lazily; closes its connections at the end.

    Args:
        url: SQLAlchemy's.
        pool: most connections.
        one_writer: all write transactions take the same lock, so that they wait for it in the process.
    """
    engine = _sqlite(url, pool) if make_url(url).get_backend_name() == "sqlite" else _mysql(url, pool)
    try:
        yield Database(engine, one_writer=one_writer)
    finally:
        await engine.dispose()


async def changed(session: AsyncSession, statement: Update | Delete) -> int:
    """Executes an UPDATE or DELETE; says how many rows it found."""
    result = await session.execute(statement)
    return cast("CursorResult[Any]", result).rowcount


async def upsert(session: AsyncSession, table: Table, rows: Sequence[Mapping[str, Any]], changing: Sequence[str] = ()) -> None:
    """Inserts rows; where there is one of the same primary key, changes the columns named, or all that are given. The rows stay locked."""
    if not rows:
        return
    await session.execute(_upsert(table, tuple(changing or rows[0]), session.get_bind().dialect.name), rows)


@cache
def _upsert(table: Table, columns: tuple[str, ...], dialect: str) -> Insert:
    """The statement of `upsert`: making it and its key anew costs as much as sending it."""
    keys = {column.name for column in table.primary_key}
    names = [name for name in columns if name not in keys] or [next(iter(keys))]
    if dialect == "mysql":
        theirs = mysql.insert(table)
        # VALUES() is what MySQL 8.0 and MariaDB both know.
        return theirs.on_duplicate_key_update({name: theirs.inserted[name] for name in names})
    ours = sqlite.insert(table)
    return ours.on_conflict_do_update(index_elements=sorted(keys), set_={name: ours.excluded[name] for name in names})


async def transact(sessions: Sessions, work: Callable[[AsyncSession], Awaitable[_Result]], *, follows: bool = False) -> _Result:
    """Does work in one transaction, from its beginning again when it lost a race: a deadlock, or a row that another made meanwhile.

    Args:
        sessions: where.
        work: what is done in the transaction given.
        follows: nobody waits for it, so that calls go first.

    Raises:
        Exception: what the work raises, or a race that was lost five times.
    """
    turns = sessions.turns
    async with turns.follower() if follows else turns.call():
        return await _transact(sessions, work)


async def _transact(sessions: Sessions, work: Callable[[AsyncSession], Awaitable[_Result]]) -> _Result:
    """Does the work whose turn it is."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            async with sessions.begin() as session:
                return await work(session)
        except DBAPIError as error:
            if attempt == _ATTEMPTS or not (isinstance(error, IntegrityError) or code_of(error) in _LOST_RACES):
                raise
    raise AssertionError


@dataclass(frozen=True, slots=True)
class _Asked(Generic[_Work, _Result]):
    """Work, and who waits for it."""

    work: _Work
    result: asyncio.Future[_Result]
    context: Context
    leaves_at: float
    """When that is given up, in the loop's time."""


class Together(Generic[_Work, _Result]):
    """Does work that is asked for at the same time in one transaction, since a transaction costs more than most of what is in it.

    Work that fails in company is done again by itself, so that nobody has to answer for others.

    Args:
        do: does some work in the transaction given; answers the result of each, in order.
        key: work of the same key is never done together; it is in the order in which it was asked for.
    """

    def __init__(
        self,
        sessions: Sessions,
        do: Callable[[AsyncSession, Sequence[_Work]], Awaitable[Sequence[_Result]]],
        key: Callable[[_Work], object] = id,
    ) -> None:
        self._sessions = sessions
        self._do = do
        self._key = key
        self._waiting: list[_Asked[_Work, _Result]] = []
        self._doing: asyncio.Task[None] | None = None
        self._lasted = 0.0
        """Seconds that the last transaction took."""

    async def __call__(self, work: _Work) -> _Result:
        """Does the work; a caller that goes away takes it along, unless it has begun.

        Raises:
            Overloaded: its turn came so late that it could not have been done before the caller leaves; it was not begun.
            Exception: what the work raises by itself, or an outage.
        """
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(work, result, copy_context(), leaves_at()))
        if self._doing is None:
            self._doing = asyncio.create_task(self._run())
        return await result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                async with self._sessions.turns.call():
                    began = loop.time()
                    company = self._next(began + self._lasted)
                    if not company:
                        self._lasted /= 2  # one slow transaction must not be the last
                        continue
                    # What is told of the transaction, as its trace, belongs to the one who waited longest.
                    await asyncio.create_task(self._settle(company), context=company[0].context)
                    self._lasted = loop.time() - began
        finally:
            self._doing = None

    def _next(self, ends_at: float) -> Sequence[_Asked[_Work, _Result]]:
        """Those who wait longest, of each key one, and will still wait when the transaction ends."""
        company: dict[object, _Asked[_Work, _Result]] = {}
        rest: list[_Asked[_Work, _Result]] = []
        for asked in self._waiting:
            if asked.result.done():
                continue
            if asked.leaves_at < ends_at:
                asked.result.set_exception(Overloaded(BUSY))
                continue
            key = self._key(asked.work)
            if len(company) < _COMPANY and key not in company:
                company[key] = asked
            else:
                rest.append(asked)
        self._waiting = rest
        return list(company.values())

    async def _settle(self, company: Sequence[_Asked[_Work, _Result]]) -> None:
        works = [asked.work for asked in company]
        try:
            done = await _transact(self._sessions, lambda session: self._do(session, works))
        except Exception as error:  # noqa: BLE001 (every failure is an answer to those who asked)
            if len(company) > 1 and not is_outage(error):
                for asked in company:
                    await self._settle([asked])
                return
            for asked in company:
                if not asked.result.done():
                    asked.result.set_exception(error)
            return
        for asked, answer in zip(company, done, strict=True):
            if not asked.result.done():
                asked.result.set_result(answer)


@lru_cache(4096)
def _utc_text(value: datetime) -> str:
    """A time as SQL. Many rows of a statement have the same, and the driver would format each field by field."""
    return value.astimezone(UTC).isoformat(" ", "microseconds").removesuffix("+00:00")


def _json(value: object) -> str:
    return orjson.dumps(value).decode()


def _literal(value: object) -> str:
    """A value as SQL, for a connection in utf8mb4 whose sql_mode leaves backslashes their meaning.

    MySQL asks that the backslash and the enclosing quote be escaped, and no more:
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


def _mysql(url: str, pool: int) -> AsyncEngine:
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
            "init_command": f"SET time_zone = '+00:00', sql_mode = '{_SQL_MODE}'",
        },
    )

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver goes through a text character by character: a fifth of a worker's time.
        connection.driver_connection.escape = _literal

    _ = configure
    return engine


def _sqlite(url: str, pool: int) -> AsyncEngine:
    engine = create_async_engine(url, pool_size=pool, max_overflow=0, json_serializer=_json, connect_args={"timeout": 10})

    @event.listens_for(engine.sync_engine, "connect")
    def configure(connection: Any, _record: object) -> None:
        # The driver's own BEGIN comes before writes only, so that two readers of one row would overwrite each other.
        connection.isolation_level = None
        cursor = connection.cursor()
        for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Any) -> None:
        reading = connection.get_execution_options().get("pmp_reading")
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    _ = configure, begin
    return engine
