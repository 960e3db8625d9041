"""How many streams there may be, and how long one lasts."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Final

from kit.errors import Overloaded

_HEARTBEAT_SECONDS: Final = 15.0
_LONGEST_SECONDS: Final = 3600.0
"""Longest time of a stream: as long as a token is valid."""
_COME_BACK_SECONDS: Final = (1.0, 5.0)
"""When clients of a process that ends should come back: not all at once."""


class Lifetimes:
    """Counts the streams of a process, and ends them.

    Args:
        most: streams at once.
        most_per_caller: streams of one caller at once.
    """

    def __init__(self, most: int, most_per_caller: int) -> None:
        self._most = most
        self._most_per_caller = most_per_caller
        self._open: Counter[tuple[str, ...]] = Counter()
        self._endings = 0
        self._is_draining = False

    @contextmanager
    def stream(self, caller: tuple[str, ...]) -> Generator[Lifetime]:
        """Counts a stream while the block lasts.

        Args:
            caller: by what it is known; by nothing if it is inside of the mesh, where a caller has as many as it wants.

        Raises:
            Overloaded: there are too many streams.
        """
        if any(caller) and self._open[caller] >= self._most_per_caller:
            raise Overloaded(f"this caller has {self._most_per_caller} streams open: close one first")
        if self._open.total() >= self._most:
            raise Overloaded("there are too many streams; try again later")
        self._open[caller] += 1
        try:
            yield Lifetime(self)
        finally:
            self._open[caller] -= 1
            if not self._open[caller]:
                del self._open[caller]

    def end_all(self, *, for_good: bool) -> None:
        """Ends the streams that are open; for good, also those that are opened from now on. Their readers still have to be woken."""
        self._endings += 1
        self._is_draining |= for_good

    @property
    def endings(self) -> int:
        """How often all streams were ended."""
        return self._endings

    @property
    def is_draining(self) -> bool:
        """Whether all streams end, and no new one lasts."""
        return self._is_draining


class Lifetime:
    """The time of one stream, which begins now."""

    def __init__(self, lifetimes: Lifetimes) -> None:
        self._lifetimes = lifetimes
        self._endings = lifetimes.endings
        self._ends_at = asyncio.get_running_loop().time() + _LONGEST_SECONDS

    @property
    def is_over(self) -> bool:
        """Whether the stream has to end."""
        ended = self._lifetimes.is_draining or self._lifetimes.endings != self._endings
        return ended or asyncio.get_running_loop().time() >= self._ends_at

    async def wait(self, changed: asyncio.Event, written: Callable[[], float] | None = None) -> bool:
        """Waits until something has changed; returns False when it is time for a heartbeat, or for the end.

        Args:
            changed: is waited for.
            written: returns when something was written meanwhile, in seconds of the loop's clock; a heartbeat is due as long after it.
        """
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not changed.is_set():
            due = min(max(began, written() if written else began) + _HEARTBEAT_SECONDS, self._ends_at)
            if due <= loop.time():
                return False
            with suppress(TimeoutError):
                async with asyncio.timeout_at(due):
                    await changed.wait()
        return True


def come_back_seconds() -> float:
    """Returns when a client should come back, in seconds: another time for each."""
    return random.uniform(*_COME_BACK_SECONDS)  # noqa: S311 (it spreads load)
