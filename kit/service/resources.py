"""What the roles of one process share."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial

from kit.database.engine import Database, lazy_database
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from kit.log.streams import Offset, TopicPartition, Watermarks
from kit.people.keys.store import Keys, open_keys
from kit.settings import Settings
from kit.telemetry.instrumentation import instrument


class Resources:
    """What the roles of a process share: the log, the keys of persons, and one pool of connections to each database.

    Args:
        watermarks: what the log is reconciled with before it is appended to; runtimes add theirs.
    """

    def __init__(self, settings: Settings, log: RedisLog, keys: Keys, watermarks: list[Watermarks]) -> None:
        self.log = log
        self.keys = keys
        self.watermarks = watermarks
        self._settings = settings
        self._databases: dict[str, Database] = {}

    def database(self, service: str, *, one_writer: bool = False) -> Database:
        """The database of a service, connected to when it is first used.

        Args:
            service: its name.
            one_writer: all write transactions take the same lock.
        """
        if service not in self._databases:
            url = partial(self._settings.database, service)
            database = lazy_database(url(), self._settings.database_pool, one_writer=one_writer, newest_url=url)
            instrument(database.engine)
            self._databases[service] = database
        return self._databases[service]

    async def close(self) -> None:
        """Closes the databases."""
        for database in self._databases.values():
            await database.close()


@asynccontextmanager
async def open_resources(settings: Settings) -> AsyncGenerator[Resources]:
    """Opens what the roles of a process share, each connection when it is first used; closes all of it at the end.

    Raises:
        InvalidKey: a key in the settings is none.
    """
    watermarks: list[Watermarks] = []

    async def floors() -> Mapping[TopicPartition, Offset]:
        return {partition: offset for read in watermarks for partition, offset in (await read()).items()}

    async with AsyncExitStack() as stack:
        keys = await stack.enter_async_context(open_keys(settings))
        log = await stack.enter_async_context(open_log(settings.log_url, floors=floors, newest_url=lambda: settings.log_url))
        resources = Resources(settings, log, keys, watermarks)
        stack.push_async_callback(resources.close)
        yield resources
