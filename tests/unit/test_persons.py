"""Who is who, on each kind of database: names lead to persons, whatever order identity's changes arrive in."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged
from sqlalchemy import delete
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from kit.people.persons import SHARED, Persons, aliases, persons, subject_of, users
from kit.settings import Settings
from tests.conftest import newest_database


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    async with newest_database(settings, "ingestion") as database:
        yield database.sessions


def link(subject: str, user: str, seconds: int = 0, *, withdrawn: bool = False) -> IdentityChanged:
    return IdentityChanged(alias=AliasChanged(subject=subject, user_id=user, linked_at=Timestamp(seconds=seconds), withdrawn=withdrawn))


def merge(merged: str, into: str, *, undone: bool = False) -> IdentityChanged:
    return IdentityChanged(merge=MergeChanged(user_id=into, merged_user_id=merged, undone=undone))


async def tell(sessions: Sessions, *changes: IdentityChanged) -> None:
    async def learn(session: AsyncSession) -> None:
        await Persons(session).learn(changes)

    await transact(sessions, learn)


async def known(sessions: Sessions, subjects: Sequence[str]) -> dict[str, str]:
    async with sessions() as session:
        return dict(await Persons(session).people(subjects))


def test_the_strongest_name_is_the_subject() -> None:
    assert subject_of(user_id="0042", email_hash=b"\1", session_id="s") == "wordpress:42"
    assert subject_of(user_id="u-1", session_id="s") == "user:u-1"
    assert subject_of(email_hash=b"\xab", session_id="s") == "email:ab"
    assert subject_of(session_id="s", anonymous_id="a") == "session:s"
    assert subject_of(anonymous_id="a", visitor="v") == "anonymous:a"
    assert subject_of(visitor="v") == "visitor:v"
    assert subject_of() == ""


async def test_a_name_leads_to_the_user_it_was_first_seen_with(sessions: Sessions) -> None:
    await tell(sessions, link("session:s", "later", 9))
    await tell(sessions, link("session:s", "first", 5))
    assert await known(sessions, ["session:s", "user:later", "session:nobody"]) == {"session:s": "first", "user:later": "later"}
    await tell(sessions, link("session:s", "first", withdrawn=True))
    assert await known(sessions, ["session:s"]) == {"session:s": "later"}
    await tell(sessions, link("session:s", "later", withdrawn=True))
    assert await known(sessions, ["session:s"]) == {}


async def test_a_merged_users_names_lead_to_the_person_and_come_back(sessions: Sessions) -> None:
    await tell(sessions, link("session:a", "a", 1), link("session:b", "b", 2), link("session:c", "c", 3))
    before = await known(sessions, ["session:a", "session:b", "session:c", "user:a", "user:b"])
    await tell(sessions, merge("a", "b"))
    await tell(sessions, merge("b", "c"))
    assert await known(sessions, ["session:a", "session:b", "user:a", "user:b"]) == dict.fromkeys(
        ["session:a", "session:b", "user:a", "user:b"], "c"
    )
    async with sessions() as session:
        assert await Persons(session).members(["c"]) == {"a", "b", "c"}
        assert set(await Persons(session).subjects("c")) == {"session:a", "session:b", "session:c", "user:a", "user:b", "user:c"}
    await tell(sessions, merge("b", "c", undone=True))
    await tell(sessions, merge("a", "b", undone=True))
    assert await known(sessions, list(before)) == before


async def test_a_name_that_many_share_leads_to_nobody(sessions: Sessions) -> None:
    await tell(sessions, *(link("session:library", f"u{number}", number) for number in range(SHARED)))
    assert await known(sessions, ["session:library"]) == {"session:library": "u0"}
    await tell(sessions, link("session:library", "one-too-many", 99))
    assert await known(sessions, ["session:library"]) == {}
    await tell(sessions, merge("u1", "u2"))
    assert await known(sessions, ["session:library"]) == {"session:library": "u0"}


CHANGES = [
    *(link(f"session:s{number}", f"u{number % 4}", number) for number in range(8)),
    *(link("anonymous:a", f"u{number}", 10 - number) for number in range(4)),
    merge("u0", "u1"),
    merge("u1", "u2"),
]
SUBJECTS = [*(f"session:s{number}" for number in range(8)), "anonymous:a", *(f"user:u{number}" for number in range(4))]


async def test_the_order_of_changes_does_not_matter(sessions: Sessions) -> None:
    outcomes: list[dict[str, str]] = []
    for seed in range(12):
        shuffled = random.Random(seed).sample(CHANGES, len(CHANGES))  # noqa: S311
        async with sessions.begin() as session:
            for table in (aliases, users, persons):
                await session.execute(delete(table))
        for change in shuffled:
            await tell(sessions, change)
        outcomes.append(await known(sessions, SUBJECTS))
    assert outcomes[0]["session:s0"] == "u2"
    assert outcomes[1:] == outcomes[:-1]


async def test_changes_at_the_same_time_miss_nothing(sessions: Sessions) -> None:
    for round_ in range(5):
        user = [f"r{round_}u{number}" for number in range(4)]
        changes = [
            *(link(f"session:{round_}-{number}", user[number % 3], number) for number in range(9)),
            merge(user[0], user[1]),
            merge(user[1], user[2]),
            merge(user[2], user[3]),
        ]
        random.Random(round_).shuffle(changes)  # noqa: S311
        await asyncio.gather(*(tell(sessions, change) for change in changes))
        assert set((await known(sessions, [f"session:{round_}-{number}" for number in range(9)])).values()) == {user[3]}
