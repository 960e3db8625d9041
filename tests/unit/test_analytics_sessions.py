"""How events become sessions."""

from __future__ import annotations

from random import Random

import pytest

from services.analytics.days import MICROSECONDS
from services.analytics.sessions import IDLE, MOST_EVENTS, VIEW, Event, Session, split


def event(seconds: float, source: str = "", key: str = "") -> Event:
    at = round(seconds * MICROSECONDS)
    return Event(at, key or f"e-{at}", VIEW, "", "/", "", source, "", "", "desktop", "")


def sizes(sessions: list[Session]) -> list[int]:
    return [len(session) for session in sessions]


def test_thirty_idle_minutes_and_another_source_begin_a_session() -> None:
    idle = IDLE / MICROSECONDS
    assert sizes(list(split([event(0), event(idle), event(2 * idle + 1)]))) == [2, 1]
    assert sizes(list(split([event(0, "google"), event(1), event(2, "google"), event(3, "newsletter")]))) == [3, 1]


def test_a_visitor_who_never_leaves_has_sessions_of_a_bounded_size() -> None:
    events = [event(60 * number) for number in range(2 * MOST_EVENTS + 5)]
    assert sizes(list(split(events))) == [MOST_EVENTS, MOST_EVENTS, 5]


@pytest.mark.parametrize("seed", range(5))
def test_sessions_do_not_depend_on_the_order_in_which_events_arrive(seed: int) -> None:
    """As the consumer does: what arrives is split anew with the sessions that had not ended half an hour before it."""
    events = [event(60 * number, "google" if number % 700 == 0 else "") for number in range(2 * MOST_EVENTS + 5)]
    arriving = [*events]
    Random(seed).shuffle(arriving)  # noqa: S311 (nothing secret)
    stored: list[Session] = []
    while arriving:
        some, arriving = arriving[:300], arriving[300:]
        since = min(each.at for each in some) - IDLE
        changed = [session for session in stored if session[-1].at >= since]
        again = [*(each for session in changed for each in session), *some]
        stored = [*(session for session in stored if session[-1].at < since), *split(again)]
    assert sorted(stored, key=lambda session: session[0].at) == list(split(events))
