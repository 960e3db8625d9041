"""Addresses under which e-mail tools keep persons: followed when they change, and gone with an erasure, in both databases."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.gdpr.v1.change_pb2 import SuppressionChanged
from pmp.identity.v1.change_pb2 import IdentityChanged, MergeChanged, UserChanged
from sqlalchemy import select

from kit.database.engine import Database
from kit.people.persons import Persons
from kit.people.subjects.data import SubjectData
from kit.people.suppression import Suppressions, digest
from kit.service.resources import Resources
from kit.settings import Settings
from services.destinations.contacts import Contacts
from services.destinations.models import ContactRow
from services.destinations.personal import PERSONAL_TABLES
from tests.databases import newest_database

OLD, NEW = "Ada@example.org", "ada@lovelace.example"


@pytest.fixture
async def database(settings: Settings) -> AsyncGenerator[Database]:
    async with newest_database(settings, "destinations") as database:
        yield database


@pytest.fixture
def contacts(database: Database, resources: Resources) -> Contacts:
    return Contacts("mail", database.sessions, resources.keys)


async def rows(database: Database) -> list[ContactRow]:
    async with database.sessions.reading() as session:
        return list(await session.scalars(select(ContactRow).order_by(ContactRow.destination, ContactRow.sent_at)))


async def test_a_former_address_is_named_until_the_destination_has_left_it(contacts: Contacts, database: Database) -> None:
    assert [await contacts.remember("u-ada", OLD), await contacts.remember("u-ada", "ADA@EXAMPLE.org ")] == [[], []]
    assert [await contacts.remember("u-ada", NEW) for _ in range(2)] == [[OLD], [OLD]]
    await contacts.leave([OLD])
    assert await contacts.remember("u-ada", NEW) == []
    assert [each.is_former for each in await rows(database)] == [True, False], "it is kept for an erasure"
    assert await contacts.remember("u-ada", OLD) == [NEW], "who returns to an address"
    assert not any(OLD.lower().encode() in each.email.lower() for each in await rows(database)), "it is sealed"


async def test_an_address_is_the_last_persons_that_has_it_and_each_destinations_own(
    contacts: Contacts, database: Database, resources: Resources
) -> None:
    await contacts.remember("u-ada", OLD)
    await contacts.remember("u-bob", OLD)
    assert await contacts.remember("u-ada", NEW) == [], "it is another's now, who is not to be unsubscribed"
    assert await Contacts("other", database.sessions, resources.keys).remember("u-bob", "bob@example.org") == []
    assert await contacts.remember("u-bob", "bob@example.org") == [OLD]


async def test_users_that_are_merged_have_one_contact(contacts: Contacts, database: Database) -> None:
    await contacts.remember("u-ada", OLD)
    await contacts.remember("u-guest", NEW)
    users = [IdentityChanged(user=UserChanged(user_id=each)) for each in ("u-ada", "u-guest")]
    async with database.sessions.begin() as session:
        await Persons(session).apply([*users, IdentityChanged(merge=MergeChanged(user_id="u-ada", merged_user_id="u-guest"))])
    assert await contacts.remember("u-ada", OLD) == [NEW]


async def test_an_export_has_all_addresses_and_an_erasure_deletes_them(
    contacts: Contacts, database: Database, resources: Resources
) -> None:
    for address in (OLD, NEW):
        await contacts.remember("u-ada", address)
    await contacts.leave([OLD])
    await contacts.remember("u-bob", "bob@example.org")
    data = SubjectData(database, resources.keys, None, PERSONAL_TABLES)
    found = [json.loads(row) async for section, _, row in data.export(["user:u-ada"]) if section == "email_data"]
    assert sorted((row["destination"], row["email"], row["is_former"]) for row in found) == [("mail", OLD, True), ("mail", NEW, False)]
    assert (await data.erase(["user:u-ada"], "erased:1"))["destination_contacts"] == 2
    assert [each.user_id for each in await rows(database)] == ["u-bob"]


@pytest.mark.parametrize("by", ["key", "suppression"])
async def test_nothing_is_remembered_of_who_is_being_erased(contacts: Contacts, database: Database, resources: Resources, by: str) -> None:
    now, own = datetime.now(UTC), f"email:{resources.keys.hasher.fingerprint(OLD).hex()}"
    if by == "key":
        await resources.keys.destroy([own], now)
    else:
        at = Timestamp()
        at.FromDatetime(now)
        async with database.sessions.begin() as session:
            erased = SuppressionChanged(digest=digest(resources.keys.hasher, "user:u-ada"), erased_at=at)
            await Suppressions(session).apply([erased])
    assert (await contacts.remember("u-ada", OLD), await rows(database)) == ([], [])
