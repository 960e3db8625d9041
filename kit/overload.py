"""What a process does when it is asked for more than it can do: it takes fewer calls at once, and begins nothing that comes too late."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from typing import Final

from kit.errors import Overloaded

BUSY: Final = "the service is busy; nothing was kept, try again later"

_LEAST_CALLS: Final = 16
_CUT: Final = 0.7

_leaves_at: ContextVar[float] = ContextVar("leaves_at", default=math.inf)


def expect(seconds: float | None) -> None:
    """Says that the current caller waits so long from now; None for as long as it takes."""
    if seconds is not None:
        _leaves_at.set(asyncio.get_running_loop().time() + seconds)


def leaves_at() -> float:
    """When the current caller leaves, in the loop's time; infinity when nobody said."""
    return _leaves_at.get()


class Limit:
    """How many calls of one rpc are under way at once: as many as are answered in time.

    It grows by one with each call that was quick, and shrinks to a part of what was under way when one was slow, as TCP's
    congestion window does. What comes on top is refused at once, so that those that were taken are answered in time.

    Args:
        most: the most there may ever be.
        slow: seconds after which a call was slow.
    """

    def __init__(self, most: int, slow: float) -> None:
        self._most = self._limit = most
        self._slow = slow
        self._running = 0
        self._shrunk_at = -math.inf

    def begin(self) -> None:
        """Takes a call in; `end` follows.

        Raises:
            Overloaded: there are too many.
        """
        if self._running >= self._limit:
            raise Overloaded(BUSY)
        self._running += 1

    def end(self, began: float, now: float) -> None:
        """Learns from a call that was taken in, at its end, by any clock."""
        if now - began > self._slow:
            if began > self._shrunk_at:  # what was under way then says nothing new
                self._limit = min(self._most, max(_LEAST_CALLS, int(self._running * _CUT)))
                self._shrunk_at = now
        elif self._limit < min(self._most, 2 * self._running):
            self._limit += 1
        self._running -= 1
