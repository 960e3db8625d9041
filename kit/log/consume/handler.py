"""What a consumer and the handler of its messages agree on."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TypeAlias

from sqlalchemy.ext.asyncio import AsyncSession

from kit.log.streams import Delivery


class Poison(Exception):
    """A message that the handler refuses for good: it becomes a dead letter, and the other messages are applied.

    A handler refuses a message for what its sender chose, such as an id that is taken; it never counts towards the
    dead-letter limit, so that no sender can halt a consumer.

    Args:
        reason: for the operator; holds nothing personal.
        messages: the messages refused; not given, the consumer finds out by halving the batch.
    """

    def __init__(self, reason: str, messages: Sequence[Delivery] = ()) -> None:
        super().__init__(reason)
        self.messages = messages


class Failure(Poison):
    """A message that a handler failed on unexpectedly, as on a defect or on another schema. Counts towards the dead-letter limit."""


Handler: TypeAlias = Callable[[AsyncSession, Sequence[Delivery]], Awaitable[None]]
"""Writes the effect of a topic's messages in the given transaction.

It may raise `Poison` for messages it refuses; nothing it wrote by then is kept, and it is called again with the others.
"""

Outcome: TypeAlias = str | Poison
"""What became of a message: a word for the books, or why it is a dead letter."""

RawLogHandler: TypeAlias = Callable[[AsyncSession, Sequence[Delivery]], Awaitable[Sequence[Outcome]]]
"""Writes the effect of messages of the raw log in the given transaction; returns the outcome of each, in order."""
