"""A funnel counts what its definition says, whatever the actions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from itertools import combinations
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.errors import InvalidRequest
from services.journeys.funnel import Funnel, Step, steps_of

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
Action = tuple[str, str, datetime]


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def counted(steps: Sequence[str], actions: Sequence[Action], window: timedelta | None = None) -> list[Step]:
    funnel = Funnel(steps, window)
    funnel.add(actions)
    return funnel.count()


def _middle(times: Sequence[timedelta]) -> timedelta | None:
    return timedelta(microseconds=median(time // timedelta(microseconds=1) for time in times)) if times else None


def defined(steps: Sequence[str], actions: Sequence[Action], window: timedelta | None) -> list[tuple[int, timedelta | None]]:
    """People and median times by looking at every chain there is."""
    people = [0] * len(steps)
    times: list[list[timedelta]] = [[] for _ in steps]
    for person in {person for person, _, _ in actions}:
        own = [(action, when) for who, action, when in actions if who == person]
        for length in range(len(steps), 0, -1):
            chains = [
                (places, tuple(own[place][1] for place in places))
                for places in combinations(range(len(own)), length)
                if [own[place][0] for place in places] == list(steps[:length])
                and (window is None or own[places[-1]][1] - own[places[0]][1] <= window)
            ]
            if chains:
                # The first to end; of these the last to start; of these the one that came to each step first.
                end = min(places[-1] for places, _ in chains)
                ending = [chain for places, chain in chains if places[-1] == end]
                start = max(chain[0] for chain in ending)
                chain = min(chain for chain in ending if chain[0] == start)
                for place in range(length):
                    people[place] += 1
                    if place:
                        times[place].append(chain[place] - chain[place - 1])
                break
    return [(count, _middle(several)) for count, several in zip(people, times, strict=True)]


actions = st.lists(st.tuples(st.sampled_from("pq"), st.sampled_from("abc"), st.integers(0, 12)), max_size=14).map(
    lambda found: [(person, action, at(minute)) for person, action, minute in sorted(found, key=lambda each: each[2])]
)


@settings(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), actions, st.none() | st.integers(1, 8))
def test_a_funnel_is_what_its_definition_says(steps: list[str], actions: list[Action], minutes: int | None) -> None:
    window = None if minutes is None else timedelta(minutes=minutes)
    actions = [action for action in actions if action[1] in steps]
    assert [(step.people, step.median_time) for step in counted(steps, actions, window)] == defined(steps, actions, window)


def test_what_is_added_in_portions_is_counted_as_one() -> None:
    actions: list[Action] = [("p", "a", at(0)), ("q", "a", at(1)), ("p", "b", at(2)), ("q", "b", at(9))]
    funnel = Funnel(["a", "b"])
    for action in actions:
        funnel.add([action])
    assert funnel.count() == counted(["a", "b"], actions)


def test_a_step_says_who_left_and_how_long_the_others_took() -> None:
    actions: list[Action] = [(person, "a", at(0)) for person in "pqrs"]
    actions += [("p", "b", at(1)), ("q", "b", at(2)), ("r", "b", at(30)), ("r", "c", at(31))]
    assert counted(["a", "b", "c", "d"], actions) == [
        Step("a", 4, 0, 1.0, None),
        Step("b", 3, 1, 0.75, timedelta(minutes=2)),
        Step("c", 1, 2, 1 / 3, timedelta(minutes=1)),
        Step("d", 0, 1, 0.0, None),
    ]


def test_a_chain_may_start_at_any_first_step() -> None:
    actions: list[Action] = [("p", "a", at(0)), ("p", "a", at(100)), ("p", "b", at(101)), ("p", "c", at(102))]
    assert [step.people for step in counted(["a", "b", "c"], actions, timedelta(minutes=2))] == [1, 1, 1]
    assert [step.people for step in counted(["a", "b", "c"], actions, timedelta(minutes=1))] == [1, 1, 0]


def test_one_action_is_one_step() -> None:
    assert [step.people for step in counted(["a", "a", "a"], [("p", "a", at(0)), ("p", "a", at(0))])] == [1, 1, 0]


def test_nobody_is_nobody() -> None:
    assert counted(["a", "b"], []) == [Step("a", 0, 0, 1.0, None), Step("b", 0, 0, 0.0, None)]


def test_steps_come_one_by_one_or_in_one_text() -> None:
    assert steps_of(["home", " cart ,purchase"]) == ["home", "cart", "purchase"]


@pytest.mark.parametrize("texts", [[""], ["a,"], ["a", " "], ["x" * 101], [",".join("a" * 21)]])
def test_other_steps_are_refused(texts: list[str]) -> None:
    with pytest.raises(InvalidRequest):
        steps_of(texts)
