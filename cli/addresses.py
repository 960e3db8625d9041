"""Addresses that users give: of the gateway's listener, the databases and Redis."""

from __future__ import annotations

from ipaddress import ip_address

from cli.errors import CommandFailed
from kit.credentials.urls import node_url


def checked_host(host: str) -> str:
    """Returns the address if the gateway can listen on it.

    Raises:
        CommandFailed: it is not an IP address.
    """
    try:
        return str(ip_address(host))
    except ValueError:
        message = f"the host must be an IP address such as 127.0.0.1, or 0.0.0.0 for all of this machine's, not {host!r}"
        raise CommandFailed(message) from None


def checked_database_url(url: str) -> str:
    """Returns the URL if services can use it.

    Raises:
        CommandFailed: it has no `{service}`, or a driver that the mesh does not support.
    """
    if "{service}" not in url or not url.startswith(("mysql+aiomysql://", "sqlite+aiosqlite://")):
        message = "the database URL must be like mysql+aiomysql://user:password@host:3306/{service}: each service has a database of its own"
        raise CommandFailed(message)
    return url


def checked_redis_url(url: str) -> str:
    """Returns the URL if it is a Redis URL.

    Raises:
        CommandFailed: it is not.
    """
    if not node_url(url).startswith(("redis://", "rediss://", "unix://")):
        message = "the Redis URL must be like redis://:password@host:6379 (rediss:// with TLS, redis+cluster:// for a cluster)"
        raise CommandFailed(message)
    return url
