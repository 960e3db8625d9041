"""What really happened in a run: what was sent, what was ever in the log, and what a restore provably threw away."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeAlias

from typing_extensions import override

from kit.database.transactions import Sessions
from kit.log.consume import dead_letters
from kit.log.intake.account import Account, Keep, Share
from kit.log.streams import Append, Entry, Offset
from services.ingestion.messages import RAW_TOPIC, TOPIC
from tests.simulation.inline_sqlite import Disk
from tests.simulation.memory_log import MemoryLog, MemoryRedis, Pause, Stream

Place: TypeAlias = tuple[int, Offset]
"""Partition and position of an entry in the raw log."""
Appended: TypeAlias = tuple[str, int, int]
"""Writer, partition and number of an append."""


class Truth:
    """Sees everything, touches nothing."""

    def __init__(self, redis: MemoryRedis, disk: Disk, reader_disk: Disk, partitions: int) -> None:
        self.redis = redis
        self.disk = disk
        self.reader_disk = reader_disk
        self.partitions = partitions
        self.sent: dict[str, set[str]] = defaultdict(set)
        """Contents under which each event was ever sent."""
        self.answered: set[str] = set()
        """Events whose client was told that they are durable."""
        self.stopped: set[int] = set()
        """Partitions whose relay said that the database is behind."""
        self.looked: set[int] = set()
        """Partitions at which a relay has looked since all is calm."""
        self.raw: dict[Place, Entry] = {}
        """Every entry that ever was in the raw log."""
        self.log_lost: set[Place] = set()
        """Entries of the raw log that a restore threw away."""
        self.unread_lost: set[Place] = set()
        """Entries of the raw log that were trimmed, and that a restored database has to read again."""
        self.appended: list[tuple[Place, Entry, Appended]] = []
        """Every entry that ever was in the raw log, with the append that brought it; places are given again."""
        self.known: set[Appended] = set()
        """Appends that their writer knows to have taken place."""
        self.written: set[Appended] = set()
        """Those of them that it has written down in the database for certain."""
        self.log_restores = 0
        self.database_restores = 0
        self.violations: list[str] = []
        """Which promises were broken."""

    def collect(self) -> None:
        """Notes what is in the raw log. Called whenever something came."""
        for partition, stream in self.redis.streams(RAW_TOPIC).items():
            for entry in stream.entries:
                place = (partition, entry.offset)
                if self.raw.get(place) is not entry:
                    # Positions of entries that were lost before anybody read them are given again.
                    self.raw[place] = entry
                    self.log_lost.discard(place)
                    self.unread_lost.discard(place)

    def log_restored(self, backup: Mapping[tuple[str, int], Stream]) -> int:
        """Notes what the log loses by going back to a backup; says how many entries."""
        kept: set[Place] = set()
        for (topic, partition), stream in backup.items():
            if topic == RAW_TOPIC:
                kept |= {(partition, position) for position in stream.kept}
                kept |= {(partition, entry.offset) for entry in stream.entries}
                kept |= {place for place in self.raw if place[0] == partition and place[1] <= stream.trimmed}
        lost = self.raw.keys() - kept
        self.log_lost |= lost
        self.log_restores += 1
        return len(lost)

    def database_restored(self) -> int:
        """Notes what the restored database has to read again and can't; says how many entries."""
        self.database_restores += 1
        for partition in range(self.partitions):
            self.trimmed(partition)
        return len(self.unread_lost)

    def trimmed(self, partition: int) -> None:
        """Notes what is gone from the raw log before the database of today has read it."""
        position, trimmed = self.read_through()[partition], self.redis.stream(RAW_TOPIC, partition).trimmed
        unread = {place for place in self.raw if place[0] == partition and position < place[1] <= trimmed} - self.log_lost
        if unread and not self.database_restores:
            self.violations.append(f"{unread} were trimmed away before they were read")
        self.unread_lost |= unread

    def read_through(self) -> dict[int, Offset]:
        """How far the database of today has read the raw log."""
        positions = dict.fromkeys(range(self.partitions), Offset(0, 0))
        for partition, position in self.disk.ask("SELECT partition, position FROM stream_offsets WHERE topic = ?", RAW_TOPIC):
            positions[partition] = Offset.parse(position)
        return positions

    def drained(self) -> bool:
        """All that lies in the log is read, published and read again downstream."""
        if len(self.looked) < self.partitions or self.disk.ask("SELECT 1 FROM dead_letters WHERE state = ?", dead_letters.RETRYING):
            return False
        return not (self.unread() or self.unpublished() or self.unseen())

    def unread(self) -> bool:
        """There is work for workers."""
        ends = {partition: stream.entries[-1].offset for partition, stream in self.redis.streams(RAW_TOPIC).items() if stream.entries}
        return bool(ends) and any(ends.get(partition, position) > position for partition, position in self.read_through().items())

    def unpublished(self) -> bool:
        """There is work for relays."""
        given = self.disk.ask("SELECT partition, position FROM outbox_heads WHERE topic = ?", TOPIC)
        return any(partition not in self.stopped and self.redis.stream(TOPIC, partition).head.ms != head for partition, head in given)

    def unseen(self) -> bool:
        """There is work for readers."""
        seen = dict(self.reader_disk.ask("SELECT partition, position FROM stream_offsets WHERE topic = ?", TOPIC))
        streams = self.redis.streams(TOPIC).items()
        return any(p not in self.stopped and Offset.parse(seen.get(p, "0-0")) < stream.head for p, stream in streams)


class WatchedLog(MemoryLog):
    """Tells the truth what comes and goes."""

    def __init__(self, truth: Truth, pause: Pause, **options: Any) -> None:
        super().__init__(truth.redis, pause=pause, **options)
        self._truth = truth

    @override
    async def trim(self, topic: str, partition: int, through: Offset) -> None:
        await super().trim(topic, partition, through)
        self._truth.trimmed(partition)

    @override
    def _append(self, topic: str, item: Append) -> Exception | None:
        stream = self.server.stream(topic, item.partition)
        before = stream.entries[-1] if stream.entries else None
        verdict = super()._append(topic, item)
        self._truth.collect()
        new = stream.entries[stream.entries.index(before) + 1 :] if before else stream.entries
        if verdict is None:
            append = (item.turn.writer, item.partition, item.turn.number)
            self._truth.appended += [((item.partition, entry.offset), entry, append) for entry in new]
        return verdict


class WatchedAccount(Account):
    """Tells the truth what it knows, and what it has written down."""

    def __init__(self, truth: Truth, writer: str, sessions: Sessions, topic: str, keep: Keep) -> None:
        super().__init__(sessions, topic, keep)
        self.writer = writer
        self._truth = truth

    @override
    def _count(self, share: Share) -> None:
        super()._count(share)
        self._truth.known.add((self.writer, share.partition, share.number))

    @override
    async def write(self) -> None:
        known = {append for append in self._truth.known if append[0] == self.writer}
        await super().write()
        self._truth.written |= known
