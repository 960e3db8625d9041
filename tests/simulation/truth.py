"""What really happened in a run: what was sent, what was ever in the log, and what a restore provably lost."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import Any, TypeAlias

from typing_extensions import override

from kit.database.transactions import Sessions
from kit.log.consume import dead_letters
from kit.log.intake.account import Account, Keep, Share
from kit.log.streams import Append, Entry, Offset, TopicPartition
from services.ingestion.messages import RAW_TOPIC, TOPIC
from tests.simulation.inline_sqlite import Disk
from tests.simulation.memory_log import MemoryLog, MemoryRedis, Pause, Stream

EntryId: TypeAlias = tuple[int, Offset]
"""Partition and offset of an entry in the raw log."""
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
        """Events that were acknowledged to their client as durable."""
        self.stopped: set[int] = set()
        """Partitions whose relay reported that the topic is ahead of the database."""
        self.looked: set[int] = set()
        """Partitions that a relay has read since the faults ended."""
        self.raw: dict[EntryId, Entry] = {}
        """Every entry that ever was in the raw log."""
        self.log_lost: set[EntryId] = set()
        """Entries of the raw log that a restore lost."""
        self.unread_lost: set[EntryId] = set()
        """Entries of the raw log that were trimmed, and that a restored database has to read again."""
        self.appended: list[tuple[EntryId, Entry, Appended]] = []
        """Every entry that ever was in the raw log, with the append that wrote it; offsets are assigned again."""
        self.known: set[Appended] = set()
        """Appends that their writer knows to have taken effect."""
        self.written: set[Appended] = set()
        """Those of them that it has certainly recorded in the database."""
        self.log_restores = 0
        self.database_restores = 0
        self.violations: list[str] = []
        """Which promises were broken."""

    def collect(self) -> None:
        """Notes what is in the raw log. Called after each append."""
        for partition, stream in self.redis.streams(RAW_TOPIC).items():
            for entry in stream.entries:
                entry_id = (partition, entry.offset)
                if self.raw.get(entry_id) is not entry:
                    # Offsets of entries that were lost before they were read are assigned again.
                    self.raw[entry_id] = entry
                    self.log_lost.discard(entry_id)
                    self.unread_lost.discard(entry_id)

    def log_restored(self, backup: Mapping[TopicPartition, Stream]) -> int:
        """Notes what the log loses when a backup is restored.

        Returns:
            The number of entries lost.
        """
        kept: set[EntryId] = set()
        for (topic, partition), stream in backup.items():
            if topic == RAW_TOPIC:
                kept |= {(partition, offset) for offset in stream.kept}
                kept |= {(partition, entry.offset) for entry in stream.entries}
                kept |= {entry_id for entry_id in self.raw if entry_id[0] == partition and entry_id[1] <= stream.trimmed}
        lost = self.raw.keys() - kept
        self.log_lost |= lost
        self.log_restores += 1
        return len(lost)

    def database_restored(self) -> int:
        """Notes what the restored database has to read again and can't.

        Returns:
            The number of entries.
        """
        self.database_restores += 1
        for partition in range(self.partitions):
            self.trimmed(partition)
        return len(self.unread_lost)

    def trimmed(self, partition: int) -> None:
        """Notes what was trimmed from the raw log before the current database has read it."""
        offset, trimmed = self.read_through()[partition], self.redis.stream(RAW_TOPIC, partition).trimmed
        unread = {entry_id for entry_id in self.raw if entry_id[0] == partition and offset < entry_id[1] <= trimmed} - self.log_lost
        if unread and not self.database_restores:
            self.violations.append(f"{unread} were trimmed before they were read")
        self.unread_lost |= unread

    def read_through(self) -> dict[int, Offset]:
        """The offsets that the current database has committed."""
        offsets = dict.fromkeys(range(self.partitions), Offset(0, 0))
        for partition, offset in self.disk.ask("SELECT partition, position FROM stream_offsets WHERE topic = ?", RAW_TOPIC):
            offsets[partition] = Offset.parse(offset)
        return offsets

    def drained(self) -> bool:
        """All entries of the log are read, published and read again downstream."""
        if len(self.looked) < self.partitions or self.disk.ask("SELECT 1 FROM dead_letters WHERE state = ?", dead_letters.RETRYING):
            return False
        return not (self.unread() or self.unpublished() or self.unseen())

    def unread(self) -> bool:
        """There is work for workers."""
        ends = {partition: stream.entries[-1].offset for partition, stream in self.redis.streams(RAW_TOPIC).items() if stream.entries}
        return bool(ends) and any(ends.get(partition, offset) > offset for partition, offset in self.read_through().items())

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
    """Reports appends and trims to the truth."""

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
    """Reports to the truth what it knows and what it has recorded."""

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
