"""The connection on which a process appends to one Redis."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from redis.exceptions import ResponseError

from kit.redis_client import ANSWER_SECONDS, Connect, ConnectionCount, Node

Reconcile: TypeAlias = Callable[[], Awaitable[None]]
"""Makes a Redis that may have lost entries safe to append to."""


class AppendConnection:
    """One connection for one group of appends at a time: taking it from a pool and giving it back costs half as much as an append.

    Args:
        connect: makes the pool of the connection.
        node: of a cluster.
        reconcile: is awaited before the first append on each new connection; while it raises, nothing is appended.
    """

    def __init__(self, connect: Connect, node: Node | None, reconcile: Reconcile | None) -> None:
        self._connections = ConnectionCount()
        # redis-py's types don't cover what its commands return.
        self._pool: Any = connect(node=node, redis_connect_func=self._connections.connected)
        self._connection: Any = self._pool.make_connection()
        self._free = asyncio.Lock()
        self._reconcile = reconcile
        self._reconciled = 0

    async def execute(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        """Returns the answers to commands, all of which are sent in one round trip; an error of Redis is an answer."""
        async with self._free:
            return await self._answers(commands)

    def reconcile_again(self) -> None:
        """Reconciles before the next append: Redis may have lost something though the connection stayed, as by FLUSHALL."""
        self._reconciled = 0

    async def close(self) -> None:
        """Closes the connection."""
        await self._connection.disconnect()

    async def _answers(self, commands: Sequence[tuple[Any, ...]]) -> Sequence[Any]:
        connection = self._connection
        try:
            await self._pool.ensure_connection(connection)
            if self._reconcile and self._reconciled != self._connections.made:
                await self._reconcile()
                self._reconciled = self._connections.made
            await connection.send_packed_command(connection.pack_commands(commands))
            answers: list[Any] = []
            # One timer for all answers: the client's own would be set anew for each.
            async with asyncio.timeout(ANSWER_SECONDS):
                for _ in commands:
                    try:
                        answers.append(await connection.read_response(timeout=math.inf))
                    except ResponseError as error:
                        answers.append(error)
        except BaseException:
            # Some answers are still under way: no later call may read them.
            await connection.disconnect(nowait=True)
            raise
        return answers
