"""Reads a stream so that every message takes effect exactly once.

The position is kept in the consumer's own database and moves in the transaction that writes the effect: whoever
finds it moved by somebody else rolls back. Leases in Redis only keep two consumers from doing the same work.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, TypeAlias, TypeVar

import structlog
from opentelemetry.trace import SpanKind
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions
from kit.log import books, dead_letters, positions
from kit.log.leases import Leases
from kit.log.streams import START, Counters, Delivery, Entry, Position, StreamLog
from kit.outages import is_outage
from kit.telemetry.names import Attribute, SpanName
from kit.telemetry.tracing import span

_Result = TypeVar("_Result")
_log = structlog.get_logger(__name__)

BATCH_MESSAGES: Final = 1000
_LEAST_MESSAGES: Final = 128
"""What a transaction may hold however slow the last ones were: beginning and ending one costs as much as these."""
_BUDGET_SECONDS: Final = 0.5
"""So long may a transaction hold its locks: calls wait behind it."""
# An entry may be 512 KiB: what one read brings has to fit into memory.
_READ_ENTRIES: Final = 128
_BATCH_BYTES: Final = 4_194_304
_BLOCK_MS: Final = 4000
"""So long a read waits for news. At rest, a consumer does nothing else."""
_LONGEST_WAIT: Final = 5.0
# A transaction costs a service more than the messages of a topic in it: those that come in this time share one.
_PACE_SECONDS: Final = 0.25


class Poison(Exception):
    """A message that will never succeed: it is set aside, and the rest goes on. The reason holds nothing personal."""


class GapError(Exception):
    """Messages of a topic are missing that were not trimmed: the consumer stops, and a person has to look."""


Handler: TypeAlias = Callable[[AsyncSession, Sequence[Delivery]], Awaitable[Sequence[str | Poison]]]
"""Writes the effect of messages in the given transaction; answers what became of each (a word for the books), in order."""

History: TypeAlias = Callable[[int, int], Awaitable[Sequence[Entry]]]
"""The publisher's history: entries of a partition behind a position, oldest first; empty at its end."""


class Consumer:
    """Feeds the messages of one stream to one handler.

    Args:
        counted: keep books of what became of each message (the raw log), and copies of the log's counters.
        history: where to read on when the stream was trimmed behind the position (topics); None for the raw log.
    """

    def __init__(
        self,
        sessions: Sessions,
        log: StreamLog,
        topic: str,
        handler: Handler,
        *,
        counted: bool = False,
        history: History | None = None,
        after_commit: Callable[[int, Position], Awaitable[None]] | None = None,
    ) -> None:
        self._sessions = sessions
        self._log = log
        self._topic = topic
        self._handler = handler
        self._counted = counted
        self._history = history
        self._after_commit = after_commit
        self._marked: set[int] = set()
        self._positions: dict[int, Position] = {}
        self._copied: dict[int, Counters] = {}
        self._room = BATCH_MESSAGES
        """So many messages make a transaction: fewer when the last ones took too long, on a busy machine or for what they did."""

    async def run(self, leases: Leases) -> None:
        """Consumes the partitions it holds leases for, until cancelled; steps under way are finished first."""
        tasks: dict[int, asyncio.Task[None]] = {}
        stop: dict[int, asyncio.Event] = {}
        try:
            while True:
                held = await leases.tick()
                for partition in [p for p, task in tasks.items() if p not in held or task.done()]:
                    stop[partition].set()
                    await tasks.pop(partition)
                for partition in held - tasks.keys():
                    stop[partition] = asyncio.Event()
                    tasks[partition] = asyncio.create_task(self._follow(partition, stop[partition]))
                await self._look_for_marked()
                await asyncio.sleep(leases.interval)
        finally:
            for event in stop.values():
                event.set()
            await asyncio.gather(*tasks.values(), return_exceptions=True)
            await leases.release()

    async def _follow(self, partition: int, stop: asyncio.Event) -> None:
        wait = 0.0
        while not stop.is_set():
            applied, started = 0, asyncio.get_running_loop().time()
            try:
                if partition in self._marked:
                    await self.retry(partition)
                    self._marked.discard(partition)
                applied = await self.step(partition, block_ms=_BLOCK_MS, stop=stop)
                wait = 0.0
            except GapError as error:
                _log.error("consumer stopped", topic=self._topic, partition=partition, reason=str(error))
                wait = _LONGEST_WAIT
            except Exception as error:  # noqa: BLE001 (the partition waits, whatever it is)
                wait = min(_LONGEST_WAIT, max(0.05, wait * 2))
                expected = is_outage(error)
                _log.warning(
                    "partition waits",
                    topic=self._topic,
                    partition=partition,
                    error=type(error).__name__,
                    seconds=wait,
                    exc_info=not expected,
                )
            if wait:
                await happens(stop, wait * random.uniform(0.5, 1))  # noqa: S311 (jitter)
            elif self._history and 0 < applied < _READ_ENTRIES:
                # A step that took long shows that the machine has other work.
                took = asyncio.get_running_loop().time() - started
                await happens(stop, max(_PACE_SECONDS - took, min(took, _LONGEST_WAIT)))

    async def _look_for_marked(self) -> None:
        try:
            async with self._sessions.reading() as session:
                self._marked |= await dead_letters.marked_partitions(session, self._topic)
        except Exception as error:  # noqa: BLE001 (the partitions themselves say what is wrong)
            _log.debug("dead letters not looked for", topic=self._topic, error=type(error).__name__)

    async def step(self, partition: int, *, block_ms: int = 0, stop: asyncio.Event | None = None) -> int:
        """Reads on and applies what it finds in one transaction; says how many messages that were.

        Args:
            partition: where to read.
            block_ms: how long to wait for messages.
            stop: ends the waiting.

        Raises:
            GapError: messages are missing.
            Exception: a transient error of the database or the log; nothing was applied.
        """
        try:
            position = self._positions.get(partition)
            if position is None:
                position = await self._stored(partition)
            entries = await _unless(stop, self._read(partition, position, block_ms)) or ()
            if not entries:
                # A restore or a replay moves the position back without a word.
                if partition in self._positions and await positions.load(self._sessions, self._topic, partition) != position:
                    self._forget(partition)
                return 0
            copies = await self._log.counters(self._topic, partition) if self._counted else None
            deliveries = [delivery for entry in entries for delivery in _deliveries(self._topic, partition, entry)]
            parents = list(dict.fromkeys(d.record.traceparent for d in deliveries if d.record.traceparent))
            attributes: Mapping[str, str | int] = {
                Attribute.TOPIC: self._topic,
                Attribute.PARTITION: partition,
                Attribute.MESSAGES: len(deliveries),
            }
            with span(
                SpanName.CONSUME, parent=parents[0] if parents else "", links=parents[1:], kind=SpanKind.CONSUMER, attributes=attributes
            ):
                ends = position, entries[-1].position
                # Hardly anything ever fails, and a savepoint costs two statements.
                try:
                    await self._apply(partition, ends, deliveries, copies, self._handler)
                except Exception as error:
                    if isinstance(error, positions.OffsetConflict) or is_outage(error):
                        raise
                    await self._apply(partition, ends, deliveries, copies, self._settle)
            self._positions[partition] = entries[-1].position
            if copies is not None:
                self._copied[partition] = copies
        except positions.OffsetConflict:
            self._forget(partition)
            return 0
        except BaseException:
            # Whether a failed commit happened is only known to the database.
            self._forget(partition)
            raise
        if self._after_commit:
            await self._after_commit(partition, entries[-1].position)
        return len(deliveries)

    async def _apply(
        self, partition: int, ends: tuple[Position, Position], deliveries: Sequence[Delivery], copies: Counters | None, handler: Handler
    ) -> None:
        async with self._sessions.turns.follower():
            began = asyncio.get_running_loop().time()
            await self._commit(partition, ends, deliveries, copies, handler)
            seconds = asyncio.get_running_loop().time() - began
        if seconds > _BUDGET_SECONDS:
            self._room = max(_LEAST_MESSAGES, min(self._room, len(deliveries)) // 2)
        elif seconds < _BUDGET_SECONDS / 2:
            self._room = min(BATCH_MESSAGES, self._room + _LEAST_MESSAGES)

    async def _commit(
        self, partition: int, ends: tuple[Position, Position], deliveries: Sequence[Delivery], copies: Counters | None, handler: Handler
    ) -> None:
        async with self._sessions.begin() as session:
            await positions.advance(session, self._topic, partition, *ends)
            if deliveries:  # an entry may be there for its position alone
                outcomes = await handler(session, deliveries)
                await self._write_down(session, deliveries, outcomes)
            if copies is not None:
                await books.copy_counters(session, self._topic, partition, copies, self._copied.get(partition))

    async def retry(self, partition: int) -> int:
        """Gives the dead letters that a person marked another try; says how many."""
        async with self._sessions.turns.follower(), self._sessions.begin() as session:
            letters = await dead_letters.marked(session, self._topic, partition)
            if not letters:
                return 0
            await positions.locked(session, self._topic, partition)
            for letter in letters:
                delivery = Delivery(self._topic, partition, letter.position, letter.ordinal, letter.hour, letter.record)
                [outcome] = await self._settle(session, [delivery])
                if isinstance(outcome, Poison):
                    await dead_letters.keep(session, letter.id, str(outcome))
                else:
                    await dead_letters.remove(session, letter.id)
                if self._counted and not isinstance(outcome, Poison):
                    await books.move(session, self._topic, partition, {(letter.hour, books.DEAD_LETTERED): -1, (letter.hour, outcome): 1})
        return len(letters)

    async def _read(self, partition: int, position: Position, block_ms: int) -> Sequence[Entry]:
        entries = await self._log.read(self._topic, partition, position, limit=_READ_ENTRIES, block_ms=block_ms)
        if self._history is not None and entries and entries[0].position.ms != position.ms + 1:
            trimmed = await self._log.trimmed(self._topic, partition)
            if trimmed.ms < entries[0].position.ms - 1:
                message = f"position {position.ms + 1} is missing, the next is {entries[0].position.ms}"
                raise GapError(message)
            missed = await self._history(partition, position.ms)
            missed = [entry for entry in missed if entry.position < entries[0].position]
            if missed:
                return _bounded(missed, self._room)
        return _bounded(_unbroken(entries) if self._history else entries, self._room)

    async def _stored(self, partition: int) -> Position:
        position = await positions.load(self._sessions, self._topic, partition)
        if self._history is None and position != START and await self._log.trimmed(self._topic, partition) > position:
            # The books stay out of balance by what is lost; stopping would not bring it back.
            _log.error("messages lost: the database is older than the log keeps", topic=self._topic, partition=partition)
        return position

    async def _settle(self, session: AsyncSession, deliveries: Sequence[Delivery], *, again: bool = False) -> Sequence[str | Poison]:
        """Applies messages; halves them until those that fail stand alone, and sets these aside.

        What fails alone is tried once more: another partition may have stored the same id meanwhile, and is seen by now.
        """
        try:
            async with session.begin_nested():
                return await self._handler(session, deliveries)
        except Exception as error:
            if is_outage(error):
                raise
            if len(deliveries) == 1 and (again or isinstance(error, Poison)):
                return [_poison(error)]
        if len(deliveries) == 1:
            return await self._settle(session, deliveries, again=True)
        half = len(deliveries) // 2
        return [*await self._settle(session, deliveries[:half]), *await self._settle(session, deliveries[half:])]

    async def _write_down(self, session: AsyncSession, deliveries: Sequence[Delivery], outcomes: Sequence[str | Poison]) -> None:
        set_aside = [(d, str(o)) for d, o in zip(deliveries, outcomes, strict=True) if isinstance(o, Poison)]
        await dead_letters.add(session, set_aside)
        if self._counted:
            counts = Counter(
                (d.hour, books.DEAD_LETTERED if isinstance(o, Poison) else o) for d, o in zip(deliveries, outcomes, strict=True)
            )
            await books.move(session, self._topic, deliveries[0].partition, counts)

    def _forget(self, partition: int) -> None:
        self._positions.pop(partition, None)
        self._copied.pop(partition, None)


async def _unless(stop: asyncio.Event | None, work: Coroutine[Any, Any, _Result]) -> _Result | None:
    """What the work answers; None when it is stopped first, and cancelled."""
    if stop is None:
        return await work
    tasks = asyncio.create_task(work), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        return tasks[0].result() if tasks[0].done() else None
    finally:
        for task in tasks:
            task.cancel()


async def happens(event: asyncio.Event, seconds: float) -> bool:
    """Waits for something, at most so long; says whether it happened."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False


def _deliveries(topic: str, partition: int, entry: Entry) -> list[Delivery]:
    records = pb.Pack.FromString(entry.pack).records
    position = str(entry.position)
    return [Delivery(topic, partition, position, ordinal, entry.hour, record) for ordinal, record in enumerate(records)]


def _unbroken(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries before the first hole in their positions: a relay that found its outbox pruned leaves one within a stream."""
    holes = (index for index, (one, next_one) in enumerate(pairwise(entries), 1) if next_one.position.ms != one.position.ms + 1)
    return entries[: next(holes, len(entries))]


def _bounded(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """As many entries as make one transaction of so many messages; at least one."""
    messages = size = 0
    for index, entry in enumerate(entries):
        messages += entry.messages
        size += len(entry.pack)
        if index and (messages > most or size > _BATCH_BYTES):
            return entries[:index]
    return entries


def _poison(error: Exception) -> Poison:
    """The reason a person reads; an unexpected error's own text may hold personal data and goes no further."""
    if isinstance(error, Poison):
        return error
    _log.error("message set aside", error=type(error).__name__, exc_info=(type(error), None, error.__traceback__))
    return Poison(f"unexpected {type(error).__name__}")
