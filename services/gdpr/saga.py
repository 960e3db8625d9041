"""Takes requests about people's data step by step to their end: whatever fails or dies on the way, it goes on from what is written down.

A step may be taken twice: each is so made that the second time changes nothing. One process at a time works on them;
should two, for a moment, they do the same.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

import orjson
import structlog
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.errors import Unavailable
from kit.log.leases import Leases
from kit.log.publish.state_topic import StateTopic
from kit.log.runner import LeasedRunner, unless, wait_until_set
from kit.people.keys.store import Keys
from kit.settings import KEYS_DATABASE
from services.gdpr.audit import canonical
from services.gdpr.calls import Calls
from services.gdpr.holders import Holders
from services.gdpr.messages import NAMES_CONTEXT, TOPIC, receipt_facts, suppression_told
from services.gdpr.models import RequestRow, StepRow
from services.gdpr.repository import Audit, Requests
from services.gdpr.rules import CALL, DONE, ERASE, KEYS, NAMES, OVERDUE, PURGE, RUNNING, SUPPRESS, WAITING, Place, pause, reached, whom

_log = structlog.get_logger(__name__)

_IDLE_SECONDS: Final = 2.0
_SOON: Final = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True)
class _Progress:
    """How a try of a step ended."""

    done: bool
    tables: Mapping[str, int] = field(default_factory=dict[str, int])
    """What went in all tries, of tables where anything did."""
    places: Mapping[Place, str] = field(default_factory=dict[Place, str])


class Saga:
    """Works on requests.

    Args:
        calls: tells other systems.
        rewrite: takes what was trimmed out of the log's file.
    """

    def __init__(
        self,
        sessions: Sessions,
        topic: StateTopic,
        keys: Keys,
        holders: Holders,
        *,
        calls: Calls,
        rewrite: Callable[[], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._topic = topic
        self._vault = keys.vault
        self._keys = keys
        self._holders = holders
        self._calls = calls
        self._rewrite = rewrite
        self._asked = asyncio.Event()

    def wake(self) -> None:
        """Signals that there is work to do."""
        self._asked.set()

    async def run(self, leases: Leases) -> None:
        """Works until cancelled, in the process that holds the lease. What is under way then is cancelled: it is repeated."""
        await LeasedRunner(leases).run(self._work)

    async def _work(self, _partition: int, stop: asyncio.Event) -> None:
        busy = await unless(stop, self.work())
        await unless(stop, self._rest(_SOON.total_seconds() if busy else _IDLE_SECONDS))

    async def work(self) -> bool:
        """Tries the next step of every request that is not done.

        Returns:
            Whether there was one.
        """
        async with self._sessions.reading() as session:
            running = [(row.id, row.due_at) for row in await Requests(session, self._vault).running()]
        for request_id, due_at in running:
            if datetime.now(UTC) > due_at:
                _log.error("request overdue", request=request_id)
            while await self._advance(request_id):
                pass
        return bool(running)

    async def _rest(self, seconds: float) -> None:
        if await wait_until_set(self._asked, seconds):
            self._asked.clear()

    async def _advance(self, request_id: str) -> bool:
        """Tries the step a request is at; True when it went on."""
        async with self._sessions.reading() as session:
            requests = Requests(session, self._vault)
            request, steps = await requests.get(request_id), await requests.steps(request_id)
        now = datetime.now(UTC)
        step = next((step for step in steps if step.state != DONE), None)
        if request is None or request.state != RUNNING or (step is not None and step.next_at is not None and step.next_at > now):
            return False
        if step is None:
            await transact(self._sessions, lambda session: self._finish(session, request_id))
            return False
        try:
            progress = await self._take(request, step, steps)
        except Exception as error:  # noqa: BLE001 (it is written down, and tried again)
            _log.warning("step failed", request=request_id, step=step.name, failures=step.failures + 1, error=type(error).__name__)
            await transact(self._sessions, lambda session, error=error: self._failed(session, step, error))
            return False
        if not progress.done and step.started_at is not None and now > step.started_at + OVERDUE:
            _log.warning("step overdue", request=request_id, step=step.name)
        return await transact(self._sessions, lambda session: self._progressed(session, step, progress))

    async def _take(self, request: RequestRow, step: StepRow, steps: Sequence[StepRow]) -> _Progress:
        what, _, holder = step.name.partition(" ")
        names, task = await self._opened(request.names), f"{request.id} {step.name}"
        if not names and what != KEYS:
            raise Unavailable("the key of the request is lost")
        if what == SUPPRESS:
            return await self._obeyed()
        places = {each.name: _known(each) for each in steps}
        if what == NAMES:
            progress = await self._gather(request, names, places[SUPPRESS])
            if progress.done and any(each.name.startswith(CALL) for each in steps):
                await self._keep_contacts(request.id, names)
            return progress
        if what == ERASE:
            answer = await self._holders.erase(holder, names, request.pseudonym, task=task)
            done = not answer.tables.total() and reached(answer.read, places[SUPPRESS])
            return _Progress(done, answer.total, answer.written if done else {})
        if what == PURGE:
            answer = await self._holders.erase(holder, names, request.pseudonym, task=task, through=places[f"{ERASE} {holder}"])
            return _Progress(not answer.entries_left and not answer.tables.total(), answer.total)
        if what == KEYS:
            return await self._destroy(request, names)
        if what == CALL:
            await self._calls.tell(holder, request.id, whom(names, await self._opened(request.contacts)))
        else:
            await self._rewrite()
        return _Progress(done=True)

    async def _obeyed(self) -> _Progress:
        """Waits until every holder knows what is suppressed; then notes how far the log goes: behind that nobody tells of the person."""
        told = (await self._holders.erase(TOPIC, dry_run=True)).written
        for holder in self._holders.names:
            answer = await self._holders.erase(holder, dry_run=True)
            if holder != TOPIC and not reached({(TOPIC, 0): "0-0", **answer.read}, told):
                return _Progress(done=False)
        written: dict[Place, str] = {}
        for holder in self._holders.names:
            written |= (await self._holders.erase(holder, dry_run=True)).written
        return _Progress(done=True, places=written)

    async def _gather(self, request: RequestRow, names: Sequence[str], places: Mapping[Place, str]) -> _Progress:
        """Once this service knows all that was told before every holder obeyed, no name is missing; later ones are refused."""
        if not reached((await self._holders.erase(TOPIC, dry_run=True)).read, places):
            return _Progress(done=False)

        async def more(session: AsyncSession) -> bool:
            requests = Requests(session, self._vault)
            known = {name for each in names for name in await requests.names(each)}
            new = known - set(names)
            if not new:
                return False
            changes = await requests.suppress(request.id, new, datetime.now(UTC))
            row = await requests.get(request.id)
            if row is not None:
                row.names = await sealed(self._keys, request.id, known)
            for step in await requests.steps(request.id):
                step.state = WAITING
            await session.flush()
            await self._topic.publish(session, [suppression_told(change) for change in changes])
            return True

        return _Progress(done=not await transact(self._sessions, more))

    async def _keep_contacts(self, request_id: str, names: Sequence[str]) -> None:
        """Other systems may know the person by its addresses alone; no holder has them in the end."""
        addresses = await self._holders.addresses(names)

        async def keep(session: AsyncSession) -> None:
            row = await Requests(session, self._vault).get(request_id)
            if row is not None and addresses:
                row.contacts = await sealed(self._keys, request_id, addresses)

        await transact(self._sessions, keep)

    async def _destroy(self, request: RequestRow, names: Sequence[str]) -> _Progress:
        """Destroys the keys of all names, and with them the request's own: when there is none, that was done before."""
        destroyed = await self._keys.destroy([*names, _own_name(request.id)], request.requested_at) if names else 0
        return _Progress(await self._keys.scrub(), {KEYS_DATABASE: destroyed} if destroyed else {})

    async def _opened(self, texts: bytes | None) -> Sequence[str]:
        """The names or addresses of a request's person; none once the key they are sealed under is destroyed."""
        opened = (await self._keys.decryptor([texts])).open(texts, context=NAMES_CONTEXT)
        return orjson.loads(opened) if opened else []

    async def _progressed(self, session: AsyncSession, step: StepRow, progress: _Progress) -> bool:
        now, row = datetime.now(UTC), await _same(session, step)
        row.started_at, row.error = row.started_at or now, ""
        row.tables = {**row.tables, **progress.tables}
        if progress.done:
            row.state, row.finished_at, row.next_at = DONE, now, None
            row.places = [[topic, partition, position] for (topic, partition), position in sorted(progress.places.items())]
        else:
            row.next_at = now + _SOON
        await session.flush()
        return progress.done

    async def _failed(self, session: AsyncSession, step: StepRow, error: Exception) -> None:
        now, row = datetime.now(UTC), await _same(session, step)
        row.started_at = row.started_at or now
        row.failures += 1
        row.error = str(error)[:100] if isinstance(error, Unavailable) else type(error).__name__
        row.next_at = now + pause(row.failures)
        await session.flush()

    async def _finish(self, session: AsyncSession, request_id: str) -> None:
        requests, now = Requests(session, self._vault), datetime.now(UTC)
        row = await requests.get(request_id)
        if row is not None and row.state == RUNNING:
            facts = receipt_facts(row, await requests.steps(request_id), now)
            head = await Audit(session).append({"action": f"{row.kind} done", **facts})
            receipt = canonical({**facts, "audit_head": head})
            row.receipt, row.signature = receipt, self._vault.sign(receipt.encode()).hex()
            row.state, row.finished_at, row.names, row.contacts = DONE, now, None, None
            await session.flush()
            _log.info("request done", request=request_id, kind=row.kind)


async def sealed(keys: Keys, request_id: str, texts: Collection[str]) -> bytes:
    """Names or addresses as a request keeps them: under a key of its own."""
    own = _own_name(request_id)
    return (await keys.seals([own]))[own].seal(orjson.dumps(sorted(texts)).decode(), context=NAMES_CONTEXT)


def _own_name(request_id: str) -> str:
    return f"request:{request_id}"


async def _same(session: AsyncSession, step: StepRow) -> StepRow:
    return await session.get_one(StepRow, (step.request_id, step.number), populate_existing=True)


def _known(step: StepRow) -> dict[Place, str]:
    return {(topic, partition): position for topic, partition, position in step.places}
