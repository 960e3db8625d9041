"""How old what the log holds is, and the last backup of it."""

from __future__ import annotations

from collections.abc import Mapping
from time import time
from typing import Any, Final

from kit.log.redis_log import RedisLog, key
from kit.log.streams import Offset

BACKED_UP: Final = "pmp:backed_up"
"""Key that holds when `pmp backup` last made a backup, in seconds since 1970."""


async def oldest_seconds(log: RedisLog, topic: str, after: Mapping[int, Offset]) -> float:
    """Returns how long the oldest entry after an offset of each partition has been in the log; 0 where none follows any of them.

    Entries of a topic that an older release published are not counted: they do not say when that was.
    """
    written = [await _written_at(log, topic, partition, offset) for partition, offset in after.items()]
    oldest = min((at for at in written if at is not None), default=None)
    return 0.0 if oldest is None else max(0.0, time() - oldest)


async def backup_seconds(log: RedisLog) -> float | None:
    """Returns how long ago the last backup was made by `pmp backup`; None when none ever was."""
    redis: Any = log.redis
    at = await redis.get(BACKED_UP)
    return None if at is None else max(0.0, time() - float(at))


async def _written_at(log: RedisLog, topic: str, partition: int, after: Offset) -> float | None:
    redis: Any = log.redis
    found = await redis.xrange(key(topic, partition, "log"), min=f"({after}", count=1)
    if not found:
        return None
    ((offset, fields),) = found
    if fields[b"h"] != b"0":  # of a raw log, where the offset is a time
        return Offset.parse(offset.decode()).ms / 1000
    return int(fields[b"t"]) / 1000 if b"t" in fields else None
