"""Load shedding: an overloaded process limits its concurrency, starts no call that would finish too late, and lets what follows wait."""

from __future__ import annotations

import asyncio
import math
from contextlib import suppress
from contextvars import ContextVar
from typing import Final

from kit.errors import Overloaded

BUSY: Final = "the service is busy; nothing was kept, try again later"

_LONGEST_WAIT: Final = 1.0
"""Seconds that calls may hold up a transaction which nobody waits for: they delay it, and never starve it."""
_LEAST_CALLS: Final = 16
_CUT: Final = 0.7

_leaves_at: ContextVar[float] = ContextVar("leaves_at", default=math.inf)


def expect(seconds: float | None) -> None:
    """Sets the deadline of the current caller, in seconds from now; None for no deadline."""
    if seconds is not None:
        _leaves_at.set(asyncio.get_running_loop().time() + seconds)


def leaves_at() -> float:
    """Returns the deadline of the current caller, in the loop's time; infinity without one."""
    return _leaves_at.get()


class CallsInProgress:
    """The calls that this process is handling, whose callers wait: what nobody waits for gives way to them.

    Between two statements of a call everything else has its turn. Where the processor is short, a call of twenty statements would take
    twenty times as long as all consumers of its process together do for one.
    """

    def __init__(self) -> None:
        self._calls = 0
        self._ended: asyncio.Event | None = None
        """Set when the last call ends, if somebody waits for that."""

    def begin(self) -> None:
        """Notes a call; `end` follows."""
        self._calls += 1

    def end(self) -> None:
        """Notes the end of a call."""
        self._calls -= 1
        if self._ended is not None and not self._calls:
            self._ended.set()
            self._ended = None

    async def give_way(self) -> None:
        """Waits until no call is in progress, at most a second."""
        if not self._calls:
            return
        if self._ended is None:
            self._ended = asyncio.Event()
        with suppress(TimeoutError):
            async with asyncio.timeout(_LONGEST_WAIT):
                await self._ended.wait()


CALLS: Final = CallsInProgress()
"""Those of this process."""


class Limit:
    """The adaptive concurrency limit of one rpc: as many calls as are answered in time.

    It grows by one with each fast call, and shrinks to a fraction of the running calls when one was slow, as TCP's congestion window
    does. Calls above the limit are refused immediately, so that those that were accepted are answered in time.

    Args:
        most: the upper bound of the limit.
        slow: the duration in seconds above which a call is slow.
    """

    def __init__(self, most: int, slow: float) -> None:
        self._most = self._limit = most
        self._slow = slow
        self._running = 0
        self._shrunk_at = -math.inf

    def begin(self) -> None:
        """Accepts a call; `end` follows.

        Raises:
            Overloaded: the limit is reached.
        """
        if self._running >= self._limit:
            raise Overloaded(BUSY)
        self._running += 1

    def end(self, began: float, now: float) -> None:
        """Ends an accepted call and adapts the limit; the times are of any one clock."""
        if now - began > self._slow:
            if began > self._shrunk_at:  # calls that were running then add no information
                self._limit = min(self._most, max(_LEAST_CALLS, int(self._running * _CUT)))
                self._shrunk_at = now
        elif self._limit < min(self._most, 2 * self._running):
            self._limit += 1
        self._running -= 1
