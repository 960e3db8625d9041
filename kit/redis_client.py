"""Connections to Redis, and its append-only file."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol, TypeAlias

from redis.asyncio import ConnectionPool, Redis, RedisCluster
from redis.asyncio.connection import AbstractConnection, SSLConnection, parse_url
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.credentials import CredentialProvider
from typing_extensions import override

from kit.credentials.urls import node_url

Node: TypeAlias = tuple[str, int]
"""Host and port of a node of a Redis Cluster."""

ANSWER_SECONDS: Final = 10.0
"""How long an answer is waited for."""
_SHARED_SECONDS: Final = 0.02
"""How long the first of several callers waits for others."""
_WAITS: Final[dict[str, Any]] = {"socket_connect_timeout": 5, "socket_timeout": ANSWER_SECONDS}
_ONCE: Final = Retry(NoBackoff(), 0)
_REWRITE_LOOKS: Final = 200
_REWRITE_SECONDS: Final = 0.05


class _Cancellable(AbstractConnection):
    """A connection whose writes can be cancelled, and that reads its certificates anew whenever it connects.

    The client bounds a write by `asyncio.wait_for`, which on Python 3.11 swallows a cancellation that arrives as the write
    ends (https://github.com/python/cpython/issues/86296): the work that was cancelled would go on.
    """

    @override
    async def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        task = asyncio.current_task()
        cancelled = task.cancelling() if task else 0
        await super().send_packed_command(command, check_health)
        if task and task.cancelling() > cancelled:
            # The answer is still under way: no later call may read it.
            await self.disconnect(nowait=True)
            raise asyncio.CancelledError

    @override
    async def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        if isinstance(self, SSLConnection) and not self.is_connected:
            self.ssl_context.context = None
        await super().connect_check_health(check_health, retry_socket_connect)


class _Login(CredentialProvider):
    """The user and the password of a URL at the moment of a login."""

    def __init__(self, url: Callable[[], str]) -> None:
        self._url = url

    @override
    def get_credentials(self) -> Any:
        named: Any = parse_url(node_url(self._url()))
        return tuple(named[name] for name in ("username", "password") if name in named)

    @override
    async def get_credentials_async(self) -> Any:
        return self.get_credentials()


class Connect(Protocol):
    """Makes a pool of connections, of a node of a cluster or where the URL leads."""

    def __call__(self, *, node: Node | None = None, **options: Any) -> ConnectionPool:
        """As `connection_pool`."""
        ...


def connection_pool(url: str, newest_url: Callable[[], str] | None = None, *, node: Node | None = None, **options: Any) -> ConnectionPool:
    """Makes a pool of connections, lazily. Nothing is sent twice: what was sent on a connection that broke may have taken effect.

    Args:
        url: as in redis-py, or of a cluster.
        newest_url: returns the URL whose user and password new connections log in with, if those may change.
        node: connects to this one of a cluster, and not to the one that the URL names.
        options: of redis-py's connections.
    """
    pool: Any = ConnectionPool.from_url(node_url(url), **_WAITS, retry=_ONCE, health_check_interval=0, **options)
    if node is not None:
        pool.connection_kwargs["host"], pool.connection_kwargs["port"] = node
    if newest_url is not None:
        for name in ("username", "password"):
            pool.connection_kwargs.pop(name, None)
        pool.connection_kwargs["credential_provider"] = _Login(newest_url)
    pool.connection_class = _cancellable(pool.connection_class)
    return pool


def cluster_client(url: str, newest_url: Callable[[], str] | None = None, *, max_connections: int) -> RedisCluster:
    """Makes a client of a Redis Cluster, lazily, with the connections of `connection_pool`.

    A command goes to the node that has its key, and after a `MOVED`, which says that nothing was done, to the one it names.
    """
    login = {"credential_provider": _Login(newest_url)} if newest_url is not None else {}
    client: Any = RedisCluster.from_url(
        node_url(url), **_WAITS, retry=_ONCE, require_full_coverage=False, max_connections=max_connections, **login
    )
    kind = _cancellable(client.connection_kwargs["connection_class"])
    client.connection_kwargs["connection_class"] = kind
    for node in client.startup_nodes:
        node.connection_class = kind
    return client


def _cancellable(connection_class: type[AbstractConnection]) -> type[AbstractConnection]:
    return type("CancellableConnection", (_Cancellable, connection_class), {})


class ConnectionCount:
    """Counts the connections that were made, so that a new one is noticed."""

    made = 0

    async def connected(self, connection: AbstractConnection) -> None:
        """Is called for each new connection (`redis_connect_func`)."""
        await connection.on_connect()
        self.made += 1


class SharedPipeline:
    """Sends the commands that several callers have at about the same time in one round trip."""

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._commands: list[tuple[Any, ...]] = []
        self._answers: asyncio.Task[list[Any]] | None = None
        self._executing: set[asyncio.Task[list[Any]]] = set()

    async def close(self) -> None:
        """Ends what no caller waits for any more: it would connect again."""
        for task in self._executing:
            task.cancel()
        await asyncio.gather(*self._executing, return_exceptions=True)

    async def execute(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """Returns the answers to a caller's commands, in order.

        Raises:
            RedisError: a command of any of the callers failed.
        """
        if not self._answers:
            self._answers = asyncio.create_task(self._execute_all())
            self._executing.add(self._answers)
            self._answers.add_done_callback(self._executing.discard)
        answers = self._answers
        first = len(self._commands)
        self._commands += commands
        return (await asyncio.shield(answers))[first : first + len(commands)]

    async def _execute_all(self) -> list[Any]:
        await asyncio.sleep(_SHARED_SECONDS)
        commands, self._commands, self._answers = self._commands, [], None
        async with self._redis.pipeline(transaction=False) as pipe:
            for command in commands:
                pipe.execute_command(*command)
            return await pipe.execute()


async def used_memory(redis: Redis) -> int:
    """Bytes of memory that Redis uses for everything it holds."""
    info: dict[str, Any] = await redis.info("memory")
    return int(info["used_memory"])


async def rewrite_append_only_file(redis: Redis) -> None:
    """Writes the append-only file anew, so that nothing stays in it that was deleted: `aof-use-rdb-preamble` has to be `no`.

    Raises:
        ConnectionError: Redis can't do it now.
    """
    # redis-py's types don't cover what its commands return.
    client: Any = redis
    before: dict[str, Any] = await client.info("persistence")
    if not before.get("aof_enabled"):
        return
    await client.bgrewriteaof()
    for _ in range(_REWRITE_LOOKS):
        await asyncio.sleep(_REWRITE_SECONDS)
        now: dict[str, Any] = await client.info("persistence")
        if not now["aof_rewrite_in_progress"] and not now["aof_rewrite_scheduled"]:
            if now["aof_last_bgrewrite_status"] == "ok":
                return
            break
    raise ConnectionError("the append-only file was not rewritten")
