"""The operations on which the promises of the log rest, whatever holds it, and the values they work with.

A topic has a fixed number of partitions, each one stream of entries in the order of their offsets.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias
from zlib import crc32

from pmp.log.v1 import log_pb2 as pb

from kit.outages import LogDownError


class TopicPartition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Offset(NamedTuple):
    """The id of an entry in a partition; offsets compare as numbers.

    In the raw log it is the time of the append and a sequence number; in a topic, `ms` counts the entries and `seq` is 0.
    """

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Offset:
        """Reads `ms-seq`."""
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq or 0))


APPENDS: Final = "appends"
"""Name of the counter, of hour 0, that holds the number of a writer's last append."""

START: Final = Offset(0, 0)
"""Before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    offset: Offset
    pack: bytes
    messages: int
    hour: int


class Turn(NamedTuple):
    """Which append of its writer this is. It takes effect once, and only where the log holds the append that it follows."""

    writer: str
    """The life of a process that appends."""
    after: int
    """Number of the writer's last append that the log holds; 0 when it holds none."""
    number: int
    """Number of this append: higher than that of any before it."""


@dataclass(frozen=True, slots=True)
class Append:
    """What one group commit writes to one partition, at once or not at all."""

    partition: int
    packs: Sequence[tuple[bytes, int]]
    """Serialised packs with the number of messages in each."""
    hour: int
    """Hour of receipt, in hours since 1970."""
    counters: Mapping[str, int]
    """The writer's counters of that hour, this append included: a log that lost some has the right ones again."""
    turn: Turn


class Count(NamedTuple):
    """Names a counter."""

    writer: str
    name: str
    hour: int


@dataclass(frozen=True, slots=True)
class Counters:
    """The counters of a partition as the log holds them."""

    of_writers: Mapping[Count, int]
    """What each writer has counted."""

    @property
    def counts(self) -> Mapping[tuple[str, int], int]:
        """Sums over the writers, by name and hour."""
        sums: dict[tuple[str, int], int] = defaultdict(int)
        for counter, count in self.of_writers.items():
            if counter.name != APPENDS:
                sums[counter.name, counter.hour] += count
        return sums


@dataclass(frozen=True, slots=True)
class Backlog:
    """A partition's counters and the messages after an offset, read in one instant."""

    counters: Counters
    pending: Mapping[int, int]
    """Number of messages after the offset, by hour of receipt."""
    trimmed: Offset
    """Entries up to this offset are gone."""


class Delivery(NamedTuple):
    """One message as the log holds it."""

    topic: str
    partition: int
    offset: Offset
    """Of the entry that holds it."""
    ordinal: int
    """Index within the entry."""
    hour: int
    """Hour of receipt, in hours since 1970."""
    record: pb.Record


class OutOfTurnError(LogDownError):
    """The log holds another append of the writer as the last: one that it did not confirm, or an older one because it lost some.

    Nothing was written.
    """

    def __init__(self, found: int) -> None:
        super().__init__("the log holds another append as the last")
        self.found = found
        """Number of the last append of the writer that it holds."""


Watermarks: TypeAlias = Callable[[], Awaitable[Mapping[TopicPartition, Offset]]]
"""Reads the offsets that consumers have committed."""


class StreamLog(Protocol):
    """The operations on which the log's promises rest. Every one of them either happens as a whole or not at all."""

    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        """Appends to several partitions in one round trip; an error per partition that refused."""
        ...

    async def read(self, topic: str, partition: int, after: Offset, *, limit: int, block_ms: int) -> Sequence[Entry]:
        """Returns entries after an offset, waiting up to `block_ms` for the first."""
        return (await self.read_several(topic, {partition: after}, limit=limit, block_ms=block_ms)).get(partition, ())

    async def read_several(self, topic: str, after: Mapping[int, Offset], *, limit: int, block_ms: int) -> Mapping[int, Sequence[Entry]]:
        """Returns entries of partitions after an offset of each, of those that have some, waiting up to `block_ms` for the first.

        Args:
            topic: where to read.
            after: the offsets, by partition.
            limit: the most entries of a partition.
            block_ms: how long to wait; 0 for not at all.
        """
        ...

    async def read_counted(self, topic: str, after: Mapping[int, Offset], *, limit: int) -> Mapping[int, tuple[Sequence[Entry], Counters]]:
        """Does `read_several` without waiting, and returns the partitions' counters as of the same moment.

        Entries can be lost after they were read; what counts them then can't be.
        """
        ...

    async def heads(self, topic: str, partitions: Collection[int]) -> Mapping[int, Offset]:
        """Returns the last offset that was ever assigned in the stream of each partition."""
        ...

    async def head(self, topic: str, partition: int) -> Offset:
        """Does `heads` for one partition."""
        return (await self.heads(topic, [partition]))[partition]

    async def publish(self, topic: str, partition: int, *, head: Offset, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        """Appends entries (offset, pack, number of messages) if the stream's head is still `head`.

        A first offset that leaves a gap after the head marks the entries in between as trimmed.

        Returns:
            Whether the head was `head`.
        """
        ...

    async def publish_to_several(
        self, topic: str, batches: Mapping[int, tuple[Offset, Sequence[tuple[int, bytes, int]]]]
    ) -> Collection[int]:
        """Does `publish` in several partitions, given the head and the entries of each.

        Returns:
            The partitions whose head was the given one.
        """
        return [each for each, (head, packs) in batches.items() if await self.publish(topic, each, head=head, packs=packs)]

    async def raise_head(self, topic: str, partition: int, offset: Offset) -> None:
        """Makes sure that every later entry has an offset after this one."""
        ...

    async def trim(self, topic: str, partition: int, through: Offset) -> None:
        """Drops the entries up to and including an offset, and records it in `trimmed`."""
        ...

    async def trimmed(self, topic: str, partition: int) -> Offset:
        """Returns the offset up to which entries are gone."""
        ...

    async def counters(self, topic: str, partition: int) -> Counters:
        """Returns the partition's counters."""
        ...

    async def backlog(self, topic: str, partition: int, after: Offset) -> Backlog:
        """Returns the partition's counters and the messages after an offset, read in one instant."""
        ...


async def reconcile(log: StreamLog, floors: Mapping[TopicPartition, Offset], *, now: float) -> None:
    """Makes a log that may have been restored, wiped or failed over safe to append to: new entries come after those that were read.

    `now` is this process's clock, in seconds: a consumer may still hold, and commit, what it read before the log was restored, so
    that new entries come after that too, whatever the clock of the log says.
    """
    for (topic, partition), offset in floors.items():
        await log.raise_head(topic, partition, max(offset, Offset(int(now * 1000), 0)))


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key."""
    return crc32(key.encode()) % partitions
