"""Shows and erases what a service holds of persons, as it has declared it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy import ColumnElement, RowMapping, Select, Table, and_, delete, false, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.engine import Database
from kit.database.transactions import rowcount, transact, upsert
from kit.idempotency import id_of
from kit.log.consume import dead_letters
from kit.log.consume.dead_letters import DROPPED
from kit.log.publish.state_topic import StateTopic
from kit.log.tables import dead_letters as letters
from kit.log.tables import erased_rows
from kit.people.keys.seals import Decryptor
from kit.people.keys.store import Keys
from kit.people.persons import subject_of
from kit.people.subjects.holdings import SHARED, After, Kind, Part, PersonalTable, Row

_AT_ONCE: Final = 500


class SubjectData:
    """Shows and erases what the database of one service holds of somebody.

    Args:
        topic: what the service publishes, where it is told of erased rows.
        holdings: the service's own; those of the kit's tables are added.
        after: what else follows from erased rows, by table.
    """

    def __init__(
        self,
        database: Database,
        keys: Keys,
        topic: StateTopic | None,
        holdings: Sequence[PersonalTable],
        after: Mapping[str, After] | None = None,
    ) -> None:
        self._sessions = database.sessions
        self._keys = keys
        self._topic = topic
        self.tables = holdings
        self._holdings = (*holdings, *SHARED)
        self._after = after or {}

    async def export(self, names: Sequence[str], sections: Collection[str] = ()) -> AsyncIterator[tuple[str, str, bytes]]:
        """Section, table and JSON of each row, table by table; of these sections alone where some are given."""
        for holding in self._holdings:
            if not holding.section or (sections and holding.section not in sections):
                continue
            table, owned = holding.table, _owned(holding, names)
            shown = [column for column in table.columns if column.name not in holding.internal]
            async with self._sessions.reading() as session:
                rows = await session.stream(select(*shown).where(owned).execution_options(yield_per=_AT_ONCE))
                async for some in rows.mappings().partitions():
                    decryptor = await self._keys.decryptor(row[name] for row in some for name in holding.sealed)
                    for row in some:
                        yield holding.section, table.name, _json(holding, row, decryptor)
            for part in holding.parts:
                async for row in self._part(part, select(*table.primary_key).where(owned)):
                    yield holding.section, part.table.name, row

    async def count(self, names: Sequence[str]) -> Mapping[str, int]:
        """How many rows an erasure would find, by table."""
        counts: dict[str, int] = {}
        if not names:
            return counts
        async with self._sessions.reading() as session:
            for holding in self._holdings:
                if holding.derived:
                    continue
                query = select(func.count()).select_from(holding.table).where(or_(_owned(holding, names), _mentions(holding, names)))
                counts[holding.table.name] = await session.scalar(query) or 0
            counts[letters.name] = len(await self._letters(session, names))
        return counts

    async def erase(self, names: Sequence[str], pseudonym: str, task: str = "") -> Mapping[str, int]:
        """Erases in portions, each in a transaction of its own, and counts them under the task; says how many rows by table."""
        counts: dict[str, int] = {}
        for holding in self._holdings:
            name = holding.table.name

            async def work(session: AsyncSession, holding: PersonalTable = holding) -> int:
                found = await self._erase(session, holding, names, pseudonym)
                if not holding.derived:
                    await _count(session, task, holding.table, found)
                return found

            taken = 0
            while found := await transact(self._sessions, work, follows=True):
                taken += found
            if not holding.derived:
                counts[name] = taken

        async def drop(session: AsyncSession) -> int:
            found = await self._drop(session, names)
            await _count(session, task, letters, found)
            return found

        counts[letters.name] = await transact(self._sessions, drop, follows=True)
        return counts

    async def erased(self, task: str) -> Mapping[str, int]:
        """How many rows went under a task, by table: each once, whatever died on the way. None under no task."""
        if not task:
            return {}
        async with self._sessions.reading() as session:
            rows = await session.execute(
                select(erased_rows.c.table_name, erased_rows.c["count"].label("count_")).where(erased_rows.c.task == task)
            )
            return {row.table_name: row.count_ for row in rows}

    async def _erase(self, session: AsyncSession, holding: PersonalTable, names: Sequence[str], pseudonym: str) -> int:
        if holding.erase is not None:
            return await holding.erase(session, names, pseudonym)
        table = holding.table
        query = select(table).where(_owned(holding, names)).order_by(*table.primary_key).limit(_AT_ONCE).with_for_update()
        rows: list[Row] = [dict(row) for row in (await session.execute(query)).mappings()]
        if not rows:
            return await _blank(session, holding, names)
        ids = _ids(table, rows)
        for part in holding.parts:
            await _erase_part(session, part, ids, deletes_rows=holding.deletes_rows)
        if holding.deletes_rows:
            await session.execute(delete(table).where(among(table, rows)))
        else:
            rows = [{**row, **_emptied(holding, row, pseudonym)} for row in rows]
            # The rows are there: so written they all go in one statement, while each UPDATE is a round trip.
            await upsert(session, table, rows, changing=(*holding.names, *holding.personal))
        await self._tell(session, holding, rows)
        if table.name in self._after:
            await self._after[table.name](session, rows)
        return len(rows)

    async def _tell(self, session: AsyncSession, holding: PersonalTable, rows: Sequence[Row]) -> None:
        if self._topic is None or holding.told is None:
            return
        told = [tell for row in rows if (tell := holding.told(row)) is not None]
        await self._topic.forget(session, [key for key, message in told if message is None])
        await self._topic.publish(session, [(key, message) for key, message in told if message is not None])

    async def _part(self, part: Part, ids: Select[Any]) -> AsyncIterator[bytes]:
        async with self._sessions.reading() as session:
            query = select(part.table).where(part.table.c[part.key].in_(ids))
            rows = await session.stream(query.execution_options(yield_per=_AT_ONCE))
            async for row in rows.mappings():
                yield _dumped(_readable(row))

    async def _letters(self, session: AsyncSession, names: Sequence[str]) -> list[int]:
        """Messages that were set aside and name the person."""
        found: list[int] = []
        last, wanted = 0, set(names)
        while page := await dead_letters.find(session, after=last):
            last = page[-1].id
            found += [
                letter.id for letter in page if letter.record.payload and wanted & names_in(letter.record.type, letter.record.payload)
            ]
        return found

    async def _drop(self, session: AsyncSession, names: Sequence[str]) -> int:
        """Such messages are given up: they stay in the books, and nothing of them is left."""
        found = await self._letters(session, names)
        if found:
            await session.execute(update(letters).where(letters.c.id.in_(found)).values(state=DROPPED, payload=b""))
        return len(found)


def names_in(kind: str, payload: bytes) -> set[str]:
    """The names of persons in a message of the log, by the words that all contracts use for them."""
    try:
        message = GetMessageClass(Default().FindMessageTypeByName(kind)).FromString(payload)
    except (KeyError, DecodeError):
        return set()
    return set(_names_in(message))


def _names_in(message: Message) -> Iterable[str]:
    for descriptor, value in message.ListFields():
        if descriptor.name in {"user_id", "merged_user_id"}:
            yield from (subject_of(user_id=value), f"user:{value}")
        elif descriptor.name in {"session_id", "email_hash"}:
            yield subject_of(**{descriptor.name: value})
        elif descriptor.name == "subject":
            yield value
        elif isinstance(value, Message):
            yield from _names_in(value)


def _values(kind: Kind, names: Iterable[str]) -> list[Any]:
    """What a column of a kind holds for names."""
    if kind is Kind.SUBJECT:
        return sorted(names)
    split = [name.partition(":")[::2] for name in names]
    if kind is Kind.EMAIL:
        return [bytes.fromhex(value) for which, value in split if which == "email"]
    wanted = {"user", "wordpress"} if kind is Kind.USER else {"session"}
    return sorted(value for which, value in split if which in wanted)


def _owned(holding: PersonalTable, names: Sequence[str]) -> ColumnElement[bool]:
    """Says of rows whether they are the person's."""
    owned: list[ColumnElement[bool]] = []
    stronger: list[ColumnElement[bool]] = []
    for name, kind in holding.names.items():
        column, values = holding.table.c[name], _values(kind, names)
        if values:
            owned.append(and_(column.in_(values), *stronger))
        if not holding.any_identifier:
            stronger.append(column.is_(None))
    return or_(*owned) if owned else false()


def _mentions(holding: PersonalTable, names: Sequence[str]) -> ColumnElement[bool]:
    """Says of rows whether a weaker name of the person stands in them: somebody else's, in a browser that both used."""
    weaker = [holding.table.c[name].in_(values) for name, kind in _weaker(holding) if (values := _values(kind, names))]
    return or_(*weaker) if weaker else false()


def _weaker(holding: PersonalTable) -> list[tuple[str, Kind]]:
    return [] if holding.any_identifier else list(holding.names.items())[1:]


async def _blank(session: AsyncSession, holding: PersonalTable, names: Sequence[str]) -> int:
    """Takes the person's names out of rows that are somebody else's."""
    count = 0
    for name, kind in _weaker(holding):
        column, values = holding.table.c[name], _values(kind, names)
        if values:
            count += await rowcount(session, update(holding.table).where(column.in_(values)).values({name: None}))
    return count


async def _erase_part(session: AsyncSession, part: Part, ids: Sequence[Any], *, deletes_rows: bool) -> None:
    own = part.table.c[part.key].in_(ids)
    if deletes_rows:
        await session.execute(delete(part.table).where(own))
    elif part.personal:
        rows: list[Row] = [dict(row) for row in (await session.execute(select(part.table).where(own))).mappings()]
        emptied = [{**row, **{name: becomes(row) for name, becomes in part.personal.items()}} for row in rows]
        await upsert(session, part.table, emptied, changing=tuple(part.personal))


def _emptied(holding: PersonalTable, row: Row, pseudonym: str) -> dict[str, Any]:
    """The columns that lead to the person, as they are to be."""
    names = {name: pseudonym if kind is Kind.SUBJECT else None for name, kind in holding.names.items()}
    return {**names, **{name: becomes(row) for name, becomes in holding.personal.items()}}


async def _count(session: AsyncSession, task: str, table: Table, rows: int) -> None:
    if not (task and rows):
        return
    own = (erased_rows.c.task == task, erased_rows.c.table_name == table.name)
    if not await rowcount(session, update(erased_rows).where(*own).values(count=erased_rows.c["count"] + rows)):
        await session.execute(insert(erased_rows).values(task=task, table_name=table.name, count=rows))


def _ids(table: Table, rows: Iterable[Row] | Sequence[RowMapping]) -> list[Any]:
    (key, *_) = table.primary_key
    return [row[key.name] for row in rows]


def among(table: Table, rows: Sequence[Row]) -> ColumnElement[bool]:
    """Says of rows of a table whether they are these."""
    keys = list(table.primary_key)
    if len(keys) == 1:
        return keys[0].in_(_ids(table, rows))
    return tuple_(*keys).in_([tuple(row[key.name] for key in keys) for row in rows])


def _json(holding: PersonalTable, row: RowMapping, decryptor: Decryptor) -> bytes:
    opened = {name: decryptor.open(row[name], context=context) or None for name, context in holding.sealed.items()}
    return _dumped({**_readable(row), **opened, **{name: id_of(row[name]) for name in holding.keys}})


def _readable(row: RowMapping) -> dict[str, Any]:
    """A row as its person may read it: the mesh's own hashes and what is sealed are left out."""
    return {str(name): value for name, value in row.items() if not isinstance(value, bytes)}


def _dumped(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, default=_text)


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError
