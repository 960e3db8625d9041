"""Wakes the senders of all processes: what one process decides, another one may send."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from typing import Any, Final

import structlog
from redis.asyncio import Redis

from kit.log.runner import pause_seconds
from kit.outages import is_outage

_CHANNEL: Final = "pmp:destinations:wake"
_LINGER_SECONDS: Final = 0.05
"""What happens within this time is one signal."""

_log = structlog.get_logger(__name__)


class Waking:
    """Signals through Redis, of which nothing is kept: without it a sender looks by itself some seconds later.

    Args:
        redis: of the log.
        wake: is called when another process has signalled.
    """

    def __init__(self, redis: Redis, wake: Callable[[], None]) -> None:
        # redis-py's types don't cover what its commands return.
        self._redis: Any = redis
        self._wake = wake
        self._me = secrets.token_hex(8).encode()
        self._due = asyncio.Event()

    def signal(self) -> None:
        """Signals to all other processes that there may be more to send."""
        self._due.set()

    async def run(self) -> None:
        """Signals and listens until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._repeat(self._send))
            group.create_task(self._repeat(self._listen))

    async def _repeat(self, work: Callable[[], Any]) -> None:
        failures = 0
        while True:
            try:
                await work()
                failures = 0
            except Exception as error:  # noqa: BLE001 (whatever it is, senders look by themselves meanwhile)
                _log.warning("senders not signalled", error=type(error).__name__, exc_info=not is_outage(error))
                await asyncio.sleep(pause_seconds(failures))
                failures += 1

    async def _send(self) -> None:
        await self._due.wait()
        self._due.clear()
        await self._redis.publish(_CHANNEL, self._me)
        await asyncio.sleep(_LINGER_SECONDS)

    async def _listen(self) -> None:
        await self._redis.initialize()  # a cluster's client subscribes at a node that it knows
        async with self._redis.pubsub(ignore_subscribe_messages=True) as channel:
            await channel.subscribe(_CHANNEL)
            self._wake()  # for what was signalled before
            while True:
                message = await channel.get_message(timeout=None)
                if message is not None and message["data"] != self._me:
                    self._wake()
