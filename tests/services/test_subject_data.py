"""Every service exports and erases the personal data that it declares, on each kind of database."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.message import Message
from pmp.gdpr.v1.change_pb2 import ConsentChanged, GdprChanged
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged, UserChanged
from pmp.ingestion.v1 import event_pb2
from pmp.journeys.v1.change_pb2 import ConversionRecorded, JourneyChanged, TouchpointRecorded
from pmp.log.v1 import log_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from sqlalchemy import MetaData, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.log.consume import dead_letters
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import Delivery, Offset
from kit.people.hashing import KeyedHasher
from kit.people.keys.seals import KeyId, Seal
from kit.people.keys.store import Keys
from kit.people.persons import person_links, persons, users
from kit.people.subjects.data import SubjectData
from kit.people.subjects.personal_tables import IdentifierKind, PersonalTable
from kit.settings import Settings
from services.analytics.days import Calendar
from services.analytics.orders import Order
from services.analytics.personal import personal_tables as analytics_tables
from services.analytics.sessions import Event, dumps
from services.gdpr.personal import PERSONAL_TABLES as GDPR
from services.identity.personal import PERSONAL_TABLES as IDENTITY
from services.ingestion.personal import PERSONAL_TABLES as INGESTION
from services.journeys.models import PathRow, PendingRow
from services.journeys.personal import personal_tables as journeys_tables
from services.journeys.personal import session_pseudonym
from services.journeys.projection import Paths, erase_paths
from services.journeys.repository import erase_sessions
from services.journeys.shares import Splitter
from services.purchases.personal import personal_tables as purchases_tables
from services.purchases.publishing import RepublishErased
from tests.databases import newest_database

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
HASHER = KeyedHasher(bytes(32))
PSEUDONYM = "erased:" + "0" * 32
SPLITTER = Splitter(Decimal("0.01"), lambda order, name: HASHER.digest(f"{order} {name}".encode(), purpose="test"))
JOURNEYS = journeys_tables(HASHER, partial(erase_sessions, pseudonym_of=partial(session_pseudonym, HASHER)), partial(erase_paths, SPLITTER))
DECLARED: dict[str, Sequence[PersonalTable]] = {
    "analytics": analytics_tables(Calendar(ZoneInfo("UTC"))),
    "gdpr": GDPR,
    "identity": IDENTITY,
    "ingestion": INGESTION,
    "journeys": JOURNEYS,
    "purchases": purchases_tables(HASHER, "keep"),
}
NUMBERS = count(1000)
SHARED = ("topic_state", "attribution_totals")
"""Tables with rows that several persons share."""
DESTROYED = Seal(KeyId(bytes(16), 1), None)
FIXED: dict[str, Any] = {
    "returned_lines": [{"product_id": "201", "quantity": 1, "amount": "7"}],
    "currency": "EUR",
    "base_currency": "EUR",
    "payment_status": "completed",
    "kind": "sale",
    "purchase_entries.reason": "edited",
    "user_type": "lead",
    "origin": "client",
    "position": 1,
    "analytics_orders.payload": Order("EUR", None, True, "newsletter", "email", "spring", (), ()).dumps(),
    "analytics_sessions.payload": dumps([Event(0, "e1", "view", "", "/", "", "", "", "", "", "")]),
    "utm_attribution": {"source": "newsletter"},
}


class Person:
    """A person whose name is in everything that is stored of them."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.hash = name.encode().ljust(32, b"#")
        self.number = number
        self.identifiers = [
            f"user:{name}-user",
            f"wordpress:{number}",
            f"email:{self.hash.hex()}",
            f"session:{name}-session",
            f"anonymous:{name}",
        ]

    def value(self, kind: IdentifierKind, identifier: str) -> Any:
        return {
            IdentifierKind.SUBJECT: identifier,
            IdentifierKind.USER_ID: f"{self.name}-user",
            IdentifierKind.EMAIL_HASH: self.hash,
            IdentifierKind.SESSION_ID: f"{self.name}-session",
        }[kind]

    def row(self, declared: PersonalTable, identifier: str, seal: Seal = DESTROYED) -> dict[str, Any]:
        """A row of a table that is this person's by an identifier."""
        personal = (
            {*declared.identifiers, *declared.personal} if not declared.deletes_rows else {column.name for column in declared.table.columns}
        )
        row = {
            column.name: self._filled(column, f"{self.name} {identifier}" if column.name in personal else f"row-{next(NUMBERS)}")
            for column in declared.table.columns
        }
        row |= {name: self.value(kind, identifier) for name, kind in declared.identifiers.items()}
        row |= {name: seal.seal(json.dumps({"text": self.name}), context=context) for name, context in declared.sealed.items()}
        if declared.table.name == "events":
            row["event_data"] = {
                "user_agent": self.name,
                "enrichment": {"visitor": self.name, "session": self.name, "channel": "CHANNEL_DIRECT"},
            }
        return row

    def _filled(self, column: Any, text: str) -> Any:
        for name in (column.name, f"{column.table.name}.{column.name}"):
            if name in FIXED:
                return FIXED[name]
        if column.name == "wordpress_id":
            return self.number
        kind: Any = getattr(column.type, "impl_instance", None) or column.type
        of = {
            datetime: NOON,
            date: NOON.date(),
            Decimal: Decimal(7),
            bool: False,
            int: next(NUMBERS),
            bytes: text.encode()[:16],
            dict: {"text": text},
        }
        return of.get(kind.python_type, f"https://shop.example/?name={text}"[: getattr(kind, "length", None) or 200])


ADA, BOB = Person("ada-lovelace", 987654321), Person("bob", 123456789)


@asynccontextmanager
async def holder(
    settings: Settings, keys: Keys, service: str, tables: Sequence[PersonalTable] = ()
) -> AsyncGenerator[tuple[Database, SubjectData]]:
    """A service's database with rows of two persons in every table."""
    async with newest_database(settings, service) as database:
        topic = StateTopic(service, settings.log_partitions)
        await prepare_heads(database.sessions, service, settings.log_partitions)
        after = {"purchases": RepublishErased(topic)} if service == "purchases" else None
        own = tables or DECLARED[service]
        seal = (await keys.seals(["email:others"]))["email:others"]
        async with database.sessions.begin() as session:
            for table in own:
                if table.entity is not PathRow:
                    await _known(session, table, seal)
            await _persons(session)
        if service == "journeys":
            # Paths are derived for all persons whose identifiers are pending; pending rows are inserted again, to be erased as well.
            async with database.sessions.begin() as session:
                assert await Paths(session, SPLITTER).refresh()
                await _known(session, next(table for table in own if table.entity is PendingRow), seal)
        yield database, SubjectData(database, keys, topic, own, after)


async def _known(session: AsyncSession, declared: PersonalTable, seal: Seal) -> None:
    by_subject = IdentifierKind.SUBJECT in declared.identifiers.values()
    for person in (ADA, BOB):
        for identifier in person.identifiers if by_subject else person.identifiers[:1]:
            row = person.row(declared, identifier, seal)
            await session.execute(insert(declared.table), row)
            for part in declared.parts:
                own = Person(person.name, person.number).row(PersonalTable(part.table, "", "", "", {}), identifier)
                serial = {key.name for key in part.table.primary_key if key.autoincrement is True}
                own = {name: value for name, value in own.items() if name not in serial}
                (key,) = declared.table.primary_key
                await session.execute(insert(part.table), {**own, part.key: row[key.name]})


async def _persons(session: AsyncSession) -> None:
    for person in (ADA, BOB):
        user = f"{person.name}-user"
        await session.execute(insert(users), {"user_id": user})
        await session.execute(insert(person_links), [{"subject": each, "user_id": user, "linked_at": NOON} for each in person.identifiers])
        await session.execute(insert(persons), [{"subject": each, "person_id": user} for each in person.identifiers])


async def everything(database: Database) -> str:
    """All rows of all tables as text."""
    metadata = MetaData()
    async with database.engine.connect() as connection:
        await connection.run_sync(metadata.reflect)
        rows = [f"{name} {row!r}" for name, table in metadata.tables.items() for row in await connection.execute(select(table))]
    return "\n".join(rows)


@pytest.mark.parametrize("service", DECLARED)
async def test_an_erasure_leaves_nothing_of_a_person_and_all_of_others(settings: Settings, keys: Keys, service: str) -> None:
    async with holder(settings, keys, service) as (database, data):
        before = await everything(database)
        assert before.count(ADA.name) > 0
        others = [line for line in before.splitlines() if BOB.name in line and not line.startswith(SHARED)]
        expected = await data.count(ADA.identifiers)
        assert await everything(database) == before, "a count changes nothing"
        erased = await data.erase(ADA.identifiers, PSEUDONYM, "task")
        assert erased == expected
        after = await everything(database)
        assert [line for line in after.splitlines() if ADA.name in line or str(ADA.number) in line] == []
        assert [line for line in after.splitlines() if BOB.name in line and not line.startswith(SHARED)] == others
        assert not any((await data.erase(ADA.identifiers, PSEUDONYM, "task")).values()), "once is enough"
        assert await data.erased("task") == {table: count for table, count in erased.items() if count}
        stay = [table for table in DECLARED[service] if not table.deletes_rows]
        assert all(PSEUDONYM in after for table in stay if "subject" in table.identifiers)


@pytest.mark.parametrize("service", DECLARED)
async def test_an_export_shows_a_persons_rows_and_no_others(settings: Settings, keys: Keys, service: str) -> None:
    async with holder(settings, keys, service) as (_, data):
        shown = [(section, table, json.loads(record)) async for section, table, record in data.export(ADA.identifiers)]
    counts = {
        each.table.name: len(ADA.identifiers) if IdentifierKind.SUBJECT in each.identifiers.values() else 1 for each in DECLARED[service]
    }
    for each in DECLARED[service]:
        own = [record for _, table, record in shown if table == each.table.name]
        assert len(own) == (counts[each.table.name] if each.section else 0)
        assert all(ADA.name in record[column] for record in own for column in each.sealed)
        assert len([1 for _, table, _ in shown if table in {part.table.name for part in each.parts}]) == len(own) * len(each.parts)
    assert BOB.name not in json.dumps(shown)


async def test_purchases_go_with_their_person_where_the_shop_says_so(settings: Settings, keys: Keys) -> None:
    async with holder(settings, keys, "purchases", purchases_tables(HASHER, "delete")) as (database, data):
        await data.erase(ADA.identifiers, PSEUDONYM)
        async with database.sessions() as session:
            tables: list[Table] = [part.table for part in purchases_tables(HASHER, "keep")[0].parts] + [
                purchases_tables(HASHER, "keep")[0].table
            ]
            counts = [await session.scalar(select(func.count()).select_from(table)) for table in tables]
        assert counts == [len(BOB.identifiers)] * len(tables)


async def test_a_persons_dead_letters_are_emptied_and_stay_in_the_books(settings: Settings, keys: Keys) -> None:
    async with holder(settings, keys, "ingestion") as (database, data):
        letters: list[tuple[Delivery, str]] = []
        for number, person in enumerate((ADA, BOB)):
            event = event_pb2.ReceivedEvent(event=event_pb2.Event(id=f"e{number}", user_id=str(person.number)))
            record = log_pb2.Record(type=event.DESCRIPTOR.full_name, payload=event.SerializeToString())
            letters.append((Delivery("intake", 0, Offset(number, 0), 0, 1, record), "because"))
        async with database.sessions.begin() as session:
            await dead_letters.add(session, letters)
        assert (await data.count(ADA.identifiers))["dead_letters"] == 1
        assert (await data.erase(ADA.identifiers, PSEUDONYM))["dead_letters"] == 1
        async with database.sessions() as session:
            found = await dead_letters.find(session)
        assert [(letter.state, bool(letter.record.payload)) for letter in found] == [("dropped", False), ("dead", True)]


def _letters(person: Person) -> list[tuple[str, Message]]:
    """Messages of the log that have one identifier of a person each, and that identifier."""
    user, number, email, session, anonymous = person.identifiers
    user_id, session_id = user.removeprefix("user:"), session.removeprefix("session:")
    return [
        (user, event_pb2.EventStored(event=event_pb2.Event(user_id=user_id))),
        (user, IdentityChanged(merge=MergeChanged(user_id="another", merged_user_id=user_id))),
        (number, event_pb2.ReceivedEvent(event=event_pb2.Event(user_id=str(person.number)))),
        (number, IdentityChanged(user=UserChanged(user_id="another", wordpress_id=person.number))),
        (number, JourneyChanged(touchpoint=TouchpointRecorded(subject=number))),
        (email, event_pb2.EventStored(event=event_pb2.Event(session_id="another"), email_hash=person.hash)),
        (email, JourneyChanged(conversion=ConversionRecorded(subject=email))),
        (session, event_pb2.ReceivedEvent(event=event_pb2.Event(user_id="another", session_id=session_id))),
        (session, PurchaseChanged(session_id=session_id, subject="purchase:1")),
        (anonymous, IdentityChanged(alias=AliasChanged(subject=anonymous, user_id="another"))),
        (anonymous, GdprChanged(consent=ConsentChanged(subject=anonymous))),
    ]


async def test_an_erasure_finds_dead_letters_by_each_identifier(settings: Settings, keys: Keys) -> None:
    own = _letters(ADA)
    async with newest_database(settings, "journeys") as database:
        letters: list[tuple[Delivery, str]] = []
        for number, (_, message) in enumerate([*own, *_letters(BOB)]):
            record = log_pb2.Record(type=message.DESCRIPTOR.full_name, payload=message.SerializeToString())
            letters.append((Delivery("events", 0, Offset(number, 0), 0, 1, record), "because"))
        async with database.sessions.begin() as session:
            await dead_letters.add(session, letters)
        data = SubjectData(database, keys, None, ())
        for identifier in ADA.identifiers:
            dropped = (await data.erase([identifier], PSEUDONYM))["dead_letters"]
            assert dropped == len([1 for each, _ in own if each == identifier]) > 0, identifier
        async with database.sessions() as session:
            found = await dead_letters.find(session)
        assert [letter.state for letter in found] == ["dropped"] * len(own) + ["dead"] * len(own)


async def test_an_identifier_in_another_persons_row_is_removed_from_it(settings: Settings, keys: Keys) -> None:
    async with holder(settings, keys, "ingestion") as (database, data):
        table = INGESTION[0].table
        row = {**BOB.row(INGESTION[0], ""), "id": "shared", "session_id": f"{ADA.name}-session"}
        async with database.sessions.begin() as session:
            await session.execute(insert(table), row)
        await data.erase(ADA.identifiers, PSEUDONYM)
        async with database.sessions() as session:
            kept = (await session.execute(select(table).where(table.c.id == "shared"))).mappings().one()
        assert (kept["user_id"], kept["session_id"]) == (f"{BOB.name}-user", None)
