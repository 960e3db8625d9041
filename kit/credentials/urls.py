"""URLs that hold credentials, as settings: parsed as those parse them who connect, so that one of no use is refused before.

The parsers are imported where they are used: the gateway reads no such setting, and does without their 20 MB.
"""

from __future__ import annotations

from typing import Any, Final

_PORTS: Final = range(1, 2**16)
_CLUSTER: Final = "+cluster"


def database_url(setting: str) -> str:
    """Checks a URL of a database.

    Raises:
        ValueError: SQLAlchemy can't connect by it. Nothing of it is repeated.
    """
    if not _names_a_database(setting):
        raise ValueError("expected a URL of a database, with %-escapes in its password")
    return setting


def redis_url(setting: str) -> str:
    """Checks a URL of a Redis.

    Raises:
        ValueError: the client of Redis can't connect by it. Nothing of it is repeated.
    """
    if not _names_a_redis(setting):
        raise ValueError("expected a URL of a Redis, with %-escapes in its password")
    return setting


def is_redis_cluster(url: str) -> bool:
    """Whether a URL names a Redis Cluster: `redis+cluster://` or `rediss+cluster://`, and any of its nodes."""
    return url.partition("://")[0].endswith(_CLUSTER)


def node_url(url: str) -> str:
    """The URL of the one Redis that a URL names: of a cluster, the node that is asked first for the others."""
    scheme, separator, rest = url.partition("://")
    return scheme.removesuffix(_CLUSTER) + separator + rest


def _names_a_database(setting: str) -> bool:
    from sqlalchemy import make_url  # noqa: PLC0415
    from sqlalchemy.exc import ArgumentError  # noqa: PLC0415

    try:
        url = make_url(setting)
    except (ArgumentError, ValueError):
        return False
    # What follows an @ in an account or a password is taken for the host, what follows a slash in an account for the database.
    is_split = "@" in (url.host or "") or (bool(url.host) and "@" in (url.database or ""))
    return not is_split and (url.port is None or url.port in _PORTS)


def _names_a_redis(setting: str) -> bool:
    from redis.asyncio.connection import parse_url  # noqa: PLC0415

    try:
        named: Any = parse_url(node_url(setting))
    except ValueError:
        return False
    if is_redis_cluster(setting) and (named.get("db") or not named.get("host")):
        return False
    # What follows a slash in a password is taken for the database: the rest names no host.
    return bool(named.get("host") or named.get("path")) or ("://" in setting and "@" not in setting)
