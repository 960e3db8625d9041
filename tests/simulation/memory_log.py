"""A log in memory that keeps the promises of `kit.log.streams.StreamLog`, and breaks where a real one can break.

`MemoryRedis` is the server and `MemoryLog` a process's client of it. A client stops at every call, before its effect and, where it has
one, after it (`pause`): there a scheduler may suspend it, end its process, or raise what a broken connection raises.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace

from typing_extensions import override

from kit.log.streams import (
    APPENDS,
    START,
    Append,
    Backlog,
    Count,
    Counters,
    Entry,
    Offset,
    OutOfTurnError,
    StreamLog,
    TopicPartition,
    Watermarks,
    reconcile,
)
from kit.outages import LogDownError, LogFullError

Pause = Callable[[str], Awaitable[None]]
"""Waits at a named point of a call; raises what happens to the caller there."""


@dataclass(slots=True)
class Stream:
    """One partition. `kept` shows a test which entries it ever held, also where they were trimmed since."""

    head: Offset = START
    entries: list[Entry] = field(default_factory=list[Entry])
    trimmed: Offset = START
    counts: dict[Count, int] = field(default_factory=dict[Count, int])
    kept: set[Offset] = field(default_factory=set[Offset])

    def copy(self) -> Stream:
        """The same content, independent of this one."""
        return replace(self, entries=list(self.entries), counts=dict(self.counts), kept=set(self.kept))

    def add(self, offset: Offset, pack: bytes, messages: int, hour: int) -> Entry:
        """Adds an entry, as XADD does.

        Raises:
            ValueError: the offset is not after the head.
        """
        if offset <= self.head:
            raise ValueError(f"{offset} is not after {self.head}")
        entry = Entry(offset, pack, messages, hour)
        self.entries.append(entry)
        self.head = offset
        return entry


class MemoryRedis:
    """The server: what it holds, and what befalls it.

    Args:
        now: the server's clock in milliseconds; may stand still and go back.
        max_bytes: size of all packs above which nothing more is taken.
    """

    def __init__(self, now: Callable[[], int], *, max_bytes: int | None = None) -> None:
        self.now = now
        self.max_bytes = max_bytes
        self.life = 0
        """Changes with every restart: connections of another life are broken."""
        self.read_only = False
        self._streams: dict[TopicPartition, Stream] = {}

    def stream(self, topic: str, partition: int) -> Stream:
        """One partition, made when it is not there."""
        return self._streams.setdefault(TopicPartition(topic, partition), Stream())

    def streams(self, topic: str) -> dict[int, Stream]:
        """All partitions of a topic that were ever written."""
        return {partition: stream for (name, partition), stream in sorted(self._streams.items()) if name == topic}

    def snapshot(self) -> dict[TopicPartition, Stream]:
        """A backup."""
        return {key: stream.copy() for key, stream in self._streams.items()}

    def restore(self, backup: dict[TopicPartition, Stream]) -> None:
        """Starts again with what a backup holds; an empty one is a wiped disk."""
        self._streams = {key: stream.copy() for key, stream in backup.items()}
        self.life += 1

    def flush(self) -> None:
        """Loses everything; connections stay."""
        self._streams = {}

    def used_bytes(self) -> int:
        """Size of all packs."""
        return sum(len(entry.pack) for stream in self._streams.values() for entry in stream.entries)

    def check_room(self, size: int) -> None:
        """Raises what Redis answers to a write that it can't take."""
        if self.read_only:
            raise LogDownError("READONLY")
        if self.max_bytes is not None and self.used_bytes() + size > self.max_bytes:
            raise LogFullError("the log is full")


async def _on(_point: str) -> None:
    return


class MemoryLog(StreamLog):
    """One process's client. Its appends go through one connection, which is reconciled with `floors` when it is new.

    Args:
        clock: the process's own clock, in seconds.
    """

    def __init__(
        self, server: MemoryRedis, *, floors: Watermarks | None = None, pause: Pause = _on, clock: Callable[[], float] = lambda: 0.0
    ) -> None:
        self._server = server
        self._clock = clock
        self._floors = floors
        self._pause = pause
        self._connected: int | None = None

    @property
    def server(self) -> MemoryRedis:
        """The server."""
        return self._server

    async def used_bytes(self) -> int:
        """Size of everything the server holds."""
        return self._server.used_bytes()

    @override
    async def append(self, topic: str, appends: Sequence[Append]) -> Sequence[Exception | None]:
        if self._connected is None:
            life = self._server.life
            if self._floors:
                await reconcile(self, await self._floors(), now=self._clock())
            self._connected = life
        try:
            verdicts: list[Exception | None] = []
            for item in appends:
                await self._pause(f"append to {item.partition}")
                if self._connected != self._server.life:
                    raise ConnectionResetError("the log was started again")  # noqa: TRY301 (one way out for all that breaks)
                verdicts.append(self._append(topic, item))
            await self._pause("append done")
            if any(isinstance(verdict, OutOfTurnError) for verdict in verdicts):
                self._connected = None
        except BaseException:
            self._connected = None
            raise
        return verdicts

    def _append(self, topic: str, item: Append) -> Exception | None:
        try:
            self._server.check_room(sum(len(pack) for pack, _ in item.packs))
        except (LogDownError, LogFullError) as error:
            return error
        stream = self._server.stream(topic, item.partition)
        last = Count(item.turn.writer, APPENDS, 0)
        if stream.counts.get(last, 0) != item.turn.after:
            return OutOfTurnError(stream.counts.get(last, 0))
        for pack, messages in item.packs:
            now = Offset(self._server.now(), 0)
            entry = stream.add(now if now > stream.head else Offset(stream.head.ms, stream.head.seq + 1), pack, messages, item.hour)
            stream.kept.add(entry.offset)
        stream.counts[last] = item.turn.number
        stream.counts |= {Count(item.turn.writer, name, item.hour): count for name, count in item.counters.items() if count}
        return None

    @override
    async def read_several(self, topic: str, after: Mapping[int, Offset], *, limit: int, block_ms: int) -> Mapping[int, Sequence[Entry]]:
        await self._pause(f"read {topic} {' '.join(map(str, after))}")
        return self._later(topic, after, limit)

    @override
    async def read_counted(self, topic: str, after: Mapping[int, Offset], *, limit: int) -> Mapping[int, tuple[Sequence[Entry], Counters]]:
        await self._pause(f"read {topic} {' '.join(map(str, after))}")
        later = self._later(topic, after, limit)
        return {partition: (entries, self._counters(topic, partition)) for partition, entries in later.items()}

    def _later(self, topic: str, after: Mapping[int, Offset], limit: int) -> Mapping[int, Sequence[Entry]]:
        later = {
            partition: [entry for entry in self._server.stream(topic, partition).entries if entry.offset > offset][:limit]
            for partition, offset in after.items()
        }
        return {partition: entries for partition, entries in later.items() if entries}

    @override
    async def heads(self, topic: str, partitions: Collection[int]) -> Mapping[int, Offset]:
        heads: dict[int, Offset] = {}
        for partition in partitions:
            await self._pause(f"head {topic} {partition}")
            heads[partition] = self._server.stream(topic, partition).head
        return heads

    @override
    async def publish(self, topic: str, partition: int, *, head: Offset, packs: Sequence[tuple[int, bytes, int]]) -> bool:
        await self._pause(f"publish {topic} {partition} {packs[0][0]}..{packs[-1][0]} after {head.ms}")
        self._server.check_room(sum(len(pack) for _, pack, _ in packs))
        stream = self._server.stream(topic, partition)
        at_head = stream.head == head
        if at_head:
            if packs[0][0] != head.ms + 1:
                stream.trimmed = Offset(packs[0][0] - 1, 0)
            for offset, pack, messages in packs:
                stream.add(Offset(offset, 0), pack, messages, 0)
        await self._pause("publish done")
        return at_head

    @override
    async def raise_head(self, topic: str, partition: int, offset: Offset) -> None:
        await self._pause(f"raise {topic} {partition} to {offset}")
        stream = self._server.stream(topic, partition)
        stream.head = max(stream.head, offset)
        await self._pause("raise done")

    @override
    async def trim(self, topic: str, partition: int, through: Offset) -> None:
        await self._pause(f"trim {topic} {partition} through {through}")
        stream = self._server.stream(topic, partition)
        stream.entries = [entry for entry in stream.entries if entry.offset > through]
        stream.trimmed = max(stream.trimmed, through)
        await self._pause("trim done")

    @override
    async def trimmed(self, topic: str, partition: int) -> Offset:
        await self._pause(f"trimmed {topic} {partition}")
        return self._server.stream(topic, partition).trimmed

    @override
    async def counters(self, topic: str, partition: int) -> Counters:
        await self._pause(f"counters {topic} {partition}")
        return self._counters(topic, partition)

    def _counters(self, topic: str, partition: int) -> Counters:
        stream = self._server.stream(topic, partition)
        return Counters(dict(stream.counts))

    @override
    async def backlog(self, topic: str, partition: int, after: Offset) -> Backlog:
        await self._pause(f"backlog {topic} {partition}")
        stream = self._server.stream(topic, partition)
        pending: Counter[int] = Counter()
        for entry in stream.entries:
            if entry.offset > after:
                pending[entry.hour] += entry.messages
        return Backlog(self._counters(topic, partition), dict(pending), stream.trimmed)

    async def forget_counters(self, topic: str, partition: int, counters: Sequence[Count]) -> None:
        """Drops counters."""
        await self._pause(f"forget counters {topic} {partition}")
        for counter in counters:
            self._server.stream(topic, partition).counts.pop(counter, None)

    async def newest(self, topic: str, partition: int) -> Offset:
        """The last entry that is there."""
        await self._pause(f"newest {topic} {partition}")
        entries = self._server.stream(topic, partition).entries
        return entries[-1].offset if entries else START

    async def size_bytes(self, topic: str, partition: int) -> int:
        """Size of one partition's packs."""
        await self._pause(f"size {topic} {partition}")
        return sum(len(entry.pack) for entry in self._server.stream(topic, partition).entries)
