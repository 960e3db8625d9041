"""Leases on partitions, by which replicas share the work. Correctness never depends on them."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from typing import Any, Final

import structlog

from kit.log.redis_log import RedisLog, key
from kit.telemetry.names import Attribute, MetricName
from kit.telemetry.state import meter

_log = structlog.get_logger(__name__)

# Compare-and-expire and compare-and-delete: a lease that expired may be held by another process by now.
_RENEW: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('PEXPIRE', KEYS[1], ARGV[2]) else return 0 end"
_RELEASE: Final = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end"


def members_key(topic: str, group: str) -> str:
    """The sorted set of a group's live processes, by the time at which each renewed its leases, in seconds since 1970."""
    return f"pmp:{topic}:{group}:members"


class Leases:
    """The partitions of a topic that this process may work on, shared evenly among the live processes of a group."""

    def __init__(
        self, log: RedisLog, topic: str, group: str, partitions: int, *, seconds: float = 5.0, clock: Callable[[], float] = time.time
    ) -> None:
        self.topic = topic
        self.group = group
        self.interval = seconds / 2.5
        """How often to call `tick`, in seconds."""
        self._redis = log.redis
        self._shared = log.shared_pipeline
        self._partitions = partitions
        self._seconds = seconds
        self._clock = clock
        self._me = secrets.token_hex(8)
        self._members = members_key(topic, group)
        self._held: set[int] = set()
        self._release: Any = log.redis.register_script(_RELEASE)
        self._attributes: dict[str, str] = {Attribute.TOPIC: topic, Attribute.GROUP: group}
        self._lost = meter().create_counter(
            MetricName.LEASES_LOST, MetricName.LEASES_LOST.unit, "How often leases expired before they were renewed."
        )
        self._lost.add(0, self._attributes)

    async def tick(self) -> set[int]:
        """Renews the leases held, takes free ones up to a fair share and gives back those above it.

        Returns:
            The partitions held.
        """
        try:
            share = await self._renewed()
            for partition in sorted(self._held)[share:]:
                await self._give_back(partition)
            for partition in range(self._partitions):
                if len(self._held) >= share:
                    break
                if partition not in self._held and await self._redis.set(
                    self._key(partition), self._me, nx=True, px=int(self._seconds * 1000)
                ):
                    self._held.add(partition)
        except Exception as error:  # noqa: BLE001 (whatever it is, it is no reason to stop)
            # Without Redis no other process can take a lease either: this one keeps what it holds.
            _log.warning("leases not renewed", topic=self.topic, error=type(error).__name__)
        return set(self._held)

    async def release(self) -> None:
        """Gives all leases back, so that other processes need not wait for them to expire."""
        try:
            for partition in sorted(self._held):
                await self._give_back(partition)
            await self._redis.zrem(self._members, self._me)
        except Exception as error:  # noqa: BLE001 (they expire by themselves)
            _log.warning("leases not released", topic=self.topic, error=type(error).__name__)

    async def _renewed(self) -> int:
        """Renews the leases held, in one round trip for all topics of this process.

        Returns:
            The number of partitions that is a fair share.
        """
        now, held = self._clock(), sorted(self._held)
        _, _, members, *renewed = await self._shared.execute(
            [
                ("ZADD", self._members, now, self._me),
                ("ZREMRANGEBYSCORE", self._members, "-inf", now - 2 * self._seconds),
                ("ZRANGE", self._members, 0, -1),
                *(("EVAL", _RENEW, 1, self._key(partition), self._me, int(self._seconds * 1000)) for partition in held),
            ]
        )
        expired = {partition for partition, kept in zip(held, renewed, strict=True) if not kept}
        if expired:
            self._held -= expired
            self._lost.add(1, self._attributes)
        # The remainder goes to the members that sort first; every member computes the same.
        before_me = sum(1 for member in members if member < self._me.encode())
        return self._partitions // len(members) + (before_me < self._partitions % len(members))

    async def _give_back(self, partition: int) -> None:
        await self._release(keys=[self._key(partition)], args=[self._me])
        self._held.discard(partition)

    def _key(self, partition: int) -> str:
        return key(self.topic, partition, f"lease:{self.group}")
