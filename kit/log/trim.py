"""Keeps the raw log small: what is processed goes after a while, and at once when memory is short."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from kit.log.books import prune_counters
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Position

_EVERY_SECONDS: Final = 1.0


class Trimmer:
    """Trims a raw log behind its consumer.

    Args:
        keep: how long processed entries stay, for a database that is restored.
        max_bytes: memory of one partition above which processed entries go at once.
    """

    def __init__(self, log: RedisLog, topic: str, *, keep: timedelta, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._topic = topic
        self._keep = keep
        self._max_bytes = max_bytes
        self._clock = clock
        self._next: dict[int, float] = {}

    async def after_commit(self, partition: int, position: Position) -> None:
        """Called with the position that a consumer has committed; works about once a second."""
        now = self._clock()
        if now < self._next.get(partition, 0.0):
            return
        self._next[partition] = now + _EVERY_SECONDS
        through = position
        if await self._log.size_bytes(self._topic, partition) <= self._max_bytes:
            # Entries are numbered by the millisecond of their append.
            through = min(position, Position(int((now - self._keep.total_seconds()) * 1000), 0))
        if through > max(START, await self._log.trimmed(self._topic, partition)):
            await self._log.trim(self._topic, partition, through)
        await prune_counters(self._log, self._topic, partition)
