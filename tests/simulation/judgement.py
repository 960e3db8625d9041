"""Which promises a run broke, seen from what really happened."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, TypeAlias

from pmp.ingestion.v1 import event_pb2 as pb
from pmp.log.v1 import log_pb2

from kit.database.transactions import Sessions
from kit.log import books
from kit.log.streams import Entry, Offset
from services.ingestion.messages import RAW_TOPIC, TOPIC
from tests.simulation.memory_log import MemoryLog
from tests.simulation.truth import Appended, EntryId, Truth

# A dead letter that was given another try is written down again.
_LAST: Final = "FROM event_processing_log WHERE id IN (SELECT MAX(id) FROM event_processing_log GROUP BY log_position)"

Settled: TypeAlias = Mapping[tuple[int, Offset, int], int]
"""How often each delivery (partition, offset, ordinal in the entry) was settled."""


class Judge:
    """Looks at the databases when all is still."""

    def __init__(self, truth: Truth, sessions: Sessions) -> None:
        self._truth = truth
        self._sessions = sessions
        self._disk = truth.disk

    async def judge(self) -> None:
        """Adds what it finds to the violations."""
        stored = dict(self._disk.ask("SELECT id, source FROM events"))
        settled = Counter[tuple[int, Offset, int]]()
        for (log_position,) in self._disk.ask(f"SELECT log_position {_LAST}"):
            partition, offset, ordinal = log_position.split("/")
            settled[int(partition), Offset.parse(offset), int(ordinal)] += 1
        self._judge_deliveries(stored, settled)
        self._judge_dead_letters(stored, settled)
        if not (self._truth.log_restores and self._truth.database_restores):
            # With both restored, offsets that the reader knows are assigned again, and nothing can detect it.
            self._judge_topic()
        if not (self._truth.log_restores and self._truth.database_restores):
            await self._judge_books(settled)

    def _judge_deliveries(self, stored: Mapping[str, str], settled: Settled) -> None:
        for event_id, content in stored.items():
            self._check(content in self._truth.sent.get(event_id, ()), f"{event_id} is stored with a content that was never sent")
            self._check(not event_id.endswith("suppressed"), f"{event_id} is stored against its person's will")
        safe: set[str] = set()
        for (partition, offset), entry in self._truth.raw.items():
            lost = (partition, offset) in self._truth.log_lost | self._truth.unread_lost
            for ordinal, received in enumerate(_events(entry)):
                times = settled.get((partition, offset, ordinal), 0)
                if not lost:
                    safe.add(received.event.id)
                    self._check(
                        times == 1 or bool(self._truth.database_restores and times),
                        f"{received.event.id} at {partition}/{offset} was settled {times} times",
                    )
                self._check(times <= 1, f"{received.event.id} at {partition}/{offset} was settled {times} times")
                if times and not received.event.id.endswith("suppressed"):
                    self._check(received.event.id in stored, f"{received.event.id} was settled and is not stored")
        self._check(
            settled.keys() <= {(*entry_id, n) for entry_id, entry in self._truth.raw.items() for n in range(entry.messages)},
            "settled what was never sent",
        )
        for event_id in self._truth.answered - stored.keys():
            proven = event_id.endswith("suppressed") or event_id not in safe
            self._check(proven, f"{event_id} was answered and is lost")

    def _judge_dead_letters(self, stored: Mapping[str, str], settled: Settled) -> None:
        expected = {
            (partition, str(offset), ordinal)
            for (partition, offset), entry in self._truth.raw.items()
            for ordinal, received in enumerate(_events(entry))
            if (partition, offset, ordinal) in settled
            if stored.get(received.event.id, received.event.source) != received.event.source
        }
        letters = set(self._disk.ask("SELECT partition, position, ordinal FROM dead_letters"))
        self._check(letters == expected, f"dead letters {letters}, expected {expected}")

    def _judge_topic(self) -> None:
        table = self._disk.ask("SELECT topic_partition, topic_position, topic_ordinal, id FROM events ORDER BY 1, 2, 3")
        seen = self._truth.reader_disk.ask("SELECT partition, position, ordinal, id FROM projected ORDER BY 1, 2, 3")
        for partition in range(self._truth.partitions):
            if partition in self._truth.stopped:
                continue
            mine = [row for row in table if row[0] == partition]
            theirs = [row for row in seen if row[0] == partition]
            self._check(mine == theirs, f"the reader of partition {partition} saw {theirs}, the table holds {mine}")
        self._check(not self._truth.reader_disk.ask("SELECT 1 FROM dead_letters"), "the reader set a message aside")
        if not self._truth.database_restores:
            for partition, offset in self._disk.ask("SELECT partition, position FROM outbox_heads WHERE topic = ?", TOPIC):
                given = [
                    row
                    for (row,) in self._disk.ask(
                        "SELECT DISTINCT topic_position FROM events WHERE topic_partition = ? ORDER BY 1", partition
                    )
                ]
                self._check(given == list(range(1, offset + 1)), f"offsets {given} of partition {partition} are not 1..{offset}")

    async def _judge_books(self, settled: Settled) -> None:
        total = books.Account()
        log = MemoryLog(self._truth.redis)
        for account in (await books.accounts(self._sessions, log, RAW_TOPIC, self._truth.partitions)).values():
            total.add(account)
        outcomes = dict(self._disk.ask(f"SELECT outcome, COUNT(*) {_LAST} GROUP BY 1"))
        for outcome in (books.STORED, books.DUPLICATE, books.SUPPRESSED, books.DEAD_LETTERED):
            self._check(getattr(total, outcome) == outcomes.get(outcome, 0), f"the books say {total}, the processing log {outcomes}")
        self._check(total.pending == 0, f"{total.pending} messages are pending")
        unsettled = [(append, entry) for entry_id, entry, append in self._truth.appended if not self._is_settled(entry_id, entry, settled)]
        lost = sum(entry.messages for _, entry in unsettled)
        certain = sum(entry.messages for append, entry in unsettled if append in self._truth.written)
        # What a writer takes as failed, and a worker that had read it before a loss has settled nevertheless.
        disowned = sum(
            entry.messages
            for entry_id, entry, append in self._truth.appended
            if append not in self._truth.known and self._is_settled(entry_id, entry, settled)
        )
        missing = total.missing + total.recovered
        if self._truth.database_restores:
            # The log has lost nothing, and what was recorded may be lost.
            self._check(missing == lost, f"{total}: {lost} provably lost")
        else:
            self._check(certain - disowned <= missing <= lost, f"{total}: {certain} to {lost} provably lost, {disowned} disowned")
            self._judge_names([append for append, _ in unsettled], settled)
        if not self._truth.log_restores and not self._truth.database_restores:
            self._check(lost == 0, f"{lost} messages were lost")

    def _judge_names(self, unsettled: Sequence[Appended], settled: Settled) -> None:
        """What was lost and never sent again is named, and nothing else."""
        known = {event_id for (event_id,) in self._disk.ask("SELECT event_id FROM event_processing_log")}
        lost_ids = {append: set[str]() for append in unsettled}
        for entry_id, entry, append in self._truth.appended:
            if append in lost_ids and not self._is_settled(entry_id, entry, settled):
                lost_ids[append] |= {received.event.id for received in _events(entry)} - known
        named = {
            event_id
            for (events,) in self._disk.ask("SELECT events FROM receipts WHERE lost")
            for line in events.decode().splitlines()
            for event_id in line.split(" ")[1:]
        }
        certain = {event_id for append, ids in lost_ids.items() if append in self._truth.written for event_id in ids}
        possible = {event_id for ids in lost_ids.values() for event_id in ids}
        self._check(certain <= named <= possible, f"{named} are named as lost, {certain} to {possible} are")

    def _is_settled(self, entry_id: EntryId, entry: Entry, settled: Settled) -> bool:
        return self._truth.raw[entry_id] is entry and (*entry_id, 0) in settled

    def _check(self, holds: bool, otherwise: str) -> None:
        if not holds:
            self._truth.violations.append(otherwise)


def _events(entry: Entry) -> list[pb.ReceivedEvent]:
    return [pb.ReceivedEvent.FromString(record.payload) for record in log_pb2.Pack.FromString(entry.pack).records]
