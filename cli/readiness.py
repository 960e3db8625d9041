"""Readiness checks of the mesh's processes. Results are never cached."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any, cast

import grpc.aio
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from cli.plain_http import request
from cli.ports import LOOPBACK
from kit.credentials.urls import node_url

ANSWER_SECONDS = 1.0
"""Timeout of a check."""

Ready = Callable[[], Awaitable[bool]]
"""Checks whether a process is ready."""


async def service_ready(address: str, role: str = "", channel: grpc.aio.Channel | None = None) -> bool:
    """Whether the process at `host:port`, or one of its roles, serves, according to its gRPC health service.

    Args:
        address: of the process.
        role: its name; without one all of the process is meant.
        channel: to the process, if one without TLS is not enough; it is closed.
    """
    async with channel or grpc.aio.insecure_channel(address) as opened:
        try:
            health = cast("Any", HealthStub(opened))  # its types lack the rpc
            answer = await health.Check(HealthCheckRequest(service=role), timeout=ANSWER_SECONDS)
        except grpc.aio.AioRpcError:
            return False
    return bool(answer.status == HealthCheckResponse.SERVING)


async def gateway_ready(url: str) -> bool:
    """Whether the gateway at `url` and all of its services accept requests."""
    try:
        status, _ = await request("GET", f"{url}/readyz", seconds=ANSWER_SECONDS)
    except OSError:
        return False
    return status == HTTPStatus.OK


async def embedded_redis_ready(port: int, password: str) -> bool:
    """Whether the Redis that `pmp up` starts answers; it does not while it loads its data.

    Two lines of its protocol: a client would take a fifth of a second to import, and 8 MiB of the supervisor's memory.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            reader, writer = await asyncio.open_connection(LOOPBACK, port)
            try:
                writer.write(f"AUTH {password}\r\nPING\r\n".encode())
                return [await reader.readline() for _ in range(2)] == [b"+OK\r\n", b"+PONG\r\n"]
            finally:
                writer.close()
    except OSError:
        return False


async def redis_ready(url: str) -> bool:
    """Whether the Redis at `url`, or that node of a cluster, answers; it does not while it loads its data."""
    # The client takes long to import, and few supervisors need it.
    from redis.asyncio import Redis  # noqa: PLC0415
    from redis.exceptions import RedisError  # noqa: PLC0415

    try:
        client = Redis.from_url(node_url(url), socket_timeout=ANSWER_SECONDS, socket_connect_timeout=ANSWER_SECONDS)  # pyright: ignore[reportUnknownMemberType]
        async with client:
            return bool(await client.ping())  # pyright: ignore[reportUnknownMemberType]
    except (RedisError, OSError):
        return False
