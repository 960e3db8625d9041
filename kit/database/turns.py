"""The order of write transactions in a process: calls, whose callers wait, take precedence over followers."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final, TypeAlias

from kit.overload import CALLS

_CALLS_FIRST: Final = 8
"""How many calls may overtake a waiting follower: they delay it, and never starve it."""

_Queue: TypeAlias = deque[asyncio.Future[None]]


class Turns:
    """The order of write transactions of one process on one database.

    Waiting for a turn holds no connection and no lock, and can be cancelled.

    Args:
        one_at_a_time: whether the database runs one write transaction at a time, and so would order them itself, without precedence.
    """

    def __init__(self, *, one_at_a_time: bool) -> None:
        self._one_at_a_time = one_at_a_time
        self._running = self._calling = self._ahead = 0
        self._calls: _Queue = deque()
        self._followers: _Queue = deque()

    @asynccontextmanager
    async def call(self) -> AsyncGenerator[None]:
        """Waits for the turn of a call; turns are in the order of the calls."""
        await self._turn(self._calls)
        try:
            yield
        finally:
            self._calling -= 1
            self._end()

    @asynccontextmanager
    async def follower(self) -> AsyncGenerator[None]:
        """Waits for the turn of a follower: when no call is in progress or waits for its own turn, or enough of them went first."""
        await CALLS.give_way()
        await self._turn(self._followers)
        try:
            yield
        finally:
            self._end()

    async def _turn(self, queue: _Queue) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        queue.append(turn)
        self._give()
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._calling -= queue is self._calls
                self._end()
            raise

    def _end(self) -> None:
        self._running -= 1
        self._give()

    def _give(self) -> None:
        """Gives turns to all that may run now."""
        while not (self._one_at_a_time and self._running):
            if self._next(self._followers) and (self._ahead >= _CALLS_FIRST or not (self._calling or self._next(self._calls))):
                self._ahead = 0
                self._start(self._followers)
            elif self._next(self._calls):
                self._calling += 1
                self._ahead += bool(self._followers)
                self._start(self._calls)
            else:
                return

    def _start(self, queue: _Queue) -> None:
        self._running += 1
        queue.popleft().set_result(None)

    @staticmethod
    def _next(queue: _Queue) -> bool:
        """True if a queue has a waiter; drops cancelled ones from its front."""
        while queue and queue[0].done():
            queue.popleft()
        return bool(queue)
