"""Makes notices, while some destination wants them: one process at a time looks for what there is to say."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import structlog

from kit.errors import Unavailable
from kit.log.leases import Leases
from kit.log.redis_log import RedisLog
from kit.log.runner import LeasedRunner, wait_until_set
from services.destinations.kind import Destination, Notice
from services.destinations.settings import SERVICE

_log = structlog.get_logger(__name__)
_GROUP: Final = "notices"


class Source(Protocol):
    """Makes notices of one type."""

    async def look(self, now: datetime) -> None:
        """Stores what there is to say, at most once.

        Raises:
            Unavailable: a service that knows it does not answer.
        """
        ...


def is_wanted(destinations: Mapping[str, Destination[Any]], notice: Notice) -> bool:
    """Whether a destination wants notices like this one."""
    return any(any(True for _ in each.wanted(notice)) for each in destinations.values())


class Notices:
    """Looks at its sources again and again.

    Args:
        sources: what makes notices.
        log: keeps the lease.
        interval: seconds between two looks.
    """

    def __init__(self, sources: Sequence[Source], log: RedisLog, interval: float) -> None:
        self._sources = sources
        self._log = log
        self._interval = interval

    async def run(self) -> None:
        """Looks until cancelled, while this process holds the lease."""
        await LeasedRunner(Leases(self._log, SERVICE, _GROUP, 1)).run(self._work)

    async def _work(self, partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        while partitions and not stop.is_set():
            for source in self._sources:
                try:
                    await source.look(datetime.now(UTC))
                except Unavailable as error:
                    _log.warning("notices wait", source=type(source).__name__, reason=str(error))
                except Exception as error:  # noqa: BLE001 (one source must not keep the others from looking)
                    _log.error("notices failed", source=type(source).__name__, error=type(error).__name__, exc_info=True)
            await wait_until_set(stop, self._interval)
        return {}
