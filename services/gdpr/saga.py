"""Executes requests about personal data step by step: after a failure or a crash it resumes from the state in the database.

Every step is idempotent. One process at a time works on the requests; if two do for a moment, they do the same.
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
from kit.log.streams import START, Offset, TopicPartition
from kit.people.keys.store import Keys
from kit.people.signing import Signer
from kit.settings import KEYS_DATABASE
from services.gdpr.audit import canonical
from services.gdpr.calls import Calls
from services.gdpr.holders import Holders, reached
from services.gdpr.messages import IDENTIFIERS_CONTEXT, TOPIC, keyed_suppression, receipt_facts
from services.gdpr.models import RequestRow, StepRow
from services.gdpr.repository import Audit, Requests
from services.gdpr.rules import (
    CALL,
    DESTINATIONS,
    DONE,
    ERASE,
    IDENTIFIERS,
    KEYS,
    OVERDUE,
    PURGE,
    RUNNING,
    SUPPRESS,
    WAITING,
    pause,
    person_to_erase,
)

_log = structlog.get_logger(__name__)

_IDLE_SECONDS: Final = 2.0
_SOON: Final = timedelta(milliseconds=200)


@dataclass(frozen=True, slots=True)
class _Progress:
    """The result of one try of a step."""

    done: bool
    tables: Mapping[str, int] = field(default_factory=dict[str, int])
    """Erased rows of all tries, by table; without tables that had none."""
    offsets: Mapping[TopicPartition, Offset] = field(default_factory=dict[TopicPartition, Offset])
    answers: Mapping[str, str] = field(default_factory=dict[str, str])
    """What other systems answered."""


class Saga:
    """Executes requests.

    Args:
        signer: signs the receipts of finished requests.
        calls: other systems.
        rewrite: removes what was trimmed from the log's file.
    """

    def __init__(
        self,
        sessions: Sessions,
        topic: StateTopic,
        keys: Keys,
        holders: Holders,
        *,
        signer: Signer,
        calls: Calls,
        rewrite: Callable[[], Awaitable[None]],
    ) -> None:
        self._sessions = sessions
        self._topic = topic
        self._hasher = keys.hasher
        self._keys = keys
        self._signer = signer
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

    async def _work(self, _partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        busy = await unless(stop, self.work())
        await unless(stop, self._rest(_SOON.total_seconds() if busy else _IDLE_SECONDS))
        return {}

    async def work(self) -> bool:
        """Tries the next step of every request that is not done.

        Returns:
            Whether there was one.
        """
        async with self._sessions.reading() as session:
            running = [(row.id, row.due_at) for row in await Requests(session, self._hasher).running()]
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
        """Tries the current step of a request; True if it is done."""
        async with self._sessions.reading() as session:
            requests = Requests(session, self._hasher)
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
        except Exception as error:  # noqa: BLE001 (it is recorded, and retried)
            _log.warning("step failed", request=request_id, step=step.name, failures=step.failures + 1, error=type(error).__name__)
            await transact(self._sessions, lambda session, error=error: self._failed(session, step, error))
            return False
        if not progress.done and step.started_at is not None and now > step.started_at + OVERDUE:
            _log.warning("step overdue", request=request_id, step=step.name)
        return await transact(self._sessions, lambda session: self._progressed(session, step, progress))

    async def _take(self, request: RequestRow, step: StepRow, steps: Sequence[StepRow]) -> _Progress:
        what, _, holder = step.name.partition(" ")
        identifiers, task = await self._opened(request.names), f"{request.id} {step.name}"
        if not identifiers and what != KEYS:
            raise Unavailable("the key of the request is lost")
        if what == SUPPRESS:
            return await self._suppressed()
        offsets = {each.name: _offsets(each) for each in steps}
        if what == IDENTIFIERS:
            progress = await self._gather(request, identifiers, offsets[SUPPRESS])
            if progress.done and any(each.name.startswith((CALL, DESTINATIONS)) for each in steps):
                await self._store_contacts(request.id, identifiers)
            return progress
        if what == ERASE:
            answer = await self._holders.erase(holder, identifiers, request.pseudonym, task=task)
            done = not answer.tables.total() and reached(answer.read, offsets[SUPPRESS])
            return _Progress(done, answer.total, answer.written if done else {})
        if what == PURGE:
            answer = await self._holders.erase(holder, identifiers, request.pseudonym, task=task, through=offsets[f"{ERASE} {holder}"])
            return _Progress(not answer.entries_left and not answer.tables.total(), answer.total)
        if what == KEYS:
            return await self._destroy(request, identifiers)
        answers: Mapping[str, str] = {}
        if what == DESTINATIONS:
            answers = await self._holders.erase_at_destinations(request.id, identifiers, await self._opened(request.contacts))
        elif what == CALL:
            await self._calls.erase(holder, request.id, person_to_erase(identifiers, await self._opened(request.contacts)))
        else:
            await self._rewrite()
        return _Progress(done=True, answers=answers)

    async def _suppressed(self) -> _Progress:
        """Done once every holder has applied the suppressions; then takes the log's end offsets: nothing after them is about the person."""
        published = (await self._holders.erase(TOPIC, dry_run=True)).written
        for holder in self._holders.names:
            answer = await self._holders.erase(holder, dry_run=True)
            if holder != TOPIC and not reached({TopicPartition(TOPIC, 0): START, **answer.read}, published):
                return _Progress(done=False)
        written: dict[TopicPartition, Offset] = {}
        for holder in self._holders.names:
            written |= (await self._holders.erase(holder, dry_run=True)).written
        return _Progress(done=True, offsets=written)

    async def _gather(self, request: RequestRow, identifiers: Sequence[str], offsets: Mapping[TopicPartition, Offset]) -> _Progress:
        """Done once this service has read all that was published before every holder suppressed: later identifiers are refused."""
        if not reached((await self._holders.erase(TOPIC, dry_run=True)).read, offsets):
            return _Progress(done=False)

        async def more(session: AsyncSession) -> bool:
            requests = Requests(session, self._hasher)
            known = {identifier for each in identifiers for identifier in await requests.identifiers(each)}
            new = known - set(identifiers)
            if not new:
                return False
            changes = await requests.suppress(request.id, new, datetime.now(UTC))
            row = await requests.get(request.id)
            if row is not None:
                row.names = await sealed(self._keys, request.id, known)
            for step in await requests.steps(request.id):
                step.state = WAITING
            await session.flush()
            await self._topic.publish(session, [keyed_suppression(change) for change in changes])
            return True

        return _Progress(done=not await transact(self._sessions, more))

    async def _store_contacts(self, request_id: str, identifiers: Sequence[str]) -> None:
        """Stores the person's e-mail addresses before they are erased: other systems may know no other identifier."""
        addresses = await self._holders.addresses(identifiers)

        async def store(session: AsyncSession) -> None:
            row = await Requests(session, self._hasher).get(request_id)
            if row is not None and addresses:
                row.contacts = await sealed(self._keys, request_id, addresses)

        await transact(self._sessions, store)

    async def _destroy(self, request: RequestRow, identifiers: Sequence[str]) -> _Progress:
        """Destroys the keys of all identifiers and the request's own; without identifiers that was done before."""
        destroyed = await self._keys.destroy([*identifiers, _own_key(request.id)], request.requested_at) if identifiers else 0
        return _Progress(await self._keys.scrub(), {KEYS_DATABASE: destroyed} if destroyed else {})

    async def _opened(self, texts: bytes | None) -> Sequence[str]:
        """Returns the identifiers or addresses of a request's person; none once their key is destroyed."""
        opened = (await self._keys.decryptor([texts])).open(texts, context=IDENTIFIERS_CONTEXT)
        return orjson.loads(opened) if opened else []

    async def _progressed(self, session: AsyncSession, step: StepRow, progress: _Progress) -> bool:
        now, row = datetime.now(UTC), await _same(session, step)
        row.started_at, row.error = row.started_at or now, ""
        row.tables, row.answers = {**row.tables, **progress.tables}, dict(progress.answers)
        if progress.done:
            row.state, row.finished_at, row.next_at = DONE, now, None
            row.places = [[topic, partition, str(offset)] for (topic, partition), offset in sorted(progress.offsets.items())]
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
        requests, now = Requests(session, self._hasher), datetime.now(UTC)
        row = await requests.get(request_id)
        if row is not None and row.state == RUNNING:
            facts = receipt_facts(row, await requests.steps(request_id), now)
            head = await Audit(session).append({"action": f"{row.kind} done", **facts})
            receipt = canonical({**facts, "audit_head": head})
            row.receipt, row.signature = receipt, self._signer.sign(receipt.encode()).hex()
            row.state, row.finished_at, row.names, row.contacts = DONE, now, None, None
            await session.flush()
            _log.info("request done", request=request_id, kind=row.kind)


async def sealed(keys: Keys, request_id: str, texts: Collection[str]) -> bytes:
    """Seals the identifiers or addresses of a request under a key of its own."""
    own = _own_key(request_id)
    return (await keys.seals([own]))[own].seal(orjson.dumps(sorted(texts)).decode(), context=IDENTIFIERS_CONTEXT)


def _own_key(request_id: str) -> str:
    return f"request:{request_id}"


async def _same(session: AsyncSession, step: StepRow) -> StepRow:
    return await session.get_one(StepRow, (step.request_id, step.number), populate_existing=True)


def _offsets(step: StepRow) -> dict[TopicPartition, Offset]:
    return {TopicPartition(topic, partition): Offset.parse(offset) for topic, partition, offset in step.places}
