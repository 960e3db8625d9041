"""Group commit: work that is asked for at the same time shares a transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context, copy_context
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, run_transaction
from kit.errors import Overloaded
from kit.outages import is_outage
from kit.overload import BUSY, leaves_at

_Work = TypeVar("_Work")
_Result = TypeVar("_Result")

_BATCH: Final = 32
"""So much work shares a transaction: few wait long for others, and hardly anything is gained by more."""


@dataclass(frozen=True, slots=True)
class _Asked(Generic[_Work, _Result]):
    """Work, and who waits for it."""

    work: _Work
    result: asyncio.Future[_Result]
    context: Context
    leaves_at: float
    """When that is given up, in the loop's time."""


class GroupCommit(Generic[_Work, _Result]):
    """Does work that is asked for at the same time in one transaction, since a transaction costs more than most of what is in it.

    Work that fails in a batch is done again by itself, so that nobody has to answer for others.

    Args:
        do: does some work in the transaction given; answers the result of each, in order.
        key: work of the same key is never done together; it is in the order in which it was asked for.
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
        self._waiting: list[_Asked[_Work, _Result]] = []
        self._doing: asyncio.Task[None] | None = None
        self._lasted = 0.0
        """Seconds that the last transaction took."""

    async def __call__(self, work: _Work) -> _Result:
        """Does the work; a caller that goes away takes it along, unless it has begun.

        Raises:
            Overloaded: its turn came so late that it could not have been done before the caller leaves; it was not begun.
            Exception: what the work raises by itself, or an outage.
        """
        result: asyncio.Future[_Result] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Asked(work, result, copy_context(), leaves_at()))
        if self._doing is None:
            self._doing = asyncio.create_task(self._run())
        return await result

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
                    # What is told of the transaction, as its trace, belongs to the one who waited longest.
                    await asyncio.create_task(self._settle(batch), context=batch[0].context)
                    self._lasted = loop.time() - began
        finally:
            self._doing = None

    def _next(self, ends_at: float) -> Sequence[_Asked[_Work, _Result]]:
        """Those who wait longest, of each key one, and will still wait when the transaction ends."""
        batch: dict[object, _Asked[_Work, _Result]] = {}
        rest: list[_Asked[_Work, _Result]] = []
        for asked in self._waiting:
            if asked.result.done():
                continue
            if asked.leaves_at < ends_at:
                asked.result.set_exception(Overloaded(BUSY))
                continue
            key = self._key(asked.work)
            if len(batch) < _BATCH and key not in batch:
                batch[key] = asked
            else:
                rest.append(asked)
        self._waiting = rest
        return list(batch.values())

    async def _settle(self, batch: Sequence[_Asked[_Work, _Result]]) -> None:
        works = [asked.work for asked in batch]
        try:
            done = await run_transaction(self._sessions, lambda session: self._do(session, works))
        except Exception as error:  # noqa: BLE001 (every failure is an answer to those who asked)
            if len(batch) > 1 and not is_outage(error):
                for asked in batch:
                    await self._settle([asked])
                return
            for asked in batch:
                if not asked.result.done():
                    asked.result.set_exception(error)
            return
        for asked, answer in zip(batch, done, strict=True):
            if not asked.result.done():
                asked.result.set_result(answer)
