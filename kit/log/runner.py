"""Runs background work on the partitions that this process holds leases for: one loop, one backoff, one way to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from redis.backoff import EqualJitterBackoff

from kit.log.leases import Leases
from kit.outages import is_outage
from kit.telemetry.names import Attribute, MetricName
from kit.telemetry.state import meter

_Result = TypeVar("_Result")
_log = structlog.get_logger(__name__)

_BACKOFF: Final = EqualJitterBackoff(cap=5.0, base=0.05)
_MOST_DOUBLINGS: Final = 7

Step: TypeAlias = Callable[[Collection[int], asyncio.Event], Awaitable[Mapping[int, Exception]]]
"""Does some work on partitions and waits until there may be more; returns soon once the event is set.

Returns the errors of the partitions that failed. An error that it raises is one of all of them.
"""


class PartitionHalted(Exception):
    """Work on a partition can't go on until an operator acts. The text is for the operator, and holds nothing personal."""


@dataclass(slots=True)
class _Wait:
    """A partition that failed."""

    failures: int = 0
    until: float = 0.0


class LeasedRunner:
    """Repeats a step on the partitions that this process holds leases for, on all of them at once.

    A partition that fails waits alone, for a pause that doubles up to five seconds; the others go on meanwhile. A halted
    partition is tried every few seconds as well, so that it resumes once the cause is gone.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._held: set[int] = set()
        self._waits: dict[int, _Wait] = {}
        self._halted: set[int] = set()
        self._changed = asyncio.Event()
        """Set when the step has to return: other partitions are to be worked on, or none any more."""
        self._ending = False
        self._gauge = meter().create_gauge(
            MetricName.PARTITIONS_HALTED, MetricName.PARTITIONS_HALTED.unit, "Partitions that wait for an operator."
        )

    async def run(self, step: Step) -> None:
        """Runs until cancelled; a step under way is finished first."""
        work = asyncio.create_task(self._repeat(step))
        try:
            while not work.done():
                self._hold(await self._leases.tick())
                await asyncio.wait([work], timeout=self._leases.interval)
            await work
        finally:
            self._ending = True
            self._changed.set()
            await asyncio.gather(work, return_exceptions=True)
            await self._leases.release()

    def _hold(self, held: set[int]) -> None:
        if held == self._held:
            return
        for partition in self._held - held:
            self._waits.pop(partition, None)
            self._note(partition, halted=False)
        self._held = held
        self._changed.set()

    async def _repeat(self, step: Step) -> None:
        loop = asyncio.get_running_loop()
        while not self._ending:
            self._changed.clear()
            now = loop.time()
            waiting = {partition: wait.until for partition, wait in self._waits.items() if wait.until > now}
            alarm = loop.call_at(min(waiting.values()), self._changed.set) if waiting else None
            try:
                await self._take(step, self._held - waiting.keys())
            finally:
                if alarm:
                    alarm.cancel()

    async def _take(self, step: Step, partitions: Collection[int]) -> None:
        if not partitions:
            await self._changed.wait()
            return
        failed: Mapping[int, Exception]
        try:
            failed = await step(partitions, self._changed)
        except Exception as error:  # noqa: BLE001 (whatever it is, the partitions wait)
            failed = dict.fromkeys(partitions, error)
        for partition in self._held.intersection(partitions):
            if partition in failed:
                self._let_wait(partition, failed[partition])
            else:
                self._waits.pop(partition, None)
                self._note(partition, halted=False)

    def _let_wait(self, partition: int, error: Exception) -> None:
        facts = {"topic": self._leases.topic, "group": self._leases.group, "partition": partition}
        wait = self._waits.setdefault(partition, _Wait())
        if isinstance(error, PartitionHalted):
            pause = pause_seconds(_MOST_DOUBLINGS)
            self._note(partition, halted=True)
            _log.error("partition halted", **facts, reason=str(error))
        else:
            pause = pause_seconds(wait.failures)
            wait.failures += 1
            shown = None if is_outage(error) else error
            _log.warning("partition waits", **facts, error=type(error).__name__, seconds=round(pause, 3), exc_info=shown)
        wait.until = asyncio.get_running_loop().time() + pause

    def _note(self, partition: int, *, halted: bool) -> None:
        (self._halted.add if halted else self._halted.discard)(partition)
        self._gauge.set(len(self._halted), {Attribute.TOPIC: self._leases.topic, Attribute.GROUP: self._leases.group})


def pause_seconds(failures: int) -> float:
    """Returns how long to wait after work has failed, given how often it had failed before: it doubles up to five seconds."""
    return _BACKOFF.compute(min(failures, _MOST_DOUBLINGS))


async def wait_until_set(event: asyncio.Event, seconds: float) -> bool:
    """Waits until an event is set, at most so long.

    Returns:
        Whether it is set.
    """
    if event.is_set() or seconds <= 0:
        return event.is_set()
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


async def unless(stop: asyncio.Event | None, work: Coroutine[Any, Any, _Result]) -> _Result | None:
    """Does some work, which is cancelled when the event is set.

    Returns:
        The result of the work; None when it was cancelled.
    """
    if stop is None:
        return await work
    tasks = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
