"""The consumers of topics and of raw logs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions
from kit.log.consume.bookkeeping import Bookkeeping
from kit.log.consume.handler import Handler, Outcome, RawLogHandler
from kit.log.consume.isolation import DeadLetterLimit
from kit.log.consume.reader import History, RawLogReader, TopicReader
from kit.log.consume.stream_consumer import AfterCommit, StreamConsumer
from kit.log.streams import Delivery, StreamLog

# A transaction costs more than the few messages in it: those that arrive within this time share one.
_PACE_SECONDS: Final = 0.5
_RAW_LOG_PACE_SECONDS: Final = 0.2
_APPLIED: Final = "applied"


class Consumer(StreamConsumer):
    """Feeds the messages of a topic to its handler.

    Args:
        history: where to read on when the stream was trimmed after the offset.
        limit: halts the consumer when more messages fail; None sets any number of them aside.
        after_commit: called after each commit.
    """

    def __init__(
        self,
        sessions: Sessions,
        log: StreamLog,
        topic: str,
        handler: Handler,
        *,
        history: History | None = None,
        limit: DeadLetterLimit | None = None,
        after_commit: AfterCommit | None = None,
    ) -> None:
        async def apply(session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
            await handler(session, deliveries)
            return [_APPLIED] * len(deliveries)

        reader = TopicReader(log, topic, history)
        super().__init__(sessions, topic, apply, reader, pace=_PACE_SECONDS, books=None, limit=limit, after_commit=after_commit)


class RawLogConsumer(StreamConsumer):
    """Feeds the messages of a raw log to its handler, and keeps the books of their outcomes.

    Args:
        limit: halts the consumer when more messages fail; None sets any number of them aside.
        after_commit: called after each commit.
    """

    def __init__(
        self,
        sessions: Sessions,
        log: StreamLog,
        topic: str,
        handler: RawLogHandler,
        *,
        limit: DeadLetterLimit | None = None,
        after_commit: AfterCommit | None = None,
    ) -> None:
        reader, books = RawLogReader(log, topic), Bookkeeping(topic)
        super().__init__(sessions, topic, handler, reader, pace=_RAW_LOG_PACE_SECONDS, books=books, limit=limit, after_commit=after_commit)
