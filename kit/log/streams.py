"""What the log can do: the operations on which its promises rest, whatever holds it.

A topic has a fixed number of partitions, each one stream of entries in the order of their positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, Protocol, TypeAlias
from zlib import crc32

from pmp.log.v1 import log_pb2 as pb

from kit.outages import LogDownError

PACK_BYTES: Final = 524_288
"""Largest pack; one entry of the log."""


class Position(NamedTuple):
    """A place in a stream: the id of an entry. Compares as numbers. In a topic `ms` is the position and `seq` 0."""

    ms: int
    seq: int

    def __str__(self) -> str:
        return f"{self.ms}-{self.seq}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads `ms-seq`."""
        ms, _, seq = text.partition("-")
        return cls(int(ms), int(seq or 0))


APPENDS: Final = "appends"
"""Name of the counter, of hour 0, that holds the number of a writer's last append."""

START: Final = Position(0, 0)
"""Before the first entry."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of a stream."""

    position: Position
    pack: bytes
    messages: int
    hour: int


class Turn(NamedTuple):
    """Which append of its writer this is. It takes place once, and only where the log holds the one it follows."""

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
    """A partition's counters and what lies behind a position, read in one instant."""

    counters: Counters
    pending: Mapping[int, int]
    """Messages behind the position, by hour of receipt."""
    trimmed: Position
    """Entries up to here are gone."""


class Delivery(NamedTuple):
    """One message as it lies in the log."""

    topic: str
    partition: int
    position: str
    ordinal: int
    """Place within the entry."""
    hour: int
    """Hour of receipt, in hours since 1970."""
    record: pb.Record


class OutOfTurnError(LogDownError):
    """The log holds another append of the writer as the last: one that it did not confirm, or an older one since it lost some.

    Nothing was written.
    """

    def __init__(self, found: int) -> None:
        super().__init__("the log holds another append as the last")
        self.found = found
        """Number of the last append of the writer that it holds."""


Watermarks: TypeAlias = Callable[[], Awaitable[Mapping[tuple[str, int], Position]]]
"""Reads how far the tables have read, by topic and partition."""


class StreamLog(Protocol):
    """The operations on which the log's promises rest. Every one of them either happens as a whole or not at all."""

    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        """Appends to several partitions in one round trip; an error per partition that refused."""
        ...

    async def read(self, topic: str, partition: int, after: Position, *, limit: int, block_ms: int) -> Sequence[Entry]:
        """Entries behind a position, waiting up to `block_ms` for the first."""
        ...

    async def head(self, topic: str, partition: int) -> Position:
        """The last position that was ever given in the stream."""
        ...

    async def publish(self, topic: str, partition: int, *, head: Position, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        """Appends entries (position, pack, number of messages) if the stream's head is still `head`; says whether it was.

        A first position that leaves a gap behind the head marks what is between them as trimmed.
        """
        ...

    async def raise_head(self, topic: str, partition: int, position: Position) -> None:
        """Makes sure that every later entry has a position behind this one."""
        ...

    async def trim(self, topic: str, partition: int, through: Position) -> None:
        """Drops the entries up to and including a position, and says so in `trimmed`."""
        ...

    async def trimmed(self, topic: str, partition: int) -> Position:
        """Entries up to here are gone."""
        ...

    async def counters(self, topic: str, partition: int) -> Counters:
        """The partition's counters."""
        ...

    async def backlog(self, topic: str, partition: int, after: Position) -> Backlog:
        """The partition's counters and what lies behind a position, in one instant."""
        ...


async def reconcile(log: StreamLog, floors: Mapping[tuple[str, int], Position], *, now: float) -> None:
    """Makes a log that may have been restored, wiped or failed over safe to append to: new entries come behind those that were read.

    `now` is this process's clock, in seconds: a consumer may still hold, and commit, what it read before the log was restored, so
    that new entries come behind that too, whatever the clock of the log says.
    """
    for (topic, partition), position in floors.items():
        await log.raise_head(topic, partition, max(position, Position(int(now * 1000), 0)))


def partition_of(key: str, partitions: int) -> int:
    """The partition of a key."""
    return crc32(key.encode()) % partitions
