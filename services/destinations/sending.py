"""Sends what is due to one destination: one attempt for each claim, and its result in the database before the next.

Nothing of a delivery is kept in memory beside the attempts in progress. After a crash these are repeated once their claims expire, under
the same id, where the destination recognises a repetition; the others are dead letters.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import httpx
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.log.runner import pause_seconds, unless, wait_until_set
from kit.people.keys.store import Keys
from services.destinations.clearance import Cleared, clear
from services.destinations.contacts import Contacts
from services.destinations.kind import Destination, Outcome, Outgoing, Result
from services.destinations.preparing import Preparing
from services.destinations.profiles import Profiles
from services.destinations.queue import Queue
from services.destinations.repository import Destinations, breaker_of
from services.destinations.rules import LONGEST_WAIT, Breaker
from services.destinations.settling import PutOff, settled
from services.destinations.spans import delivery_span, describe_results

_log = structlog.get_logger(__name__)

_ATTEMPT_SECONDS: Final = 30.0
"""With the time that it takes to prepare it, an attempt takes less than a claim holds."""
_END_SECONDS: Final = 5.0
"""How long attempts in progress may still take when sending ends."""
_PACE_SECONDS: Final = 0.02
"""Least time between two transactions while attempts are in progress: their results share one."""
_LONGEST_REST: Final = 10.0
"""What another process stored, or resumed, is seen after this time at the latest, should its signal (`waking`) be lost."""
_MOST_AT_ONCE: Final = 1000
_MOST_AHEAD: Final = 16
"""Requests that are claimed for one connection at once, while the destination answers quickly."""
_FRESH_SECONDS: Final = 0.5
"""How long what was cleared may be sent; then it is put back, and cleared again."""
_NOT_SENT: Final = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout, httpx.ProxyError, httpx.UnsupportedProtocol)
"""Errors before anything of the request was sent."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """A request to the destination, and the result of each delivery in it."""

    cleared: Sequence[Cleared]
    results: Sequence[Result | PutOff]

    @property
    def is_answered(self) -> bool | None:
        """Whether the destination works, for its circuit breaker; None if this attempt does not show."""
        outcomes = {result.outcome for result in self.results if isinstance(result, Result)}
        if not outcomes or outcomes == {Outcome.UNAUTHORIZED}:
            return None
        return outcomes != {Outcome.RETRY}


class _Look(NamedTuple):
    """What a look at the queue found."""

    cleared: Sequence[Cleared]
    due: datetime | None
    """When to look again; None if nothing is pending or the destination is paused."""


class Sender:
    """Sends what is due to a destination, as long as it runs.

    Args:
        profiles: of persons, for kinds that need them.
    """

    def __init__(self, destination: Destination[Any], sessions: Sessions, keys: Keys, profiles: Profiles) -> None:
        self.destination = destination
        self._sessions = sessions
        self._keys = keys
        self._contacts = Contacts(destination.name, sessions, keys)
        self._preparing = Preparing(destination, keys, profiles, self._contacts)
        self._name = secrets.token_hex(8)
        self._changed = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self._timeouts: set[asyncio.Timeout] = set()
        self._done: list[Attempt] = []
        """Attempts whose results are not stored yet."""
        self._ahead = 1
        """Requests that are claimed for one connection."""

    def wake(self) -> None:
        """Signals that there may be more to send."""
        self._changed.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Sends until the event is set; attempts in progress have some seconds to end."""
        failures = 0
        while not stop.is_set():
            try:
                await self._step(stop)
                failures = 0
            except Exception as error:  # noqa: BLE001 (whatever it is, other destinations are sent to)
                _log.warning("sending waits", destination=self.destination.name, error=type(error).__name__, exc_info=not failures)
                await wait_until_set(stop, pause_seconds(failures))
                failures += 1
        await self._end()

    async def _step(self, stop: asyncio.Event) -> None:
        self._changed.clear()
        began = asyncio.get_running_loop().time()
        look = await self._look()
        size, free = self.destination.most_at_once, self.destination.most_requests - len(self._running)
        requests = [look.cleared[start : start + size] for start in range(0, len(look.cleared), size)]
        for own in (requests[first::free] for first in range(min(free, len(requests)))):
            task = asyncio.create_task(self._attempts(own))
            self._running.add(task)
            task.add_done_callback(self._ended)
        rest = _LONGEST_REST
        if look.due is not None and len(self._running) < self.destination.most_requests:
            rest = max(0.0, min(rest, (look.due - datetime.now(UTC)).total_seconds()))
        await unless(stop, wait_until_set(self._changed, rest))
        await wait_until_set(stop, _PACE_SECONDS - (asyncio.get_running_loop().time() - began))

    async def _look(self) -> _Look:
        """Stores results and claims what is due; only reads if there is neither."""
        if not self._done and not self._running:
            async with self._sessions.reading() as session:
                row = await Destinations(session).get(self.destination.name)
                due = await Queue(session, self.destination.name, self._name).next_due()
            if row is None or row.is_paused or due is None:
                return _Look((), None)
            opens = max(due, row.open_until or due)
            if opens > datetime.now(UTC):
                return _Look((), opens)
        done = list(self._done)
        look = await transact(self._sessions, lambda session: self._turn(session, done), follows=True)
        del self._done[: len(done)]
        if done:
            self._ahead = min(_MOST_AHEAD, 2 * self._ahead) if all(each.is_answered for each in done) else 1
        return look

    async def _turn(self, session: AsyncSession, done: Sequence[Attempt]) -> _Look:
        """Stores results, then claims as many deliveries as there are free requests, in one transaction."""
        now, name = datetime.now(UTC), self.destination.name
        row = (await Destinations(session).lock([name])).get(name)
        if row is None:
            return _Look((), None)
        queue = Queue(session, name, self._name)
        breaker, is_refused = await self._store(session, queue, done, breaker_of(row), now)
        if row.is_paused or is_refused:
            return _Look((), None)
        if breaker.open_until is not None and breaker.open_until > now:
            return _Look((), breaker.open_until)
        free = self.destination.most_requests - len(self._running)
        is_undecided = bool(self._running) or len(self._done) > len(done)  # an attempt may have ended since this transaction began
        if free <= 0 or (breaker.is_probing and is_undecided):
            return _Look((), None)
        limit = (1 if breaker.is_probing else free * self._ahead) * self.destination.most_at_once
        return _Look(await self._claim(session, queue, limit, now), await queue.next_due())

    async def _store(
        self, session: AsyncSession, queue: Queue, done: Sequence[Attempt], breaker: Breaker, now: datetime
    ) -> tuple[Breaker, bool]:
        """Stores results.

        Returns:
            The circuit breaker, and whether the destination is paused because of a result.
        """
        name = self.destination.name
        results = [(cleared, result) for attempt in done for cleared, result in zip(attempt.cleared, attempt.results, strict=True)]
        await queue.settle([settled(self.destination, cleared, result, now) for cleared, result in results], now)
        after = breaker.after([each.is_answered for each in done if each.is_answered is not None], now)
        after = after.waiting(_asked_to_wait([result for _, result in results], now))
        if after != breaker:
            await Destinations(session).set_breaker(name, after)
        if after.opened > breaker.opened:
            _log.warning("destination left alone", destination=name, until=str(after.open_until))
        refused = next((each for _, each in results if isinstance(each, Result) and each.outcome is Outcome.UNAUTHORIZED), None)
        if refused is not None:
            await Destinations(session).set_paused(name, refused.detail or "it refuses the credentials")
            _log.error("destination paused", destination=name, reason=refused.detail)
        return after, refused is not None

    async def _claim(self, session: AsyncSession, queue: Queue, limit: int, now: datetime) -> Sequence[Cleared]:
        claimed = await queue.claim(min(limit, _MOST_AT_ONCE), now)
        if not claimed:
            return ()
        cleared, refused = await clear(session, self._keys.hasher, self.destination, claimed, now)
        await queue.settle(refused, now)
        return cleared

    async def _attempts(self, requests: Sequence[Sequence[Cleared]]) -> None:
        """Makes requests one after the other: not any more after one that failed, nor long after they were cleared."""
        began, is_well = asyncio.get_running_loop().time(), True
        for cleared in requests:
            if is_well and asyncio.get_running_loop().time() - began < _FRESH_SECONDS:
                with delivery_span(self.destination.name, cleared) as current:
                    attempt = await self._attempt(cleared)
                    describe_results(current, attempt.results)
                is_well = bool(attempt.is_answered)
            else:
                self._done.append(Attempt(cleared, [PutOff("", timedelta(0))] * len(cleared)))

    async def _attempt(self, cleared: Sequence[Cleared]) -> Attempt:
        """Makes an attempt, whose results may be stored before this returns."""
        try:
            outgoing, without = await self._preparing.outgoing(cleared)
        except Exception as error:  # noqa: BLE001 (it counts as an attempt: it must not be repeated for ever)
            _log.error("deliveries not prepared", destination=self.destination.name, error=type(error).__name__, exc_info=True)
            outgoing, without = (), {self._preparing.id_of(each): Result(Outcome.RETRY, type(error).__name__) for each in cleared}
        sent: Sequence[Result] = await self._send(outgoing) if outgoing else ()
        results = {each.id: result for each, result in zip(outgoing, sent, strict=True)}
        ids = [self._preparing.id_of(each) for each in cleared]
        attempt = Attempt(cleared, [results.get(id_) or without[id_] for id_ in ids])
        self._done.append(attempt)
        await self._leave(outgoing, sent)
        return attempt

    async def _leave(self, outgoing: Sequence[Outgoing], sent: Sequence[Result]) -> None:
        """Notes what was delivered to persons under another address than before."""
        pairs = zip(outgoing, sent, strict=True)
        left = [email for each, result in pairs if result.outcome is Outcome.DELIVERED for email in each.former]
        try:
            if left:
                await self._contacts.leave(left)
        except Exception as error:  # noqa: BLE001 (the next delivery says it again)
            _log.warning("change of address not noted", destination=self.destination.name, error=type(error).__name__)

    async def _send(self, outgoing: Sequence[Outgoing]) -> Sequence[Result]:
        """Makes one attempt; an error is a result as well."""
        timeout = asyncio.timeout(_ATTEMPT_SECONDS)
        self._timeouts.add(timeout)
        try:
            async with timeout:
                results = await self.destination.send(outgoing)
            if len(results) == len(outgoing):
                return results
            failed = Result(Outcome.RETRY, f"{len(results)} results for {len(outgoing)} deliveries", is_ambiguous=True)
        except _NOT_SENT as error:
            failed = Result(Outcome.RETRY, type(error).__name__)
        except (httpx.HTTPError, TimeoutError) as error:
            failed = Result(Outcome.RETRY, type(error).__name__, is_ambiguous=True)
        except Exception as error:  # noqa: BLE001 (a defect of one kind must not end the sender)
            _log.error("attempt failed", destination=self.destination.name, error=type(error).__name__, exc_info=True)
            failed = Result(Outcome.RETRY, type(error).__name__, is_ambiguous=True)
        finally:
            self._timeouts.discard(timeout)
        return [failed] * len(outgoing)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._running.discard(task)
        self._changed.set()
        if not task.cancelled() and (error := task.exception()):
            _log.error("attempt lost", destination=self.destination.name, error=type(error).__name__, exc_info=error)

    async def _end(self) -> None:
        """Waits for the attempts in progress, and stores their results."""
        ends = asyncio.get_running_loop().time() + _END_SECONDS
        for timeout in self._timeouts:
            timeout.reschedule(min(ends, timeout.when() or ends))
        while self._running:
            await asyncio.wait(self._running)
        if done := list(self._done):
            await transact(self._sessions, lambda session: self._stored(session, done), follows=True)
            del self._done[: len(done)]

    async def _stored(self, session: AsyncSession, done: Sequence[Attempt]) -> None:
        row = (await Destinations(session).lock([self.destination.name])).get(self.destination.name)
        if row is not None:
            await self._store(session, Queue(session, row.name, self._name), done, breaker_of(row), datetime.now(UTC))


def _asked_to_wait(results: Sequence[Result | PutOff], now: datetime) -> datetime | None:
    """Returns until when the destination asked to be left alone."""
    asked = [result.retry_after for result in results if isinstance(result, Result) and result.outcome is Outcome.RETRY]
    longest = max((each for each in asked if each is not None), default=None)
    return None if longest is None else now + min(longest, LONGEST_WAIT)
