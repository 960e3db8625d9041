"""What every service shows and erases of somebody: from its declaration, on each kind of database, whatever tables it has."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import partial
from itertools import count
from typing import Any

import pytest
from pmp.ingestion.v1 import event_pb2
from pmp.log.v1 import log_pb2
from sqlalchemy import MetaData, Table, func, insert, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.log.consume import dead_letters
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import Delivery, Offset
from kit.people.keys.seals import KeyId, Seal
from kit.people.keys.store import Keys
from kit.people.persons import aliases, persons, users
from kit.people.subjects.data import SubjectData
from kit.people.subjects.holdings import Kind, PersonalTable
from kit.people.vault import Vault
from kit.settings import Settings
from services.gdpr.personal import HOLDINGS as GDPR
from services.identity.personal import HOLDINGS as IDENTITY
from services.ingestion.personal import HOLDINGS as INGESTION
from services.journeys.models import PathRow, PendingRow
from services.journeys.personal import holdings as journeys_holdings
from services.journeys.personal import session_pseudonym
from services.journeys.projection import Paths, erase_paths
from services.journeys.repository import erase_sessions
from services.journeys.shares import Splitter
from services.purchases.personal import personal_tables as purchases_tables
from services.purchases.publishing import RepublishErased
from tests.conftest import newest_database

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
VAULT = Vault(bytes(32))
PSEUDONYM = "erased:" + "0" * 32
SPLITTER = Splitter(Decimal("0.01"), lambda order, name: VAULT.digest(f"{order} {name}".encode(), purpose="test"))
JOURNEYS = journeys_holdings(VAULT, partial(erase_sessions, pseudonym_of=partial(session_pseudonym, VAULT)), partial(erase_paths, SPLITTER))
DECLARED: dict[str, Sequence[PersonalTable]] = {
    "gdpr": GDPR,
    "identity": IDENTITY,
    "ingestion": INGESTION,
    "journeys": JOURNEYS,
    "purchases": purchases_tables(VAULT, "keep"),
}
NUMBERS = count(1000)
SHARED = ("topic_state", "attribution_totals")
"""Tables with rows that several persons share."""
DESTROYED = Seal(KeyId(bytes(16), 1), None)
FIXED: dict[str, Any] = {
    "currency": "EUR",
    "base_currency": "EUR",
    "payment_status": "completed",
    "kind": "sale",
    "purchase_entries.reason": "edited",
    "user_type": "lead",
    "origin": "client",
    "position": 1,
    "utm_attribution": {"source": "news"},
}


class Person:
    """Somebody, whose name is in everything that is known of them."""

    def __init__(self, name: str, number: int) -> None:
        self.name = name
        self.hash = name.encode().ljust(32, b"#")
        self.number = number
        self.names = [f"user:{name}-user", f"wordpress:{number}", f"email:{self.hash.hex()}", f"session:{name}-visit", f"anonymous:{name}"]

    def value(self, kind: Kind, subject: str) -> Any:
        return {Kind.SUBJECT: subject, Kind.USER: f"{self.name}-user", Kind.EMAIL: self.hash, Kind.SESSION: f"{self.name}-visit"}[kind]

    def row(self, holding: PersonalTable, subject: str, seal: Seal = DESTROYED) -> dict[str, Any]:
        """A row of a table that is this person's by a name."""
        told = {*holding.names, *holding.personal} if not holding.deletes_rows else {column.name for column in holding.table.columns}
        row = {
            column.name: self._filled(column, f"{self.name} {subject}" if column.name in told else f"row-{next(NUMBERS)}")
            for column in holding.table.columns
        }
        row |= {name: self.value(kind, subject) for name, kind in holding.names.items()}
        row |= {name: seal.seal(json.dumps({"text": self.name}), context=context) for name, context in holding.sealed.items()}
        if holding.table.name == "events":
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
    settings: Settings, keys: Keys, service: str, holdings: Sequence[PersonalTable] = ()
) -> AsyncGenerator[tuple[Database, SubjectData]]:
    """A service's database, in which everything is known of two persons."""
    async with newest_database(settings, service) as database:
        topic = StateTopic(service, settings.log_partitions)
        await prepare_heads(database.sessions, service, settings.log_partitions)
        after = {"purchases": RepublishErased(topic)} if service == "purchases" else None
        own = holdings or DECLARED[service]
        seal = (await keys.seals(["email:others"]))["email:others"]
        async with database.sessions.begin() as session:
            for holding in own:
                if holding.entity is not PathRow:
                    await _known(session, holding, seal)
            await _who_is_who(session)
        if service == "journeys":
            # Paths are made of what is known, of all persons whose names are pending; that they are stays to be erased as well.
            async with database.sessions.begin() as session:
                assert await Paths(session, SPLITTER).refresh()
                await _known(session, next(holding for holding in own if holding.entity is PendingRow), seal)
        yield database, SubjectData(database, keys, topic, own, after)


async def _known(session: AsyncSession, holding: PersonalTable, seal: Seal) -> None:
    by_subject = Kind.SUBJECT in holding.names.values()
    for person in (ADA, BOB):
        for subject in person.names if by_subject else person.names[:1]:
            row = person.row(holding, subject, seal)
            await session.execute(insert(holding.table), row)
            for part in holding.parts:
                own = Person(person.name, person.number).row(PersonalTable(part.table, "", "", "", {}), subject)
                serial = {key.name for key in part.table.primary_key if key.autoincrement is True}
                own = {name: value for name, value in own.items() if name not in serial}
                (key,) = holding.table.primary_key
                await session.execute(insert(part.table), {**own, part.key: row[key.name]})


async def _who_is_who(session: AsyncSession) -> None:
    for person in (ADA, BOB):
        user = f"{person.name}-user"
        await session.execute(insert(users), {"user_id": user})
        await session.execute(insert(aliases), [{"subject": name, "user_id": user, "linked_at": NOON} for name in person.names])
        await session.execute(insert(persons), [{"subject": name, "person_id": user} for name in person.names])


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
        expected = await data.count(ADA.names)
        assert await everything(database) == before, "a count changes nothing"
        erased = await data.erase(ADA.names, PSEUDONYM, "task")
        assert erased == expected
        after = await everything(database)
        assert [line for line in after.splitlines() if ADA.name in line or str(ADA.number) in line] == []
        assert [line for line in after.splitlines() if BOB.name in line and not line.startswith(SHARED)] == others
        assert not any((await data.erase(ADA.names, PSEUDONYM, "task")).values()), "once is enough"
        assert await data.erased("task") == {table: count for table, count in erased.items() if count}
        stay = [holding for holding in DECLARED[service] if not holding.deletes_rows]
        assert all(PSEUDONYM in after for holding in stay if "subject" in holding.names)


@pytest.mark.parametrize("service", DECLARED)
async def test_an_export_shows_a_persons_rows_and_nobody_elses(settings: Settings, keys: Keys, service: str) -> None:
    async with holder(settings, keys, service) as (_, data):
        shown = [(section, table, json.loads(record)) async for section, table, record in data.export(ADA.names)]
    counts = {holding.table.name: len(ADA.names) if Kind.SUBJECT in holding.names.values() else 1 for holding in DECLARED[service]}
    for holding in DECLARED[service]:
        own = [record for _, table, record in shown if table == holding.table.name]
        assert len(own) == (counts[holding.table.name] if holding.section else 0)
        assert all(ADA.name in record[column] for record in own for column in holding.sealed)
        assert len([1 for _, table, _ in shown if table in {part.table.name for part in holding.parts}]) == len(own) * len(holding.parts)
    assert BOB.name not in json.dumps(shown)


async def test_purchases_go_with_their_person_where_the_shop_says_so(settings: Settings, keys: Keys) -> None:
    async with holder(settings, keys, "purchases", purchases_tables(VAULT, "delete")) as (database, data):
        await data.erase(ADA.names, PSEUDONYM)
        async with database.sessions() as session:
            tables: list[Table] = [part.table for part in purchases_tables(VAULT, "keep")[0].parts] + [
                purchases_tables(VAULT, "keep")[0].table
            ]
            counts = [await session.scalar(select(func.count()).select_from(table)) for table in tables]
        assert counts == [len(BOB.names)] * len(tables)


async def test_a_persons_dead_letters_are_emptied_and_stay_in_the_books(settings: Settings, keys: Keys) -> None:
    async with holder(settings, keys, "ingestion") as (database, data):
        letters: list[tuple[Delivery, str]] = []
        for number, person in enumerate((ADA, BOB)):
            event = event_pb2.ReceivedEvent(event=event_pb2.Event(id=f"e{number}", user_id=str(person.number)))
            record = log_pb2.Record(type=event.DESCRIPTOR.full_name, payload=event.SerializeToString())
            letters.append((Delivery("intake", 0, Offset(number, 0), 0, 1, record), "because"))
        async with database.sessions.begin() as session:
            await dead_letters.add(session, letters)
        assert (await data.count(ADA.names))["dead_letters"] == 1
        assert (await data.erase(ADA.names, PSEUDONYM))["dead_letters"] == 1
        async with database.sessions() as session:
            found = await dead_letters.find(session)
        assert [(letter.state, bool(letter.record.payload)) for letter in found] == [("dropped", False), ("dead", True)]


async def test_a_name_in_somebody_elses_row_is_taken_out_of_it(settings: Settings, keys: Keys) -> None:
    async with holder(settings, keys, "ingestion") as (database, data):
        table = INGESTION[0].table
        row = {**BOB.row(INGESTION[0], ""), "id": "shared", "session_id": f"{ADA.name}-visit"}
        async with database.sessions.begin() as session:
            await session.execute(insert(table), row)
        await data.erase(ADA.names, PSEUDONYM)
        async with database.sessions() as session:
            kept = (await session.execute(select(table).where(table.c.id == "shared"))).mappings().one()
        assert (kept["user_id"], kept["session_id"]) == (f"{BOB.name}-user", None)
