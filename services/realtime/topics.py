"""Reads the topics while somebody listens: without a database, from their heads on, and as far back as a listener asks."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from itertools import groupby
from typing import Final, NamedTuple

import structlog
from pmp.log.v1 import log_pb2 as pb

from kit.log.consume.reader import Batch, TopicReader
from kit.log.runner import pause_seconds
from kit.log.streams import Delivery, Offset, StreamLog
from kit.outages import is_outage
from services.realtime.cursor import Partition, Positions, cursor_of
from services.realtime.messages import LIVE, Live

_log = structlog.get_logger(__name__)

TOPICS: Final = ("events", "purchases")
"""The topics that are streamed."""
_BLOCK_MS: Final = 8000
"""How long a read waits for messages."""
_MESSAGES: Final = 500
"""Most messages of one read: they are made live at once, and everything else waits meanwhile."""
_PACE_SECONDS: Final = 0.05
"""From one publication to the next: each is written to thousands of connections."""
_TOGETHER: Final = 100
"""About how many messages are published together: what is buffered for a client that does not read must be small."""


class _Entry(NamedTuple):
    """What an entry of a topic holds. It is published as a whole: a cursor names entries."""

    partition: Partition
    offset: int
    messages: Sequence[Live]


@dataclass(frozen=True, slots=True)
class Passage:
    """What the topics hold after some positions."""

    messages: Sequence[Live]
    positions: Positions
    """Up to where it reaches."""
    is_trimmed: bool
    """Whether the topics no longer have all of it."""


class Topics:
    """Reads the topics once for all listeners, and not at all while there are none.

    Args:
        log: holds the topics.
        partitions: of each topic.
    """

    def __init__(self, log: StreamLog, partitions: int) -> None:
        self.partitions = [Partition(topic, number) for topic in TOPICS for number in range(partitions)]
        self.published: Positions = {}
        """Up to where messages have been published."""
        self.cursor = ""
        """The same for clients."""
        self._log = log
        self._publish: list[Callable[[Sequence[Live]], None]] = []
        self._lost: list[Callable[[], None]] = []
        self._advanced = asyncio.Event()
        """Set, and replaced, when `published` changes."""
        self._read: dict[Partition, int] = {}
        self._pending: list[_Entry] = []
        self._arrived = asyncio.Event()
        """Set when something is pending."""
        self._tasks: list[asyncio.Task[None]] = []
        self._listeners = 0
        self._starting = asyncio.Lock()

    def listen(self, publish: Callable[[Sequence[Live]], None], lost: Callable[[], None]) -> None:
        """Adds a listener.

        Args:
            publish: called with messages, in order, about twenty times a second at most; `published` includes them then.
            lost: called when the topics were trimmed before they were read.
        """
        self._publish.append(publish)
        self._lost.append(lost)

    @asynccontextmanager
    async def reading(self) -> AsyncGenerator[None]:
        """Reads while the block lasts, from the heads on unless it is read already.

        Raises:
            ConnectionError: the log is down.
        """
        async with self._starting:
            if not self._listeners:
                await self._start()
            self._listeners += 1
        try:
            yield
        finally:
            self._listeners -= 1
            if not self._listeners:
                self._stop()

    async def positions_at(self, topic: str, is_before: Callable[[bytes], bool]) -> Positions:
        """Returns the positions after the messages of a topic that are before a point in it; those of other topics are the newest.

        Args:
            topic: the topic.
            is_before: whether a payload is before that point: all are that were published before one that is.

        Raises:
            ConnectionError: the log is down.
        """
        found = dict(self.published)
        for each in (one for one in self.partitions if one.topic == topic):
            low, high = (await self._log.trimmed(topic, each.number)).ms, self.published[each]
            while low < high:
                middle = (low + high) // 2
                entries = await self._log.read(topic, each.number, Offset(middle, 0), limit=1, block_ms=0)
                records = pb.Pack.FromString(entries[0].pack).records if entries else ()
                if records and is_before(records[0].payload):
                    low = middle + 1
                else:
                    high = middle
            found[each] = low
        return found

    async def reach(self, positions: Positions) -> bool:
        """Waits until positions that another process may have read faster are published; returns whether the topics have them.

        Raises:
            ConnectionError: the log is down.
        """
        if _beyond(positions, self.published) and _beyond(positions, await self._heads()):
            return False
        while _beyond(positions, self.published):
            await self._advanced.wait()
        return True

    async def _heads(self) -> Positions:
        return {each: (await self._log.head(each.topic, each.number)).ms for each in self.partitions}

    async def passage(self, after: Positions, until: Positions) -> Passage:
        """Reads some of the messages between two positions.

        Raises:
            ConnectionError: the log is down.
        """
        positions = dict(after)
        messages: list[Live] = []
        is_trimmed = False
        for topic in TOPICS:
            asked = {each: after[each] for each in self.partitions if each.topic == topic and after[each] < until[each]}
            found: Mapping[Partition, Batch] = await self._batches(topic, asked, block_ms=0) if asked else {}
            for each, position in asked.items():
                batch = found.get(each)
                # Where nothing is found at all, the log was restored: what it had is published again, if it was published.
                positions[each] = until[each] if batch is None else min(batch.last.ms, until[each])
                if batch is not None:
                    messages += _live(delivery for delivery in batch.deliveries if delivery.offset.ms <= until[each])
                    is_trimmed |= await self._is_trimmed(each, position, batch)
        return Passage(messages, positions, is_trimmed)

    async def _start(self) -> None:
        self._read = dict(await self._heads())
        self._advance(self._read)
        works = [self._publish_pending(), *(self._follow(topic) for topic in TOPICS)]
        self._tasks = [asyncio.create_task(work) for work in works]

    def _stop(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._tasks = []
        self._pending = []

    async def _follow(self, topic: str) -> None:
        failures = 0
        while True:
            asked = {each: self._read[each] for each in self.partitions if each.topic == topic}
            try:
                found = await self._batches(topic, asked, block_ms=_BLOCK_MS)
                trimmed = [await self._is_trimmed(each, asked[each], batch) for each, batch in found.items()]
                entries = [entry for each, batch in found.items() for entry in _entries(each, batch)]
            except Exception as error:  # noqa: BLE001 (whatever it is, reading goes on once it has passed)
                pause = pause_seconds(failures)
                failures += 1
                shown = None if is_outage(error) else error
                _log.warning("topic not read", topic=topic, error=type(error).__name__, seconds=round(pause, 3), exc_info=shown)
                await asyncio.sleep(pause)
                continue
            failures = 0
            self._read |= {each: batch.last.ms for each, batch in found.items()}
            self._pending += entries
            self._arrived.set()
            if any(trimmed):
                _log.warning("messages were trimmed before they were read", topic=topic)
                for lost in self._lost:
                    lost()
            await asyncio.sleep(0)  # a backlog must not keep everything else from running

    async def _batches(self, topic: str, after: Mapping[Partition, int], *, block_ms: int) -> Mapping[Partition, Batch]:
        """Reads on in the partitions of a topic; returns those in which there was something.

        Raises:
            Exception: a partition can't be read.
        """
        offsets = {each.number: Offset(position, 0) for each, position in after.items()}
        reading = await TopicReader(self._log, topic, None).read(offsets, _MESSAGES, block_ms)
        for error in reading.failed.values():
            raise error
        return {Partition(topic, number): batch for number, batch in reading.batches.items()}

    async def _is_trimmed(self, partition: Partition, after: int, batch: Batch) -> bool:
        """Whether entries between an offset and the batch that was found after it were trimmed."""
        first = batch.deliveries[0].offset.ms if batch.deliveries else batch.last.ms
        return first != after + 1 and (await self._log.trimmed(partition.topic, partition.number)).ms > after

    async def _publish_pending(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            entries, self._pending = self._pending, []
            positions = dict(self.published)
            messages: list[Live] = []
            for entry in entries:
                positions[entry.partition] = entry.offset
                messages += entry.messages
                if len(messages) >= _TOGETHER:
                    self._publish_all(messages, positions)
                    messages = []
                    await asyncio.sleep(0)  # listeners take what was published before it is overtaken
            self._publish_all(messages, positions)
            await asyncio.sleep(_PACE_SECONDS)

    def _publish_all(self, messages: Sequence[Live], positions: Positions) -> None:
        self._advance(positions)
        for publish in self._publish:
            publish(messages)

    def _advance(self, positions: Positions) -> None:
        self.published = dict(positions)
        self.cursor = cursor_of(self.published)
        self._advanced.set()
        self._advanced = asyncio.Event()


def _beyond(positions: Positions, others: Positions) -> bool:
    return any(positions[each] > others[each] for each in positions)


def _live(deliveries: Iterable[Delivery]) -> list[Live]:
    return [LIVE[each.record.type](each.record.payload) for each in deliveries if each.record.type in LIVE]


def _entries(partition: Partition, batch: Batch) -> Iterator[_Entry]:
    """The entries of a batch; one that has no messages any more counts by the offset of the next one, or by that of the batch."""
    for offset, deliveries in groupby(batch.deliveries, key=lambda delivery: delivery.offset.ms):
        yield _Entry(partition, offset, _live(deliveries))
    yield _Entry(partition, batch.last.ms, ())
