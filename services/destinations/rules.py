"""Pure decisions: when to try again, when a destination is left alone for a while, and what consent allows."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from google.protobuf.message import Message
from pmp.ingestion.v1.event_pb2 import EventStored

from kit.people.privacy import Choice, Consent, Purpose

_DELAYS: Final = tuple(timedelta(seconds=each) for each in (5, 30, 120, 600, 1800, 3600, 7200, 14400, 28800, 43200, 86400, 86400))
MOST_ATTEMPTS: Final = len(_DELAYS) + 1
"""The last one is some 76 hours after the first, longer than a weekend."""
LONGEST_WAIT: Final = timedelta(hours=24)
"""The longest time that a destination may ask to wait."""

_WINDOW: Final = timedelta(seconds=60)
_LEAST_ATTEMPTS: Final = 10
_MOST_IN_A_ROW: Final = 5
_FIRST_PAUSE: Final = timedelta(seconds=30)
_LONGEST_PAUSE: Final = timedelta(minutes=15)
_ASKED_AT_INTAKE: Final[Purpose] = "analytics_tracking"


def delay(attempts: int, retry_after: timedelta | None, *, chance: float | None = None) -> timedelta | None:
    """Returns the time until the next attempt; None if there were enough.

    Args:
        attempts: how many were made.
        retry_after: how long the destination asks to wait at least.
        chance: from 0 to 1, by default random: deliveries that failed together are spread over a time as long as the delay.
    """
    if attempts > len(_DELAYS):
        return None
    spread = _DELAYS[attempts - 1] * (0.5 + (random.random() if chance is None else chance))  # noqa: S311 (spreads load)
    return max(spread, min(retry_after or timedelta(0), LONGEST_WAIT))


@dataclass(frozen=True, slots=True)
class Breaker:
    """The circuit breaker of a destination: while it is open nothing is sent, and no delivery uses up an attempt.

    It opens after 5 failures in a row, or when at least half of 10 or more attempts within a minute failed: for 30 seconds, which
    double up to 15 minutes. Then one delivery is tried, and its result closes the breaker or opens it again.
    """

    failures: int = 0
    opened: int = 0
    open_until: datetime | None = None
    window_began_at: datetime | None = None
    window_attempts: int = 0
    window_failures: int = 0

    @property
    def is_probing(self) -> bool:
        """Whether the next attempt decides if it closes."""
        return self.opened > 0

    def after(self, successes: Sequence[bool], now: datetime) -> Breaker:
        """Returns the breaker after attempts that succeeded or failed."""
        breaker = self
        for succeeded in successes:
            breaker = breaker._after(now, succeeded=succeeded)
        return breaker

    def waiting(self, until: datetime | None) -> Breaker:
        """Returns the breaker when the destination asked to be left alone until then."""
        if until is None or (self.open_until is not None and self.open_until >= until):
            return self
        return replace(self, open_until=until)

    def _after(self, now: datetime, *, succeeded: bool) -> Breaker:
        if self.window_began_at is None or now - self.window_began_at > _WINDOW:
            counted = replace(self, window_began_at=now, window_attempts=1, window_failures=int(not succeeded))
        else:
            counted = replace(self, window_attempts=self.window_attempts + 1, window_failures=self.window_failures + (not succeeded))
        if succeeded:
            return replace(counted, failures=0, opened=0)
        failing = replace(counted, failures=counted.failures + 1)
        if self.open_until is not None and self.open_until > now:
            return failing  # was sent before it opened
        halved = failing.window_attempts >= _LEAST_ATTEMPTS and 2 * failing.window_failures >= failing.window_attempts
        if not (failing.is_probing or failing.failures >= _MOST_IN_A_ROW or halved):
            return failing
        pause = min(_LONGEST_PAUSE, _FIRST_PAUSE * 2 ** min(failing.opened, 10))
        return replace(
            failing, opened=failing.opened + 1, open_until=now + pause, window_began_at=None, window_attempts=0, window_failures=0
        )


def in_force(message: Message, consent: Consent) -> Consent:
    """Returns a person's consent for a message: Global Privacy Control in an event denies sharing with third parties."""
    if not isinstance(message, EventStored) or not message.event.global_privacy_control:
        return consent
    return replace(consent, third_party_sharing=Choice(granted=False, decided_at=message.event.timestamp.ToDatetime(UTC)))


def allows(consent: Consent, purpose: Purpose | None) -> bool:
    """Whether consent allows to send something for a purpose. Unknown is no, unless it was asked for at the intake already."""
    if purpose is None:
        return True
    choice: Choice | None = getattr(consent, purpose)
    return purpose == _ASKED_AT_INTAKE if choice is None else choice.granted
