"""Keeps the streams small: processed entries are trimmed after a while, and at once when memory is short."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from kit.log.books import prune_counters
from kit.log.redis_log import RedisLog
from kit.log.streams import START, Offset
from kit.server import run_every

_EVERY_SECONDS: Final = 1.0
_TOPIC_SECONDS: Final = 10.0
_SLACK: Final = 0.9


class Trimmer:
    """Trims a raw log up to what its consumer has committed.

    Args:
        keep: how long processed entries stay, for a database that is restored.
        max_bytes: memory of one partition above which processed entries are trimmed at once.
    """

    def __init__(self, log: RedisLog, topic: str, *, keep: timedelta, max_bytes: int, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._topic = topic
        self._keep = keep
        self._max_bytes = max_bytes
        self._clock = clock
        self._next: dict[int, float] = {}

    async def after_commit(self, partition: int, offset: Offset) -> None:
        """Trims after a consumer has committed an offset, about once a second."""
        now = self._clock()
        if now < self._next.get(partition, 0.0):
            return
        self._next[partition] = now + _EVERY_SECONDS
        through = offset
        if await self._log.size_bytes(self._topic, partition) <= self._max_bytes:
            # Entries are numbered by the millisecond of their append.
            through = min(offset, Offset(int((now - self._keep.total_seconds()) * 1000), 0))
        if through > max(START, await self._log.trimmed(self._topic, partition)):
            await self._log.trim(self._topic, partition, through)
        await prune_counters(self._log, self._topic, partition)


class TopicTrimmer:
    """Keeps a topic within its memory, whether or not consumers have read it: the publisher's history has what is trimmed.

    Args:
        max_bytes: memory of one partition above which its oldest entries are trimmed.
    """

    def __init__(self, log: RedisLog, topic: str, partitions: int, *, max_bytes: int) -> None:
        self._log = log
        self._topic = topic
        self._partitions = partitions
        self._max_bytes = max_bytes

    async def run(self) -> None:
        """Looks every ten seconds, until cancelled."""

        async def look() -> None:
            for partition in range(self._partitions):
                await self.look(partition)

        await run_every(look, _TOPIC_SECONDS, "topic not trimmed", topic=self._topic)

    async def look(self, partition: int) -> None:
        """Trims a partition that is too large to nine tenths of what it may be. Its newest entry stays."""
        size = await self._log.size_bytes(self._topic, partition)
        if size <= self._max_bytes:
            return
        head = await self._log.head(self._topic, partition)
        oldest = await self._log.read(self._topic, partition, START, limit=1, block_ms=0)
        if oldest:
            kept = int((head.ms - oldest[0].offset.ms + 1) * self._max_bytes / size * _SLACK)
            await self._log.trim(self._topic, partition, Offset(min(head.ms - kept, head.ms - 1), 0))
