"""Opens the log where a URL says that it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from redis.asyncio import Redis

from kit.credentials.urls import is_redis_cluster
from kit.log.redis.cluster import ClusterLog
from kit.log.redis_log import RedisLog
from kit.log.streams import Watermarks
from kit.redis_client import cluster_client, connection_pool

_CONNECTIONS: Final = 256
"""Most connections to one Redis for what is no append."""


@asynccontextmanager
async def open_log(url: str, *, floors: Watermarks | None = None, newest_url: Callable[[], str] | None = None) -> AsyncGenerator[RedisLog]:
    """Opens the log at `url`, lazily.

    Before the first append on each new connection the log is reconciled with `floors`; while those can't be read, nothing
    is appended. Nothing is retried silently: a broken connection is an error, since what was sent may have taken
    effect. Of `newest_url` each new connection takes the user and the password.
    """
    connect = partial(connection_pool, url, newest_url)
    if is_redis_cluster(url):
        redis = cluster_client(url, newest_url, max_connections=_CONNECTIONS)
        log: RedisLog = ClusterLog(redis, connect, floors)
    else:
        redis = Redis.from_pool(connect(max_connections=_CONNECTIONS))
        log = RedisLog(redis, connect, floors)
    try:
        yield log
    finally:
        await log.close()
        await redis.aclose()
