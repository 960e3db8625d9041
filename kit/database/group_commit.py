"""Group commit: concurrent work shares a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Final, Generic, TypeVar, cast

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, run_transaction
from kit.errors import MeshError, Overloaded, Unavailable
from kit.outages import is_outage
from kit.overload import BUSY, leaves_at

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")

_BATCH: Final = 128
"""The maximum work in one transaction: more gains little, and makes callers wait for others."""
_PAUSE: Final = 0.25
"""The longest pause after a transaction of several callers, as a share of what it took."""
_LONGEST_PAUSE: Final = 0.01
"""Seconds."""
_PARTLY: Final = "the service is busy; a part may have been kept, send all of it again later"


@dataclass(frozen=True, slots=True)
class _Request(Generic[_Work, _Result]):
    """Work, with its caller's future, context and deadline."""

    work: _Work
    result: asyncio.Future[_Result]
    context: Context
    leaves_at: float
    """The caller's deadline, in the loop's time."""


class GroupCommit(Generic[_Work, _Result]):
    """Does concurrent work in one transaction, since a transaction costs more than most of the work in it.

    If a batch fails, its halves are retried, down to a single piece of work, so that no caller sees the error of another.

    Args:
        do: does a batch of work in the given transaction; returns the results, in order.
        key: work with the same key is never in the same batch, and is done in the order of the calls.
    """

    def __init__(
        self,
        sessions: Sessions,
        do: Callable[[AsyncSession, Sequence[_Work]], Awaitable[Sequence[_Result]]],
        key: Callable[[_Work], object] = id,
    ) -> None:
        self._sessions = sessions
        self._do = do
        self._key = key
        self._waiting: list[_Request[_Work, _Result]] = []
        self._doing: asyncio.Task[None] | None = None
        self._lasted = 0.0
        """Seconds that the last transaction took."""
        self._enough = 0
        """The number of waiting requests that ends a pause."""
        self._are_enough = asyncio.Event()

    async def __call__(self, work: _Work) -> _Result:
        """Does the work; if the caller is cancelled before it is started, it is dropped.

        Raises:
            Overloaded: it could not have been done before the caller's deadline, and was not started.
            Exception: the work's own error, or an outage.
        """
        return await self._enqueue(work)

    async def each(self, works: Sequence[_Work]) -> Sequence[_Result | MeshError]:
        """Does several pieces of work, each as in a call of its own. One that is refused does not affect the others.

        Returns:
            The result of each, or its refusal.

        Raises:
            Overloaded: some could not have been done before the caller's deadline. The others may have been done.
            Exception: an outage, or an error that is no refusal, of any of them. The others may have been done.
        """
        results = await asyncio.gather(*map(self._enqueue, works), return_exceptions=True)
        for result in results:
            if isinstance(result, Overloaded):
                raise Overloaded(_PARTLY)
            if isinstance(result, BaseException) and (not isinstance(result, MeshError) or isinstance(result, Unavailable)):
                raise result
        return cast("list[_Result | MeshError]", results)

    def _enqueue(self, work: _Work) -> asyncio.Future[_Result]:
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Request(work, result, copy_context(), leaves_at()))
        if len(self._waiting) >= self._enough:
            self._are_enough.set()
        if self._doing is None:
            self._doing = asyncio.create_task(self._run())
        return result

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            while self._waiting:
                async with self._sessions.turns.call():
                    began = loop.time()
                    batch = self._next(began + self._lasted)
                    if not batch:
                        self._lasted /= 2  # one slow transaction must not be the last
                        continue
                    # The transaction's span belongs to the trace of the call that waited longest.
                    await asyncio.create_task(self._settle(batch), context=batch[0].context)
                    self._lasted = loop.time() - began
                    if len(batch) > 1:
                        await self._pause(len(batch))
        finally:
            self._doing = None

    async def _pause(self, answered: int) -> None:
        """Waits a moment for the callers who have just been answered.

        Those who ask again at once would miss the next transaction, so that each did the work of only half of them.
        """
        self._enough = min(_BATCH, len(self._waiting) + answered)
        if len(self._waiting) >= self._enough:
            return
        self._are_enough.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(min(self._lasted * _PAUSE, _LONGEST_PAUSE)):
                await self._are_enough.wait()

    def _next(self, ends_at: float) -> Sequence[_Request[_Work, _Result]]:
        """Returns the next batch: the oldest requests, one of each key, whose deadline is after the transaction's expected end."""
        batch: dict[object, _Request[_Work, _Result]] = {}
        rest: list[_Request[_Work, _Result]] = []
        for number, request in enumerate(self._waiting):
            if len(batch) == _BATCH:
                rest += self._waiting[number:]
                break
            if request.result.done():
                continue
            if request.leaves_at < ends_at:
                request.result.set_exception(Overloaded(BUSY))
                continue
            key = self._key(request.work)
            if key not in batch:
                batch[key] = request
            else:
                rest.append(request)
        self._waiting = rest
        return list(batch.values())

    async def _settle(self, batch: Sequence[_Request[_Work, _Result]]) -> None:
        works = [request.work for request in batch]
        try:
            done = await run_transaction(self._sessions, lambda session: self._do(session, works))
        except Exception as error:  # noqa: BLE001 (every failure is reported to the callers)
            if len(batch) > 1 and not is_outage(error):
                middle = len(batch) // 2
                await self._settle(batch[:middle])
                await self._settle(batch[middle:])
                return
            for request in batch:
                if not request.result.done():
                    request.result.set_exception(error)
            return
        for request, answer in zip(batch, done, strict=True):
            if not request.result.done():
                request.result.set_result(answer)
