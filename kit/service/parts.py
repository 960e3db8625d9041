"""What a role of a service may have beside rpcs and a database: topics, raw logs and subscriptions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from google.protobuf.descriptor import MethodDescriptor

from kit.log import books
from kit.log.consume.handler import Handler, RawLogHandler
from kit.log.intake.account import Account
from kit.log.intake.appender import Appender
from kit.log.publish.outbox import Outbox
from kit.log.publish.relay import Relay
from kit.log.trim import Trimmer


@dataclass(frozen=True, slots=True)
class Subscription:
    """A topic that a service follows."""

    topic: str
    history: MethodDescriptor
    """The publisher's rpc that streams what the topic has trimmed."""
    handler: Handler
    """Writes the effect of its messages."""


@dataclass(frozen=True, slots=True)
class Publication:
    """The topic that a service publishes."""

    outbox: Outbox
    """Takes messages in the transaction of the change."""
    relay: Relay
    """Publishes what was committed."""


@dataclass(frozen=True, slots=True)
class Intake:
    """A raw log that a service appends to."""

    topic: str
    appender: Appender
    account: Account
    """Of what this process appended."""


@dataclass(frozen=True, slots=True)
class RawLog:
    """A raw log that a service processes and keeps books of."""

    topic: str
    handler: RawLogHandler
    """Writes the effect of its messages, and returns the outcome of each for the books."""
    trimmer: Trimmer
    """Trims it after what was processed."""
    with_books: Callable[[Mapping[int, books.Account]], Awaitable[None]]
    """Is given the books, by hour, whenever they are reported."""
