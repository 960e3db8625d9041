"""One actor moves at a time, from one point to the next; a seeded choice says which, and what happens to it there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from dataclasses import dataclass
from random import Random
from typing import Final

_TRACE: Final = 400


class Killed(BaseException):
    """What ends a process at once: nothing in it may catch this."""


@dataclass(slots=True, eq=False)
class Actor:
    """A process, or a part of one, that does one thing at a time."""

    name: str
    point: str = ""
    gate: asyncio.Future[None] | None = None
    task: asyncio.Task[None] | None = None
    asleep_until: int = 0

    @property
    def alive(self) -> bool:
        """It can still move."""
        return self.task is not None and not self.task.done()


_acting: ContextVar[Actor | None] = ContextVar("acting", default=None)


class Scheduler:
    """Runs actors in an order that the random numbers give, so that a run can be repeated."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.actors: list[Actor] = []
        self.steps = 0
        self.trace: list[str] = []
        self._still: asyncio.Event = asyncio.Event()

    async def pause(self, point: str) -> None:
        """The current actor stands here until it is its turn; raises what the scheduler sends it. Free outside of actors."""
        actor = _acting.get()
        if actor is None:
            return
        actor.point = point
        actor.gate = asyncio.get_running_loop().create_future()
        self._still.set()
        await actor.gate

    async def start(self, name: str, work: Callable[[], Coroutine[None, None, None]]) -> Actor:
        """Begins an actor; it goes to its first point."""
        actor = Actor(name)
        self.actors.append(actor)

        async def run() -> None:
            _acting.set(actor)
            try:
                await work()
            except Killed:
                return
            finally:
                actor.gate = None
                self._still.set()

        self._still.clear()
        actor.task = asyncio.create_task(run())
        await self._still.wait()
        return actor

    async def move(self, actor: Actor, error: BaseException | None = None) -> None:
        """Lets an actor go on to its next point; with an error, that is what happened where it stood."""
        gate, actor.gate = actor.gate, None
        assert gate is not None
        self.note(f"{actor.name}: {actor.point}" + (f" !! {error!r}" if error else ""))
        self._still.clear()
        if error is None:
            gate.set_result(None)
        else:
            gate.set_exception(error)
        await self._still.wait()
        if actor.task and actor.task.done():
            self.actors.remove(actor)
            actor.task.result()

    def ready(self) -> list[Actor]:
        """Those that are not suspended."""
        return [actor for actor in self.actors if actor.gate is not None and actor.asleep_until <= self.steps]

    def note(self, text: str) -> None:
        """Adds a line to the trace."""
        self.trace.append(f"{self.steps:5} {text}")

    async def end(self) -> None:
        """Kills all actors that are left."""
        for actor in list(self.actors):
            if actor.gate is not None:
                await self.move(actor, Killed())

    def story(self) -> str:
        """The last lines of the trace."""
        return "\n".join(self.trace[-_TRACE:])
