"""Work that is deferred for a moment, and done in batches."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from threading import Lock
from typing import Any, Generic, TypeVar
from weakref import WeakSet

_Item = TypeVar("_Item")
_SECONDS = 0.02


class DeferredBatch(Generic[_Item]):
    """Collects items for a moment and processes them together.

    Processed between one call and the next, they cost several times as much: the code has left the processor's caches by then.
    When `telemetry` ends, all batches are flushed.

    Args:
        do: processes one item or more, under a lock: it must not fail, nor add items itself.
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
        """Adds an item; without an event loop it is processed immediately."""
        with self._lock:
            self._items.append(item)
            first = len(self._items) == 1
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self.flush()
            return
        if first or loop is not self._loop:  # the timers of a loop that ended are lost
            self._loop = loop
            loop.call_later(self._seconds, self.flush)

    def flush(self) -> None:
        """Processes all waiting items."""
        with self._lock:
            items, self._items = self._items, []
            if items:
                self._do(items)


_batches: WeakSet[DeferredBatch[Any]] = WeakSet()


def flush_all() -> None:
    """Processes the waiting items of all batches."""
    for batch in list(_batches):
        batch.flush()
