"""Reads the entries of a stream in order, from the publisher's history where the stream was trimmed."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final, TypeAlias

import structlog
from pmp.log.v1 import log_pb2 as pb
from typing_extensions import override

from kit.log.runner import PartitionHalted
from kit.log.streams import START, Counters, Delivery, Entry, Offset, StreamLog

_log = structlog.get_logger(__name__)

BATCH_MESSAGES: Final = 1000
"""Most messages of one transaction."""
READ_ENTRIES: Final = 128
"""Most entries of a partition in one read. An entry may be 512 KiB: what one read returns has to fit into memory."""
_BATCH_BYTES: Final = 4_194_304

_UNCOUNTED: Final = Counters({})

Counted: TypeAlias = tuple[Sequence[Entry], Counters]
"""Entries of a partition, and its counters as of the same moment; a topic has none."""

History: TypeAlias = Callable[[int, int], Awaitable[Sequence[Entry]]]
"""The publisher's history: entries of a partition after an offset, oldest first; empty at its end."""


class GapError(PartitionHalted):
    """Messages of a topic are missing that were not trimmed: the consumer halts rather than skip them."""


@dataclass(frozen=True, slots=True)
class Batch:
    """What follows an offset of a partition: an entry may exist for its offset alone."""

    after: Offset
    last: Offset
    deliveries: Sequence[Delivery]
    counters: Counters
    """Those of the log when it was read; a topic has none."""


@dataclass(slots=True)
class Reading:
    """What was read."""

    batches: dict[int, Batch]
    failed: dict[int, Exception]
    """Why partitions could not be read."""
    has_more: bool = False
    """Whether there is more to read."""


class Reader(ABC):
    """Reads the entries of one stream."""

    def __init__(self, log: StreamLog, topic: str) -> None:
        self._log = log
        self._topic = topic

    async def read(self, after: Mapping[int, Offset], most: int, block_ms: int) -> Reading:
        """Reads on in partitions, waiting up to `block_ms` for the first message in any of them.

        Args:
            after: the offsets after which to read, by partition.
            most: about how many messages to read, all partitions together; at least one entry of each that has some.
            block_ms: how long to wait.
        """
        found = await self._found(after, block_ms)
        reading = Reading({}, {})
        for partition, (entries, counters) in sorted(found.items()):
            try:
                whole = _bounded(
                    await self._continued(partition, after[partition], entries), most // len(found), _BATCH_BYTES // len(found)
                )
                reading.has_more |= len(entries) == READ_ENTRIES or whole[-1].offset != entries[-1].offset
                deliveries = _deliveries(self._topic, partition, whole)
                reading.batches[partition] = Batch(after[partition], whole[-1].offset, deliveries, counters)
            except Exception as error:  # noqa: BLE001 (whatever it is, the partition waits and the others go on)
                reading.failed[partition] = error
        return reading

    @abstractmethod
    async def check(self, partition: int, offset: Offset) -> None:
        """Looks what can be read after an offset that was loaded from the database."""

    @abstractmethod
    async def _found(self, after: Mapping[int, Offset], block_ms: int) -> Mapping[int, Counted]:
        """Returns the entries of partitions after an offset of each, of those that have some."""

    @abstractmethod
    async def _continued(self, partition: int, after: Offset, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Returns the entries that follow an offset without a gap."""


class RawLogReader(Reader):
    """Reads a raw log, and its counters with it."""

    @override
    async def check(self, partition: int, offset: Offset) -> None:
        """Logs an error when entries after an offset are lost, as after a restore. The books stay out of balance by them."""
        if offset != START and await self._log.trimmed(self._topic, partition) > offset:
            _log.error("messages lost: the database is older than the log keeps", topic=self._topic, partition=partition)

    @override
    async def _found(self, after: Mapping[int, Offset], block_ms: int) -> Mapping[int, Counted]:
        found = await self._log.read_counted(self._topic, after, limit=READ_ENTRIES)
        if not found and block_ms and await self._log.read_several(self._topic, after, limit=1, block_ms=block_ms):
            # Counters can't be waited for, and those of a later moment may have lost what counts the entries.
            return await self._log.read_counted(self._topic, after, limit=READ_ENTRIES)
        return found

    @override
    async def _continued(self, partition: int, after: Offset, entries: Sequence[Entry]) -> Sequence[Entry]:
        return entries


class TopicReader(Reader):
    """Reads a topic.

    Args:
        history: where to read on when the stream was trimmed after the offset; None where it is never trimmed.
    """

    def __init__(self, log: StreamLog, topic: str, history: History | None) -> None:
        super().__init__(log, topic)
        self._history = history

    @override
    async def check(self, partition: int, offset: Offset) -> None:
        pass  # What was trimmed is in the history.

    @override
    async def _found(self, after: Mapping[int, Offset], block_ms: int) -> Mapping[int, Counted]:
        found = await self._log.read_several(self._topic, after, limit=READ_ENTRIES, block_ms=block_ms)
        return {partition: (entries, _UNCOUNTED) for partition, entries in found.items()}

    @override
    async def _continued(self, partition: int, after: Offset, entries: Sequence[Entry]) -> Sequence[Entry]:
        """Returns the entries that follow an offset without a gap: those that were trimmed from the stream are in the history.

        Raises:
            GapError: messages are missing.
        """
        if self._history is None:
            return entries
        if entries[0].offset.ms != after.ms + 1:
            trimmed = await self._log.trimmed(self._topic, partition)
            if trimmed.ms < entries[0].offset.ms - 1:
                message = f"position {after.ms + 1} is missing, the next is {entries[0].offset.ms}"
                raise GapError(message)
            missed = [entry for entry in await self._history(partition, after.ms) if entry.offset < entries[0].offset]
            if missed:
                return missed
        return _unbroken(entries)


def _deliveries(topic: str, partition: int, entries: Sequence[Entry]) -> Sequence[Delivery]:
    """The messages of entries, in order."""
    return [
        Delivery(topic, partition, entry.offset, ordinal, entry.hour, record)
        for entry in entries
        for ordinal, record in enumerate(pb.Pack.FromString(entry.pack).records)
    ]


def _unbroken(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries before the first gap in their offsets: a relay that found its outbox pruned leaves one within a stream."""
    gaps = (index for index, (one, next_one) in enumerate(pairwise(entries), 1) if next_one.offset.ms != one.offset.ms + 1)
    return entries[: next(gaps, len(entries))]


def _bounded(entries: Sequence[Entry], most: int, most_bytes: int) -> Sequence[Entry]:
    """The first entries that have so many messages and bytes; at least one."""
    messages = size = 0
    for index, entry in enumerate(entries):
        messages += entry.messages
        size += len(entry.pack)
        if index and (messages > most or size > most_bytes):
            return entries[:index]
    return entries
