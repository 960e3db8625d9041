"""Isolates the messages of a batch that can't be applied, so that all others are; too many failures halt the consumer instead.

A defect fails on message after message. Without a limit, one bad deploy would turn a whole topic into dead letters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog
from google.protobuf.message import DecodeError
from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.consume import dead_letters
from kit.log.consume.handler import Failure, Outcome, Poison, RawLogHandler
from kit.log.runner import PartitionHalted
from kit.log.streams import Delivery
from kit.outages import is_outage

_log = structlog.get_logger(__name__)

_UNEXPECTED: Final = "unexpected "
_UNREADABLE: Final = "not a "


class DeadLetterLimitReached(PartitionHalted):
    """More messages fail than may become dead letters: a defect, most likely. None of the batch is set aside."""


@dataclass(frozen=True, slots=True)
class DeadLetterLimit:
    """How many messages of a topic may fail and become dead letters within a window of time.

    The database is asked, so that a restart does not start counting anew. Partitions that fail in the same moment don't see each
    other's dead letters: together they may exceed the limit once.
    """

    messages: int
    window: timedelta

    async def allowance(self, session: AsyncSession, topic: str) -> int:
        """Returns how many more may become dead letters now."""
        since = datetime.now(UTC) - self.window
        return max(0, self.messages - await dead_letters.count_since(session, topic, since, (_UNEXPECTED, _UNREADABLE)))


class Isolation:
    """Applies messages, halving those that fail until the ones to set aside stand alone.

    Args:
        handler: applies messages.
        allowance: how many messages may fail; None for any number.
    """

    def __init__(self, handler: RawLogHandler, allowance: int | None) -> None:
        self._handler = handler
        self._allowance = allowance
        self.failures = 0
        """Messages that failed."""

    async def apply(self, session: AsyncSession, deliveries: Sequence[Delivery], *, again: bool = False) -> Sequence[Outcome]:
        """Applies messages, and returns the outcome of each.

        A message that fails alone is tried once more: another partition may have stored the same id meanwhile, and is seen by now.

        Raises:
            DeadLetterLimitReached: more messages fail than may.
            Exception: an outage.
        """
        try:
            async with session.begin_nested():
                return await self._handler(session, deliveries)
        except Exception as error:
            if is_outage(error):
                raise
            if isinstance(error, Poison) and error.messages:
                return await self._apply_others(session, deliveries, error)
            if len(deliveries) == 1 and (again or isinstance(error, Poison | DecodeError)):
                return [self._refused(deliveries[0], error)]
        if len(deliveries) == 1:
            return await self.apply(session, deliveries, again=True)
        half = len(deliveries) // 2
        return [*await self.apply(session, deliveries[:half]), *await self.apply(session, deliveries[half:])]

    async def _apply_others(self, session: AsyncSession, deliveries: Sequence[Delivery], error: Poison) -> Sequence[Outcome]:
        refused = {(each.offset, each.ordinal) for each in error.messages}
        others = [each for each in deliveries if (each.offset, each.ordinal) not in refused]
        applied = iter(await self.apply(session, others) if others else ())
        return [error if (each.offset, each.ordinal) in refused else next(applied) for each in deliveries]

    def _refused(self, delivery: Delivery, error: Exception) -> Poison:
        """Why a message becomes a dead letter; an unexpected error's own text may hold personal data and goes no further."""
        if isinstance(error, Poison):
            return error
        name = type(error).__name__
        self.failures += 1
        _log.error("message failed", error=name, type=delivery.record.type, exc_info=(type(error), None, error.__traceback__))
        if self._allowance is not None and self.failures > self._allowance:
            message = f"too many messages fail to be set aside, this one by {name}"
            raise DeadLetterLimitReached(message)
        return Failure(f"{_UNREADABLE}{delivery.record.type}" if isinstance(error, DecodeError) else f"{_UNEXPECTED}{name}")
