"""Reads the entries of a stream in order, from the publisher's history where the stream was trimmed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from itertools import pairwise
from typing import Final, TypeAlias

import structlog
from pmp.log.v1 import log_pb2 as pb

from kit.log.runner import PartitionHalted
from kit.log.streams import START, Delivery, Entry, Offset, StreamLog

_log = structlog.get_logger(__name__)

BATCH_MESSAGES: Final = 1000
"""Most messages of one transaction."""
READ_ENTRIES: Final = 128
"""Most entries of one read. An entry may be 512 KiB: what one read returns has to fit into memory."""
_BATCH_BYTES: Final = 4_194_304

History: TypeAlias = Callable[[int, int], Awaitable[Sequence[Entry]]]
"""The publisher's history: entries of a partition after an offset, oldest first; empty at its end."""


class GapError(PartitionHalted):
    """Messages of a topic are missing that were not trimmed: the consumer halts rather than skip them."""


class Reader:
    """Reads one topic.

    Args:
        history: where to read on when the stream was trimmed after the offset (topics); None for the raw log.
    """

    def __init__(self, log: StreamLog, topic: str, history: History | None) -> None:
        self._log = log
        self._topic = topic
        self._history = history

    async def check(self, partition: int, offset: Offset) -> None:
        """Logs an error when entries after an offset are lost, as after a restore. The books stay out of balance by them."""
        if self._history is None and offset != START and await self._log.trimmed(self._topic, partition) > offset:
            _log.error("messages lost: the database is older than the log keeps", topic=self._topic, partition=partition)

    async def read(self, partition: int, after: Offset, most: int, block_ms: int) -> Sequence[Entry]:
        """Returns entries after an offset, waiting up to `block_ms` for the first: about `most` messages, but at least one entry.

        Raises:
            GapError: messages are missing.
        """
        entries = await self._log.read(self._topic, partition, after, limit=READ_ENTRIES, block_ms=block_ms)
        if self._history is None:
            return _bounded(entries, most)
        if entries and entries[0].offset.ms != after.ms + 1:
            trimmed = await self._log.trimmed(self._topic, partition)
            if trimmed.ms < entries[0].offset.ms - 1:
                message = f"position {after.ms + 1} is missing, the next is {entries[0].offset.ms}"
                raise GapError(message)
            missed = [entry for entry in await self._history(partition, after.ms) if entry.offset < entries[0].offset]
            if missed:
                return _bounded(missed, most)
        return _bounded(_unbroken(entries), most)


def deliveries_of(topic: str, partition: int, entries: Sequence[Entry]) -> list[Delivery]:
    """Returns the messages of entries, in order."""
    return [
        Delivery(topic, partition, entry.offset, ordinal, entry.hour, record)
        for entry in entries
        for ordinal, record in enumerate(pb.Pack.FromString(entry.pack).records)
    ]


def _unbroken(entries: Sequence[Entry]) -> Sequence[Entry]:
    """The entries before the first gap in their offsets: a relay that found its outbox pruned leaves one within a stream."""
    gaps = (index for index, (one, next_one) in enumerate(pairwise(entries), 1) if next_one.offset.ms != one.offset.ms + 1)
    return entries[: next(gaps, len(entries))]


def _bounded(entries: Sequence[Entry], most: int) -> Sequence[Entry]:
    """The first entries that make one transaction of so many messages; at least one."""
    messages = size = 0
    for index, entry in enumerate(entries):
        messages += entry.messages
        size += len(entry.pack)
        if index and (messages > most or size > _BATCH_BYTES):
            return entries[:index]
    return entries
