"""Runs background work on the partitions that this process holds leases for: one loop, one backoff, one way to stop."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
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

Step: TypeAlias = Callable[[int, asyncio.Event], Awaitable[None]]
"""Does some work on a partition and waits until there may be more; returns soon once the event is set."""


class PartitionHalted(Exception):
    """Work on a partition can't go on until an operator acts. The text is for the operator, and holds nothing personal."""


@dataclass(frozen=True, slots=True)
class _Worker:
    task: asyncio.Task[None]
    stop: asyncio.Event

    async def end(self) -> None:
        """Lets the step under way finish."""
        self.stop.set()
        await self.task


class LeasedRunner:
    """Repeats a step on each partition that this process holds a lease for.

    A step that fails is repeated after a pause that doubles up to five seconds; other partitions go on meanwhile. A halted
    partition is tried every few seconds as well, so that it resumes once the cause is gone.
    """

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._halted: set[int] = set()
        self._gauge = meter().create_gauge(MetricName.PARTITIONS_HALTED, "{partition}", "Partitions that wait for an operator.")

    async def run(self, step: Step) -> None:
        """Runs until cancelled; steps under way are finished first."""
        workers: dict[int, _Worker] = {}
        try:
            while True:
                held = await self._leases.tick()
                for partition in [p for p, worker in workers.items() if p not in held or worker.task.done()]:
                    await workers.pop(partition).end()
                    self._note(partition, halted=False)
                for partition in held - workers.keys():
                    stop = asyncio.Event()
                    workers[partition] = _Worker(asyncio.create_task(self._repeat(step, partition, stop)), stop)
                await asyncio.sleep(self._leases.interval)
        finally:
            await asyncio.gather(*(worker.end() for worker in workers.values()), return_exceptions=True)
            await self._leases.release()

    async def _repeat(self, step: Step, partition: int, stop: asyncio.Event) -> None:
        facts = {"topic": self._leases.topic, "group": self._leases.group, "partition": partition}
        failures = 0
        while not stop.is_set():
            pause = 0.0
            try:
                await step(partition, stop)
                failures = 0
                self._note(partition, halted=False)
            except PartitionHalted as error:
                pause = _BACKOFF.compute(_MOST_DOUBLINGS)
                self._note(partition, halted=True)
                _log.error("partition halted", **facts, reason=str(error))
            except Exception as error:  # noqa: BLE001 (whatever it is, the partition waits)
                pause = _BACKOFF.compute(min(failures, _MOST_DOUBLINGS))
                failures += 1
                name, expected = type(error).__name__, is_outage(error)
                _log.warning("partition waits", **facts, error=name, seconds=round(pause, 3), exc_info=not expected)
            await wait_until_set(stop, pause)

    def _note(self, partition: int, *, halted: bool) -> None:
        (self._halted.add if halted else self._halted.discard)(partition)
        self._gauge.set(len(self._halted), {Attribute.TOPIC: self._leases.topic, Attribute.GROUP: self._leases.group})


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
