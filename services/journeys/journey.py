"""The journey of one person, assembled from rows: pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Final, NamedTuple

from kit.people.identifiers import identifier_of
from services.journeys.messages import ORDER, order_touchpoint_id
from services.journeys.rules import PURCHASE, RETENTION, STAGES

MOST_SESSIONS: Final = 1000


class Touchpoint(NamedTuple):
    """A touchpoint as far as journeys show it; its fields are those of `TouchpointRow`."""

    id: str
    subject: str
    session_id: str | None
    stage: str
    origin: str
    touchpoint: str
    action: str
    source: str | None
    medium: str | None
    campaign: str | None
    page_url: str | None
    value: float | str
    """A number, or in SQLite, which has no decimals, its text."""
    time_spent: int
    timestamp: datetime


class Part(NamedTuple):
    """The touchpoints of one stage in one session."""

    session_id: str | None
    subject: str
    stage: str
    touchpoints: int
    first: datetime
    last: datetime

    @property
    def session(self) -> str:
        """The identifier of the session; empty for touchpoints outside of any."""
        if self.session_id:
            return identifier_of(session_id=self.session_id)
        return self.subject if self.subject.startswith("visitor:") else ""


class Purchase(NamedTuple):
    """A paid order."""

    purchase_id: str
    paid_at: datetime


class PersonSession(NamedTuple):
    """The part of a session that one person had."""

    identifier: str
    started_at: datetime
    ended_at: datetime
    touchpoints: int


def parts_of(touchpoints: Iterable[Touchpoint]) -> list[Part]:
    """Returns the parts of touchpoints that are in the order of time."""
    found: dict[tuple[str | None, str, str], list[Touchpoint]] = {}
    for each in touchpoints:
        found.setdefault((each.session_id, each.subject, each.stage), []).append(each)
    return [Part(*key, len(several), several[0].timestamp, several[-1].timestamp) for key, several in found.items()]


def stages(parts: Sequence[Part], purchases: Sequence[Purchase]) -> list[tuple[str, datetime]]:
    """Returns the stages and when each was reached, in that order; ties in the order of `STAGES`.

    Args:
        parts: all of the journey.
        purchases: its first two orders: a second one is retention.
    """
    reached: dict[str, datetime] = {}
    seen = [(part.stage, part.first) for part in parts]
    for stage, at in [*seen, *((RETENTION, purchase.paid_at) for purchase in purchases[1:2])]:
        reached[stage] = min(at, reached.get(stage, at))
    return sorted(reached.items(), key=lambda item: (item[1], STAGES.index(item[0])))


def stage_shown(stage: str, origin: str, touchpoint_id: str, purchases: Sequence[Purchase]) -> str:
    """Returns the stage of one touchpoint: every order but the person's first is retention."""
    later = origin == ORDER and stage == PURCHASE and purchases and touchpoint_id != order_touchpoint_id(purchases[0].purchase_id)
    return RETENTION if later else stage


def sessions(parts: Sequence[Part]) -> list[PersonSession]:
    """Returns the sessions, oldest first; only the newest 1000."""
    found: dict[str, PersonSession] = {}
    for part in parts:
        session = part.session
        if not session:
            continue
        one = found.get(session) or PersonSession(session, part.first, part.last, 0)
        found[session] = PersonSession(
            session, min(one.started_at, part.first), max(one.ended_at, part.last), one.touchpoints + part.touchpoints
        )
    return sorted(found.values(), key=lambda session: (session.started_at, session.identifier))[-MOST_SESSIONS:]


def time_to_convert(parts: Sequence[Part], purchases: Sequence[Purchase]) -> timedelta | None:
    """Returns the time from the first touchpoint to the first paid order; None without one."""
    return purchases[0].paid_at - min(part.first for part in parts) if purchases and parts else None
