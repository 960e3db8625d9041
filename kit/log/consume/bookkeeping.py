"""The books that the consumer of a raw log keeps, in the transaction of what they count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from sqlalchemy.ext.asyncio import AsyncSession

from kit.log import books
from kit.log.consume.dead_letters import DeadLetter
from kit.log.consume.handler import Outcome, Poison
from kit.log.streams import Counters, Delivery, StreamLog


class Bookkeeping:
    """Counts the outcomes of messages, and copies the log's counters."""

    def __init__(self, log: StreamLog, topic: str) -> None:
        self._log = log
        self._topic = topic
        self._live: dict[int, Counters] = {}
        self._copied: dict[int, Counters] = {}

    async def read_counters(self, partition: int) -> None:
        """Reads the log's counters, before the transaction that copies them."""
        self._live[partition] = await self._log.counters(self._topic, partition)

    async def record(self, session: AsyncSession, partition: int, deliveries: Sequence[Delivery], outcomes: Sequence[Outcome]) -> None:
        """Counts outcomes, and copies the counters that were read. The caller holds the partition's offset locked."""
        if deliveries:
            counts = Counter((each.hour, _word(outcome)) for each, outcome in zip(deliveries, outcomes, strict=True))
            await books.move(session, self._topic, partition, counts)
        await books.copy_counters(session, self._topic, partition, self._live[partition], self._copied.get(partition))

    async def record_retry(self, session: AsyncSession, letter: DeadLetter, outcome: str) -> None:
        """Moves a dead letter whose retry succeeded to its new outcome. The caller holds the partition's offset locked."""
        counts = {(letter.hour, books.DEAD_LETTERED): -1, (letter.hour, outcome): 1}
        await books.move(session, self._topic, letter.partition, counts)

    def committed(self, partition: int) -> None:
        """The counters that were read are copied."""
        self._copied[partition] = self._live[partition]

    def forget(self, partition: int) -> None:
        """It is not known which counters are copied."""
        self._copied.pop(partition, None)


def _word(outcome: Outcome) -> str:
    return books.DEAD_LETTERED if isinstance(outcome, Poison) else outcome
