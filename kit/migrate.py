"""Upgrades a service's database and the database of persons' keys to the newest revision: `python -m kit.migrate ingestion`.

For a service without a database there is nothing to do.

The kit's own tables are one branch of the migrations and the service's another; both are upgraded to their heads.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import stamina
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Connection, make_url, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import create_async_engine

from kit.database.engine import open_database
from kit.database.logins import log_in_by
from kit.database.revisions import branches, has_database, is_of_later_release
from kit.outages import is_outage
from kit.settings import KEYS_DATABASE, Settings

_ENVIRONMENT = Path(__file__).resolve().parent / "database" / "alembic"
_LOCK_SECONDS = 120
_SERVER_SECONDS = 600
# Access denied to the database or to a table: https://dev.mysql.com/doc/mysql-errors/8.0/en/server-error-reference.html
_DENIED = frozenset({1044, 1142})


async def migrate(service: str, url: str) -> None:
    """Upgrades the database of `service`, or that of keys, at `url`; on a database server it is created first if missing.

    One that a later release has migrated stays as it is. Several processes may call it at once: one of them migrates, the others wait
    and find nothing to do.

    Raises:
        FileNotFoundError: the service doesn't exist.
        TimeoutError: another process held the migration lock for two minutes.
    """
    if make_url(url).get_backend_name() == "mysql":
        await _create(url)
    async with open_database(url) as database, database.engine.connect() as connection:
        await connection.run_sync(_upgrade, service)
        await connection.commit()


async def _create(url: str) -> None:
    """Creates the database if it doesn't exist and the account may create it."""
    target = make_url(url)
    name = target.database or ""
    engine = create_async_engine(target.set(database="information_schema"), isolation_level="AUTOCOMMIT")
    log_in_by(engine, lambda: url)
    try:
        async with engine.connect() as connection:
            exists = await connection.scalar(text("SELECT 1 FROM information_schema.schemata WHERE schema_name = :name"), {"name": name})
            if not exists:
                quoted = connection.dialect.identifier_preparer.quote_identifier(name)
                await connection.execute(text(f"CREATE DATABASE IF NOT EXISTS {quoted} CHARACTER SET utf8mb4"))
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, database: str) -> None:
    locked = connection.dialect.name == "mysql"
    # DDL commits by itself on MySQL, so the lock has to outlive the transaction; SQLite holds its write lock from BEGIN on.
    if locked and connection.scalar(text("SELECT GET_LOCK(CONCAT('pmp.', DATABASE()), :wait)"), {"wait": _LOCK_SECONDS}) != 1:
        message = f"another migration of {connection.engine.url.database} is still running"
        raise TimeoutError(message)
    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(_ENVIRONMENT))
    config.set_main_option("path_separator", "newline")
    config.set_main_option("version_locations", "\n".join(map(str, branches(database).values())))
    try:
        if not is_of_later_release(database, MigrationContext.configure(connection).get_current_heads()):
            command.upgrade(config, "heads")
        connection.commit()
    finally:
        if locked:
            connection.execute(text("SELECT RELEASE_LOCK(CONCAT('pmp.', DATABASE()))"))


async def _migrate_when_ready(name: str, url: str, *, with_account: bool = False) -> None:
    """Upgrades a database; waits for its server for at most ten minutes.

    Args:
        name: of the database.
        url: its URL.
        with_account: also waits until a service that has the right to has created it.

    Raises:
        DBAPIError: the server is not ready yet, or refuses.
    """

    def is_passing(error: Exception) -> bool:
        if not is_outage(error) and not (with_account and _is_denied(error)):
            return False
        reason = error.orig if isinstance(error, DBAPIError) else error
        print(f"waiting for the database {name}: {reason}", flush=True)  # noqa: T201  (the log of a container)
        return True

    async for attempt in stamina.retry_context(on=is_passing, attempts=None, timeout=_SERVER_SECONDS, wait_initial=1, wait_max=5):
        with attempt:
            await migrate(name, url)


def _is_denied(error: Exception) -> bool:
    reason = error.orig if isinstance(error, DBAPIError) else None
    return reason is not None and reason.args[0] in _DENIED


async def _main(service: str) -> None:
    if not has_database(service):
        return
    stamina.instrumentation.set_on_retry_hooks([])
    settings = Settings()  # pyright: ignore[reportCallIssue]
    await _migrate_when_ready(service, settings.database(service))
    await _migrate_when_ready(KEYS_DATABASE, settings.keys_database_url, with_account=True)


if __name__ == "__main__":
    asyncio.run(_main(sys.argv[1]))
