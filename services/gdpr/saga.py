"""Takes requests about people's data step by step to their end: whatever fails or dies on the way, it goes on from what is written down.

A step may be taken twice: each is so made that the second time changes nothing. One process at a time works on them;
should two, for a moment, they do the same.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, Protocol

import grpc
import grpc.aio
import orjson
import structlog
from pmp.privacy.v1 import privacy_pb2 as pb
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceStub
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database import READING, Sessions, transact
from kit.errors import Unavailable
from kit.keys.store import DATABASE, Keys
from kit.log.consume import happens
from kit.outbox import StateTopic
from kit.settings import Settings
from kit.telemetry import MetricName, meter
from kit.vault import Vault
from services.gdpr.audit import canonical
from services.gdpr.calls import Calls
from services.gdpr.messages import NAMES_CONTEXT, TOPIC, receipt_facts, suppression_told
from services.gdpr.models import RequestRow, StepRow
from services.gdpr.repository import Audit, Requests
from services.gdpr.rules import CALL, DONE, DUE, ERASE, KEYS, NAMES, PURGE, RUNNING, SUPPRESS, WAITING, Place, pause, reached, whom

_log = structlog.get_logger(__name__)

_NAMES_AT_ONCE: Final = 1000
_WITH_ADDRESSES: Final = ("wordpress_data", "purchase_history")
"""Sections of an export in which somebody's e-mail addresses stand in clear."""
_CALL_SECONDS: Final = 120.0
_EXPORT_SECONDS: Final = 900.0
_IDLE_SECONDS: Final = 2.0
_LOOK_SECONDS: Final = 15.0
_SOON: Final = timedelta(milliseconds=200)
_OVERDUE: Final = timedelta(minutes=10)


class Leases(Protocol):
    """Says which process works."""

    interval: float

    async def tick(self) -> set[int]:
        """Renews; not empty where this process is the one."""
        ...

    async def release(self) -> None:
        """Lets another one work."""
        ...


@dataclass(slots=True)
class Answer:
    """What a holder answered."""

    tables: Counter[str] = field(default_factory=Counter[str])
    """What went now, or would go."""
    total: Mapping[str, int] = field(default_factory=dict[str, int])
    """What went under the task so far."""
    read: dict[Place, str] = field(default_factory=dict[Place, str])
    written: dict[Place, str] = field(default_factory=dict[Place, str])
    entries_left: int = 0


@dataclass(frozen=True, slots=True)
class _Progress:
    """How a try of a step ended."""

    done: bool
    tables: Mapping[str, int] = field(default_factory=dict[str, int])
    """What went in all tries, of tables where anything did."""
    places: Mapping[Place, str] = field(default_factory=dict[Place, str])


class Holders:
    """The services that hold something of persons.

    Args:
        names: the services.
    """

    def __init__(self, settings: Settings, names: Collection[str]) -> None:
        self.names = sorted(names)
        self._addresses = {name: settings.address(name) for name in names}
        self._metadata = (("x-pmp-mesh-token", settings.mesh_token.get_secret_value()),)

    async def erase(
        self,
        holder: str,
        names: Sequence[str] = (),
        pseudonym: str = "",
        *,
        task: str = "",
        dry_run: bool = False,
        through: Mapping[Place, str] | None = None,
    ) -> Answer:
        """Erases names at a holder, which counts what goes under the task, or asks how far it is.

        Raises:
            Unavailable: it does not answer.
        """
        purge = [pb.Place(topic=topic, partition=partition, position=at) for (topic, partition), at in (through or {}).items()]
        whole = Answer()
        try:
            async with grpc.aio.insecure_channel(self._addresses[holder]) as channel:
                stub: Any = SubjectDataServiceStub(channel)
                for start in range(0, max(1, len(names)), _NAMES_AT_ONCE):
                    some = names[start : start + _NAMES_AT_ONCE]
                    request = pb.EraseRequest(names=some, pseudonym=pseudonym, task=task, dry_run=dry_run, purge_through=purge)
                    answer: pb.EraseResponse = await stub.Erase(request, metadata=self._metadata, timeout=_CALL_SECONDS)
                    whole.tables.update({each.table: each.rows for each in answer.tables})
                    # What was read before the first portion was erased is what counts.
                    whole.read = whole.read or _places(answer.read)
                    whole.total = {each.table: each.rows for each in answer.total}
                    whole.written, whole.entries_left = _places(answer.written), answer.entries_left
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{holder} answers {error.code().name}") from None
        return whole

    async def answer(self) -> None:
        """Returns when all of them answer.

        Raises:
            Unavailable: one does not.
        """
        await asyncio.gather(*(self.erase(holder, dry_run=True) for holder in self.names))

    async def export(self, holder: str, names: Sequence[str], section: str) -> AsyncGenerator[pb.ExportResponse]:
        """What a holder has for a section of somebody's archive: table by table, each row once.

        Raises:
            Unavailable: it does not answer.
        """
        if len(names) <= _NAMES_AT_ONCE:
            async with aclosing(self._exported(holder, names, section)) as rows:
                async for row in rows:
                    yield row
            return
        # More names than it takes at once: each portion of them is asked for anew, table by table.
        portions = [names[start : start + _NAMES_AT_ONCE] for start in range(0, len(names), _NAMES_AT_ONCE)]
        tables = dict.fromkeys([row.table for some in portions async for row in self._exported(holder, some, section)])
        for table in tables:
            shown = set[bytes]()
            for some in portions:
                async with aclosing(self._exported(holder, some, section)) as rows:
                    async for row in rows:
                        digest = blake2b(row.record.encode(), digest_size=16).digest()
                        if row.table == table and digest not in shown:
                            shown.add(digest)
                            yield row

    async def addresses(self, names: Sequence[str]) -> set[str]:
        """E-mail addresses of somebody, as the holders know them.

        Raises:
            Unavailable: a holder does not answer.
        """
        found: set[str] = set()
        for holder in self.names:
            for start in range(0, len(names), _NAMES_AT_ONCE):
                async with aclosing(self._exported(holder, names[start : start + _NAMES_AT_ONCE], *_WITH_ADDRESSES)) as rows:
                    async for row in rows:
                        found.add(orjson.loads(row.record).get("email") or "")
        return found - {""}

    async def _exported(self, holder: str, names: Sequence[str], *sections: str) -> AsyncGenerator[pb.ExportResponse]:
        try:
            async with grpc.aio.insecure_channel(self._addresses[holder]) as channel:
                stub: Any = SubjectDataServiceStub(channel)
                request = pb.ExportRequest(names=names, sections=sections)
                async for row in stub.Export(request, metadata=self._metadata, timeout=_EXPORT_SECONDS):
                    yield row
        except grpc.aio.AioRpcError as error:
            raise Unavailable(f"{holder} answers {error.code().name}") from None


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
        """Says that there is something to do."""
        self._asked.set()

    async def run(self, leases: Leases) -> None:
        """Works until cancelled."""
        loop, renew_at, mine = asyncio.get_running_loop(), 0.0, False
        try:
            while True:
                if loop.time() >= renew_at:
                    mine, renew_at = bool(await leases.tick()), loop.time() + leases.interval
                busy = False
                try:
                    busy = mine and await self.work()
                except Exception as error:  # noqa: BLE001 (the database may be down: it is looked at again)
                    _log.warning("requests not looked at", error=type(error).__name__)
                await self._rest(_SOON.total_seconds() if busy else min(_IDLE_SECONDS, leases.interval))
        finally:
            await leases.release()

    async def work(self) -> bool:
        """Tries the next step of every request that is not done; says whether there was one."""
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            running = [(row.id, row.due_at) for row in await Requests(session, self._vault).running()]
        for request_id, due_at in running:
            if datetime.now(UTC) > due_at:
                _log.error("request overdue", request=request_id)
            while await self._advance(request_id):
                pass
        return bool(running)

    async def _rest(self, seconds: float) -> None:
        if await happens(self._asked, seconds):
            self._asked.clear()

    async def _advance(self, request_id: str) -> bool:
        """Tries the step a request is at; True when it went on."""
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
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
        if not progress.done and step.started_at is not None and now > step.started_at + _OVERDUE:
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
            await self._topic.tell(session, [suppression_told(change) for change in changes])
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
        return _Progress(await self._keys.scrub(), {DATABASE: destroyed} if destroyed else {})

    async def _opened(self, texts: bytes | None) -> Sequence[str]:
        """The names or addresses of a request's person; none once the key they are sealed under is destroyed."""
        opened = (await self._keys.opener([texts])).open(texts, context=NAMES_CONTEXT)
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


class Deadlines:
    """Gauges of what the law and people wait for. Every replica tells the same."""

    def __init__(self, sessions: Sessions, vault: Vault) -> None:
        self._sessions = sessions
        self._vault = vault
        self._left = meter().create_gauge(
            MetricName.REQUEST_LEFT, "s", "Time left for the open request that is due first; 30 days for none."
        )
        self._steps = meter().create_gauge(MetricName.STEPS_OVERDUE, "{step}", "Steps of requests that have been tried for ten minutes.")

    async def run(self) -> None:
        """Looks every 15 seconds, until cancelled."""
        while True:
            try:
                await self.look(datetime.now(UTC))
            except Exception as error:  # noqa: BLE001 (the database may be down: it is looked at again)
                _log.warning("deadlines not looked at", error=type(error).__name__)
            await asyncio.sleep(_LOOK_SECONDS)

    async def look(self, now: datetime) -> None:
        """Sets the gauges."""
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            due_at, steps = await Requests(session, self._vault).waiting(now - _OVERDUE)
        self._left.set((due_at - now if due_at else DUE).total_seconds())
        self._steps.set(steps)


async def sealed(keys: Keys, request_id: str, texts: Collection[str]) -> bytes:
    """Names or addresses as a request keeps them: under a key of its own."""
    own = _own_name(request_id)
    return (await keys.seals([own]))[own].seal(orjson.dumps(sorted(texts)).decode(), context=NAMES_CONTEXT)


def _own_name(request_id: str) -> str:
    return f"request:{request_id}"


async def _same(session: AsyncSession, step: StepRow) -> StepRow:
    return await session.get_one(StepRow, (step.request_id, step.number), populate_existing=True)


def _places(places: Sequence[pb.Place]) -> dict[Place, str]:
    return {(place.topic, place.partition): place.position for place in places}


def _known(step: StepRow) -> dict[Place, str]:
    return {(topic, partition): position for topic, partition, position in step.places}
