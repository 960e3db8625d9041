"""The journey of one person, put together from what the tables hold: pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from kit.people.persons import subject_of
from services.journeys.messages import ORDER, order_touchpoint_id
from services.journeys.rules import PURCHASE, RETENTION, STAGES

MOST_SESSIONS: Final = 1000


class Part(NamedTuple):
    """The touchpoints of one stage in one visit."""

    session_id: str | None
    subject: str
    stage: str
    touchpoints: int
    first: datetime
    last: datetime

    @property
    def session(self) -> str:
        """Name of the visit; empty for touchpoints that are part of none."""
        if self.session_id:
            return subject_of(session_id=self.session_id)
        return self.subject if self.subject.startswith("visitor:") else ""


class Purchase(NamedTuple):
    """A paid order."""

    purchase_id: str
    paid_at: datetime


class Visit(NamedTuple):
    """A visit as the person had part in it."""

    session: str
    started_at: datetime
    ended_at: datetime
    touchpoints: int


def stages(parts: Sequence[Part], purchases: Sequence[Purchase]) -> list[tuple[str, datetime]]:
    """The stages and when each was reached, in that order; at the same instant in the order in which people come along them.

    Args:
        parts: all of the journey.
        purchases: its first two orders: whoever buys again is retained.
    """
    reached: dict[str, datetime] = {}
    told = [(part.stage, part.first) for part in parts]
    for stage, at in [*told, *((RETENTION, purchase.paid_at) for purchase in purchases[1:2])]:
        reached[stage] = min(at, reached.get(stage, at))
    return sorted(reached.items(), key=lambda item: (item[1], STAGES.index(item[0])))


def stage_shown(stage: str, origin: str, touchpoint_id: str, purchases: Sequence[Purchase]) -> str:
    """The stage of one touchpoint: an order that is not the person's first is retention."""
    later = origin == ORDER and stage == PURCHASE and purchases and touchpoint_id != order_touchpoint_id(purchases[0].purchase_id)
    return RETENTION if later else stage


def visits(parts: Sequence[Part]) -> list[Visit]:
    """The visits, oldest first; the newest 1000 of more."""
    found: dict[str, Visit] = {}
    for part in parts:
        if not part.session:
            continue
        one = found.get(part.session) or Visit(part.session, part.first, part.last, 0)
        found[part.session] = Visit(
            part.session, min(one.started_at, part.first), max(one.ended_at, part.last), one.touchpoints + part.touchpoints
        )
    return sorted(found.values(), key=lambda visit: (visit.started_at, visit.session))[-MOST_SESSIONS:]


def time_to_convert(parts: Sequence[Part], purchases: Sequence[Purchase]) -> timedelta | None:
    """From the first touchpoint to the first paid order; None while there is none."""
    return purchases[0].paid_at - min(part.first for part in parts) if purchases and parts else None
