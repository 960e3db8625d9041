"""Consent: which choice is in force, and on each kind of database whose choices count for an identifier."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import permutations

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pmp.gdpr.v1 import change_pb2 as pb
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.database.transactions import Sessions, transact
from kit.people.persons import Persons
from kit.people.privacy import Choice, Consent, Consents, in_force, of_one, of_several
from kit.settings import Settings
from tests.databases import newest_database

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
GRANTED, DENIED = Choice(True, NOON), Choice(False, NOON)
LATER = Choice(True, NOON + timedelta(seconds=1))

_choices = st.builds(Choice, st.booleans(), st.integers(0, 4).map(lambda seconds: NOON + timedelta(seconds=seconds)))
_several = st.lists(st.none() | _choices, max_size=5)
fast = hypothesis_settings(deadline=None, derandomize=True, max_examples=100)


@fast
@given(_several, st.randoms(use_true_random=False))
def test_what_is_in_force_does_not_depend_on_the_order_of_arrival(choices: list[Choice | None], random: object) -> None:
    shuffled = list(choices)
    random.shuffle(shuffled)  # pyright: ignore[reportAttributeAccessIssue]
    assert in_force(shuffled) == in_force(choices)


@fast
@given(_several, _several)
def test_applying_in_two_steps_is_applying_at_once_and_again_changes_nothing(
    first: list[Choice | None], second: list[Choice | None]
) -> None:
    at_once = in_force([*first, *second])
    assert in_force([in_force(first), *second]) == at_once
    assert in_force([at_once, *first]) == at_once


@fast
@given(_several)
def test_nothing_made_before_the_choice_in_force_outdoes_it(choices: list[Choice | None]) -> None:
    made = [choice for choice in choices if choice is not None]
    holds = in_force(choices)
    if holds is None:
        assert not made
        return
    assert all(choice.decided_at <= holds.decided_at for choice in made)
    assert holds.granted == all(choice.granted for choice in made if choice.decided_at == holds.decided_at)


def test_identifiers_that_lead_to_no_person_count_as_the_same_persons() -> None:
    known, session = Consent(DENIED, person_id="ada"), Consent(LATER)
    for consents in permutations([known, session]):
        assert of_several(consents) == Consent(LATER, person_id="ada")


def test_a_denial_of_another_person_applies_and_a_grant_does_not() -> None:
    ada = Consent(DENIED, person_id="ada")
    assert of_several([ada, Consent(LATER, person_id="bob")]).analytics_tracking == DENIED
    assert of_several([Consent(LATER, person_id="bob"), ada]).analytics_tracking == DENIED
    assert of_several([Consent(person_id="ada"), Consent(GRANTED, person_id="bob")]).analytics_tracking is None


def test_without_a_choice_consent_is_unknown() -> None:
    assert of_several([]) == of_one([]) == Consent()


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    async with newest_database(settings, "ingestion") as database:
        yield database


@pytest.fixture
def sessions(database: Database) -> Sessions:
    return database.sessions


def decided(identifier: str, seconds: int, *, granted: bool) -> pb.ConsentChanged:
    choice = pb.Choice(granted=granted)
    choice.decided_at.FromDatetime(NOON + timedelta(seconds=seconds))
    return pb.ConsentChanged(subject=identifier, analytics_tracking=choice)


async def apply(sessions: Sessions, *changes: pb.ConsentChanged | IdentityChanged) -> None:
    async def work(session: AsyncSession) -> None:
        await Persons(session).apply(change for change in changes if isinstance(change, IdentityChanged))
        await Consents(session).apply(change for change in changes if isinstance(change, pb.ConsentChanged))

    await transact(sessions, work)


async def analytics(sessions: Sessions, identifiers: Sequence[str]) -> Mapping[str, bool | None]:
    async with sessions() as session:
        consents = await Consents(session).of(identifiers)
    return {each: consent.analytics_tracking.granted if consent.analytics_tracking else None for each, consent in consents.items()}


def link(identifier: str, user: str) -> IdentityChanged:
    return IdentityChanged(alias=AliasChanged(subject=identifier, user_id=user, linked_at=Timestamp(seconds=1)))


async def test_an_identifier_has_the_choices_of_all_identifiers_of_its_person(sessions: Sessions) -> None:
    identifiers = ["session:s", "wordpress:42", "user:u", "session:other", "user:nobody"]
    await apply(sessions, decided("session:s", 5, granted=False), decided("wordpress:42", 1, granted=True))
    assert await analytics(sessions, identifiers) == dict(zip(identifiers, (False, True, None, None, None), strict=True))
    await apply(sessions, link("session:s", "u"), link("wordpress:42", "u"))
    assert await analytics(sessions, identifiers) == dict(zip(identifiers, (False, False, False, None, None), strict=True))
    await apply(sessions, IdentityChanged(merge=MergeChanged(user_id="v", merged_user_id="u")), decided("user:v", 9, granted=True))
    assert await analytics(sessions, ["session:s", "user:u"]) == {"session:s": True, "user:u": True}
    await apply(sessions, IdentityChanged(merge=MergeChanged(user_id="v", merged_user_id="u", undone=True)))
    assert await analytics(sessions, ["session:s", "user:v"]) == {"session:s": False, "user:v": True}


async def test_a_replay_of_older_changes_changes_nothing(sessions: Sessions) -> None:
    changes = [decided("session:s", seconds, granted=seconds % 2 == 0) for seconds in range(5)]
    await apply(sessions, *changes)
    before = await analytics(sessions, ["session:s"])
    await apply(sessions, *reversed(changes))
    for change in changes:
        await apply(sessions, change)
    assert await analytics(sessions, ["session:s"]) == before == {"session:s": True}


async def test_any_number_of_identifiers_takes_two_queries(database: Database) -> None:
    identifiers = [f"session:{number}" for number in range(3000)]
    await apply(
        database.sessions, *(decided(each, 0, granted=True) for each in identifiers[:40]), *(link(each, "u") for each in identifiers[20:40])
    )
    statements: list[str] = []

    @event.listens_for(database.engine.sync_engine, "before_cursor_execute")
    def note(*arguments: object) -> None:
        statements.append(str(arguments[2]))

    found = await analytics(database.sessions, identifiers)
    _ = note
    assert [statement.split()[0] for statement in statements if not statement.startswith("BEGIN")] == ["SELECT", "SELECT"]
    assert found == dict.fromkeys(identifiers[:40], True) | dict.fromkeys(identifiers[40:])
