"""A funnel counts what its definition says, whatever the actions, on each kind of database."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import combinations
from statistics import median
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as cases
from hypothesis import strategies as st
from sqlalchemy import delete, insert

from kit.database.engine import Database
from kit.errors import InvalidRequest
from kit.people.persons import persons
from kit.settings import Settings
from services.journeys import actions as reading
from services.journeys.funnel import Actions, Funnel, Step, steps_of
from services.journeys.models import touchpoints
from tests.databases import newest_database

BEGIN = datetime(2026, 11, 22, tzinfo=UTC)
Action = tuple[str, str, datetime]


def at(minutes: float) -> datetime:
    return BEGIN + timedelta(minutes=minutes)


def people(actions: Sequence[Action]) -> list[Actions]:
    """What each person did, of actions in the order of (timestamp, id)."""
    found: defaultdict[str, defaultdict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for number, (person, action, when) in enumerate(actions):
        found[person][action].append(f"{when.replace(tzinfo=None).isoformat(' ', 'microseconds')}{number:03}")
    return list(found.values())


def counted(steps: Sequence[str], actions: Sequence[Action], window: timedelta | None = None) -> list[Step]:
    funnel = Funnel(steps, window)
    funnel.add(people(actions))
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


@cases(max_examples=400, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from("abc"), min_size=1, max_size=5), actions, st.none() | st.integers(1, 8))
def test_a_funnel_is_what_its_definition_says(steps: list[str], actions: list[Action], minutes: int | None) -> None:
    window = None if minutes is None else timedelta(minutes=minutes)
    actions = [action for action in actions if action[1] in steps]
    assert [(step.people, step.median_time) for step in counted(steps, actions, window)] == defined(steps, actions, window)


def test_what_is_added_in_portions_is_counted_as_one() -> None:
    actions: list[Action] = [("p", "a", at(0)), ("q", "a", at(1)), ("p", "b", at(2)), ("q", "b", at(9))]
    funnel = Funnel(["a", "b"])
    for person in people(actions):
        funnel.add([person])
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


class Stored(NamedTuple):
    """A stored touchpoint."""

    id: str
    identifier: str
    action: str
    minute: int


class Read(NamedTuple):
    """What is asked, and in which portions it is read."""

    steps: list[str]
    window: int | None
    since: int | None
    until: int
    page: int
    hold: int


IDENTIFIERS = ["session:s", "session:S", "session:s2", "user:u", "wordpress:7", "visitor:v~1"]
STORED = st.builds(
    Stored, st.text("aB9._:-~+", min_size=1, max_size=4), st.sampled_from(IDENTIFIERS), st.sampled_from("abcd"), st.integers(0, 9)
)
READ = st.builds(
    Read,
    st.lists(st.sampled_from("abc"), min_size=1, max_size=4),
    st.none() | st.integers(1, 8),
    st.none() | st.integers(0, 3),
    st.integers(4, 10),
    st.sampled_from([1, 2, reading.PAGE]),
    st.sampled_from([0, 60, reading.HELD]),
)


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture
def database(settings: Settings, runner: asyncio.Runner) -> Iterator[Database]:
    context = newest_database(settings, "journeys")
    yield runner.run(context.__aenter__())
    runner.run(context.__aexit__(None, None, None))


async def store(database: Database, rows: Sequence[Stored], people: Mapping[str, str | None]) -> None:
    """Replaces all that is stored."""
    fields = {
        "stage": "interest",
        "touchpoint": "t",
        "created_at": BEGIN,
        "channel": "",
        "origin": "client",
        "time_spent": 0,
        "value_generated": Decimal(0),
    }
    async with database.sessions.begin() as session:
        await session.execute(delete(touchpoints))
        await session.execute(delete(persons))
        stored = [
            {**fields, "id": row.id, "subject": row.identifier, "action_taken": row.action, "timestamp": at(row.minute)} for row in rows
        ]
        if stored:
            await session.execute(insert(touchpoints), stored)
        for identifier, person in people.items():
            await session.execute(insert(persons).values(subject=identifier, person_id=person))


async def read(database: Database, asked: Read) -> list[Actions]:
    since = None if asked.since is None else at(asked.since)
    async with database.sessions.reading() as session:
        pages = reading.people(session, asked.steps, since, at(asked.until), page=asked.page, hold=asked.hold)
        return [person async for page in pages for person in page]


def test_a_funnel_of_what_is_stored_is_what_its_definition_says(runner: asyncio.Runner, database: Database) -> None:
    @cases(max_examples=60, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(
        st.lists(STORED, max_size=16, unique_by=lambda row: row.id),
        st.dictionaries(st.sampled_from(IDENTIFIERS), st.sampled_from(["p", "q", "r", None])),
        READ,
    )
    def property_(rows: list[Stored], people: dict[str, str | None], asked: Read) -> None:
        window = None if asked.window is None else timedelta(minutes=asked.window)
        runner.run(store(database, rows, people))
        funnel = Funnel(asked.steps, window)
        funnel.add(runner.run(read(database, asked)))
        actions = [
            (people.get(row.identifier) or row.identifier, row.action, at(row.minute))
            for row in sorted(rows, key=lambda row: (row.minute, row.id))
            if row.action in asked.steps and (asked.since or 0) <= row.minute < asked.until
        ]
        assert [(step.people, step.median_time) for step in funnel.count()] == defined(asked.steps, actions, window)

    property_()


def test_who_did_one_thing_very_often_is_read_as_everybody_else(runner: asyncio.Runner, database: Database) -> None:
    often = [Stored(f"{number:04}{'x' * 250}", "session:s", "a", number % 400) for number in range(4000)]
    seldom = [Stored(f"seldom-{number}", f"session:t{number}", "a", number) for number in range(3)]
    runner.run(store(database, [*often, *seldom], {}))
    found = runner.run(read(database, Read(["a"], None, None, 1000, 2, reading.HELD)))
    assert sorted(len(each["a"]) for each in found) == [1, 1, 1, 4000]
    for each in found:
        assert sorted(set(each["a"])) == each["a"]
