"""Values that can be taken once, kept in Redis for a short time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from redis.asyncio import Redis


class OneTimeValues:
    """Values by random ids.

    Args:
        redis: where they are kept.
        purpose: separates them from those of other purposes.
        keep: how long they can be taken.
    """

    def __init__(self, redis: Redis, purpose: str, keep: timedelta) -> None:
        self._redis: Any = redis  # redis-py's types don't cover what its commands return
        self._purpose = purpose
        self._keep = keep

    async def put(self, id_: str, value: str) -> None:
        """Adds a value, or replaces one that was not taken yet."""
        await self._redis.set(self._key(id_), value, px=self._keep)

    async def take(self, id_: str) -> str | None:
        """Removes a value and returns it, to one of several concurrent callers; None if it was taken, is too old or was never there."""
        value: bytes | str | None = await self._redis.getdel(self._key(id_))
        return value.decode() if isinstance(value, bytes) else value

    def _key(self, id_: str) -> str:
        return f"pmp:{self._purpose}:{id_}"
