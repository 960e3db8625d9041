"""The senders of all destinations: each destination is sent to by the process that holds its lease."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from typing import Any

from kit.database.transactions import Sessions
from kit.log.leases import Leases
from kit.log.redis_log import RedisLog
from kit.log.runner import LeasedRunner
from kit.people.keys.store import Keys
from services.destinations.kind import Destination
from services.destinations.profiles import Profiles
from services.destinations.sending import Sender
from services.destinations.settings import SERVICE
from services.destinations.waking import Waking


class Senders:
    """Sends to destinations, to each on its own: a slow or dead one delays no other.

    Args:
        destinations: by name.
        profiles: of persons.
        group: whose leases these are: all processes send to the same destinations under it.
    """

    def __init__(
        self,
        destinations: Mapping[str, Destination[Any]],
        sessions: Sessions,
        log: RedisLog,
        keys: Keys,
        profiles: Profiles,
        *,
        group: str = "sender",
    ) -> None:
        self._log = log
        self._group = group
        self._destinations = destinations
        self._senders = [Sender(destinations[name], sessions, keys, profiles) for name in sorted(destinations)]
        self._waking = Waking(log.redis, self._wake)

    def wake(self) -> None:
        """Signals that there may be more to send, to the senders of all processes."""
        self._wake()
        self._waking.signal()

    def _wake(self) -> None:
        for sender in self._senders:
            sender.wake()

    async def run(self) -> None:
        """Sends until cancelled, to the destinations whose leases this process holds; closes their clients at the end."""
        waking = asyncio.create_task(self._waking.run())
        try:
            await LeasedRunner(Leases(self._log, SERVICE, self._group, len(self._senders))).run(self._work)
        finally:
            waking.cancel()
            await asyncio.gather(waking, return_exceptions=True)
            for destination in self._destinations.values():
                await destination.http.aclose()

    async def _work(self, partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        """Sends to some of the destinations, by their places in the order of names, until the event is set."""
        async with asyncio.TaskGroup() as group:
            for place in partitions:
                group.create_task(self._senders[place].run(stop))
        return {}
