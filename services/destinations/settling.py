"""Decides what the result of an attempt does to its delivery: pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, NamedTuple

from services.destinations.clearance import UNKNOWN, Cleared
from services.destinations.kind import Destination, Outcome, Result
from services.destinations.queue import Settled
from services.destinations.repository import DEAD, DELIVERED, EXPIRED, PENDING, WITHHELD
from services.destinations.rules import delay

_FINAL: Final = {Outcome.DELIVERED: DELIVERED, Outcome.REJECTED: DEAD, Outcome.EXPIRED: EXPIRED, Outcome.WITHHELD: WITHHELD}


class PutOff(NamedTuple):
    """An attempt that was not made, since something of the mesh that it needs is down, or its turn did not come."""

    detail: str
    pause: timedelta = timedelta(seconds=5)
    """How long it waits for the next one."""


@dataclass(frozen=True, slots=True)
class Settlement:
    """The new state of a delivery."""

    state: str
    detail: str
    pause: timedelta = timedelta(0)
    """How long it waits for its next attempt."""
    uses_attempt: bool = True


def settled(destination: Destination[Any], cleared: Cleared, result: Result | PutOff, now: datetime) -> Settled:
    """Returns what becomes of a delivery after an attempt."""
    claimed = cleared.claimed
    if isinstance(result, PutOff):
        found = Settlement(PENDING, result.detail, result.pause, uses_attempt=False)
    elif result.outcome is Outcome.UNAUTHORIZED:
        found = Settlement(PENDING, result.detail, uses_attempt=False)
    elif result.outcome in _FINAL:
        found = Settlement(_FINAL[result.outcome], result.detail)
    else:
        found = _failed(destination, cleared, result, now)
    return Settled(
        claimed.id,
        found.state,
        claimed.attempts if found.uses_attempt else claimed.attempts - 1,
        now + found.pause,
        found.detail,
        claimed.wanted.order_by,
        was_attempted=isinstance(result, Result),
    )


def _failed(destination: Destination[Any], cleared: Cleared, result: Result, now: datetime) -> Settlement:
    claimed, window = cleared.claimed, destination.window
    if result.is_ambiguous and not destination.is_repeatable(claimed.wanted):
        return Settlement(DEAD, f"{result.detail}: {UNKNOWN}")
    pause = delay(claimed.attempts, result.retry_after)
    if pause is None:
        return Settlement(DEAD, f"{result.detail}, at each of {claimed.attempts} attempts")
    if window is not None and now + pause > claimed.wanted.at + window:
        return Settlement(EXPIRED, f"{result.detail}, until it was older than the destination accepts")
    return Settlement(PENDING, result.detail, pause)
