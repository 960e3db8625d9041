"""Work that is done a moment later, in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

_Item = TypeVar("_Item")
_SECONDS = 0.02


class DeferredBatch(Generic[_Item]):
    """Batches what need not be done at once, so that what an event loop's next moment brings is done together.

    Done between one call and the next, it costs several times as much: its code has left the processor's caches by then.
    When `telemetry` ends, all batches are flushed.

    Args:
        do: does it, with one item or more, under a lock: it must not fail, nor add to what it does.
        seconds: how long an item waits at most.
    """

    def __init__(self, do: Callable[[Sequence[_Item]], None], seconds: float = _SECONDS) -> None:
        self._do = do
        self._seconds = seconds
        self._items: list[_Item] = []
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        _batches.add(self)

    def add(self, item: _Item) -> None:
        """Takes an item; without an event loop it is done at once."""
        with self._lock:
            self._items.append(item)
            first = len(self._items) == 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if first or loop is not self._loop:  # a loop that ended took its timers with it
            self._loop = loop
            loop.call_later(self._seconds, self.flush)

    def flush(self) -> None:
        """Does all that waits."""
        with self._lock:
            items, self._items = self._items, []
            if items:
                self._do(items)


_batches: WeakSet[DeferredBatch[Any]] = WeakSet()


def flush_all() -> None:
    """Does all that waits in any batch."""
    for batch in list(_batches):
        batch.flush()
