"""The books that the consumer of a raw log keeps, in the transaction of what they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kit.log import books
from kit.log.consume.dead_letters import DeadLetter
from kit.log.consume.handler import Outcome, Poison
from kit.log.streams import Counters, Delivery


class Bookkeeping:
    """Counts the outcomes of messages, and copies the log's counters."""

    def __init__(self, topic: str) -> None:
        self._topic = topic
        self._copied: dict[int, Counters] = {}

    async def record(
        self, session: AsyncSession, counters: Mapping[int, Counters], deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]
    ) -> None:
        """Counts outcomes, and copies the log's counters by partition. The caller holds the offsets of the partitions locked."""
        decided = zip(deliveries, outcomes, strict=True)
        counts = Counter(books.Line(each.partition, each.hour, _word(outcome)) for each, outcome in decided)
        await books.move(session, self._topic, counts)
        await books.copy_counters(session, self._topic, counters, self._copied)

    async def record_retry(self, session: AsyncSession, letter: DeadLetter, outcome: str) -> None:
        """Moves a dead letter whose retry succeeded to its new outcome. The caller holds the partition's offset locked."""
        before, now = (books.Line(letter.partition, letter.hour, word) for word in (books.DEAD_LETTERED, outcome))
        await books.move(session, self._topic, {before: -1, now: 1})

    def committed(self, counters: Mapping[int, Counters]) -> None:
        """These counters are copied."""
        self._copied |= counters

    def forget(self, partition: int) -> None:
        """It is not known which counters are copied."""
        self._copied.pop(partition, None)


def _word(outcome: Outcome) -> str:
    return books.DEAD_LETTERED if isinstance(outcome, Poison) else outcome
