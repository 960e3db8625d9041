"""Identifiers lead to persons, on each kind of database and whatever order identity's changes arrive in."""

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
from kit.people.identifiers import identifier_of
from kit.people.persons import SHARED, Persons, person_links, persons, users
from kit.settings import Settings
from tests.databases import newest_database


@pytest.fixture
async def sessions(settings: Settings) -> AsyncIterator[Sessions]:
    async with newest_database(settings, "ingestion") as database:
        yield database.sessions


def link(identifier: str, user: str, seconds: int = 0, *, withdrawn: bool = False) -> IdentityChanged:
    return IdentityChanged(alias=AliasChanged(subject=identifier, user_id=user, linked_at=Timestamp(seconds=seconds), withdrawn=withdrawn))


def merge(merged: str, into: str, *, undone: bool = False) -> IdentityChanged:
    return IdentityChanged(merge=MergeChanged(user_id=into, merged_user_id=merged, undone=undone))


async def apply(sessions: Sessions, *changes: IdentityChanged) -> None:
    async def work(session: AsyncSession) -> None:
        await Persons(session).apply(changes)

    await transact(sessions, work)


async def known(sessions: Sessions, identifiers: Sequence[str]) -> dict[str, str]:
    async with sessions() as session:
        return dict(await Persons(session).people(identifiers))


def test_the_strongest_identifier_counts() -> None:
    assert identifier_of(user_id="0042", email_hash=b"\1", session_id="s") == "wordpress:42"
    assert identifier_of(user_id="u-1", session_id="s") == "user:u-1"
    assert identifier_of(email_hash=b"\xab", session_id="s") == "email:ab"
    assert identifier_of(session_id="s", anonymous_id="a") == "session:s"
    assert identifier_of(anonymous_id="a", visitor="v") == "anonymous:a"
    assert identifier_of(visitor="v") == "visitor:v"
    assert identifier_of() == ""


async def test_an_identifier_leads_to_the_user_it_was_first_linked_to(sessions: Sessions) -> None:
    await apply(sessions, link("session:s", "later", 9))
    await apply(sessions, link("session:s", "first", 5))
    assert await known(sessions, ["session:s", "user:later", "session:nobody"]) == {"session:s": "first", "user:later": "later"}
    await apply(sessions, link("session:s", "first", withdrawn=True))
    assert await known(sessions, ["session:s"]) == {"session:s": "later"}
    await apply(sessions, link("session:s", "later", withdrawn=True))
    assert await known(sessions, ["session:s"]) == {}


async def test_a_merged_users_identifiers_lead_to_the_person_and_back_after_the_merge_is_undone(sessions: Sessions) -> None:
    await apply(sessions, link("session:a", "a", 1), link("session:b", "b", 2), link("session:c", "c", 3))
    before = await known(sessions, ["session:a", "session:b", "session:c", "user:a", "user:b"])
    await apply(sessions, merge("a", "b"))
    await apply(sessions, merge("b", "c"))
    assert await known(sessions, ["session:a", "session:b", "user:a", "user:b"]) == dict.fromkeys(
        ["session:a", "session:b", "user:a", "user:b"], "c"
    )
    async with sessions() as session:
        assert await Persons(session).members(["c"]) == {"a", "b", "c"}
        assert set(await Persons(session).identifiers("c")) == {"session:a", "session:b", "session:c", "user:a", "user:b", "user:c"}
    await apply(sessions, merge("b", "c", undone=True))
    await apply(sessions, merge("a", "b", undone=True))
    assert await known(sessions, list(before)) == before


async def test_an_identifier_that_many_share_leads_to_no_one(sessions: Sessions) -> None:
    await apply(sessions, *(link("session:library", f"u{number}", number) for number in range(SHARED)))
    assert await known(sessions, ["session:library"]) == {"session:library": "u0"}
    await apply(sessions, link("session:library", "one-too-many", 99))
    assert await known(sessions, ["session:library"]) == {}
    await apply(sessions, merge("u1", "u2"))
    assert await known(sessions, ["session:library"]) == {"session:library": "u0"}


CHANGES = [
    *(link(f"session:s{number}", f"u{number % 4}", number) for number in range(8)),
    *(link("anonymous:a", f"u{number}", 10 - number) for number in range(4)),
    merge("u0", "u1"),
    merge("u1", "u2"),
]
IDENTIFIERS = [*(f"session:s{number}" for number in range(8)), "anonymous:a", *(f"user:u{number}" for number in range(4))]


async def test_the_order_of_changes_does_not_matter(sessions: Sessions) -> None:
    outcomes: list[dict[str, str]] = []
    for seed in range(12):
        shuffled = random.Random(seed).sample(CHANGES, len(CHANGES))  # noqa: S311
        async with sessions.begin() as session:
            for table in (person_links, users, persons):
                await session.execute(delete(table))
        for change in shuffled:
            await apply(sessions, change)
        outcomes.append(await known(sessions, IDENTIFIERS))
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
        await asyncio.gather(*(apply(sessions, change) for change in changes))
        assert set((await known(sessions, [f"session:{round_}-{number}" for number in range(9)])).values()) == {user[3]}
