"""Exports and erases the rows of a person from the personal tables that a service declares."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

import orjson
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
from kit.people.identifiers import identifiers_in_payload
from kit.people.keys.seals import Decryptor
from kit.people.keys.store import Keys
from kit.people.subjects.personal_tables import SHARED, After, IdentifierKind, Part, PersonalTable, Row

_AT_ONCE: Final = 500


class SubjectData:
    """Exports and erases the personal data in the database of one service.

    Args:
        topic: The topic that the service publishes, if any; it reflects the erasure of rows.
        tables: The service's own personal tables; those of the kit are added.
        after: Callbacks that run in the transaction that erased rows, by table.
    """

    def __init__(
        self,
        database: Database,
        keys: Keys,
        topic: StateTopic | None,
        tables: Sequence[PersonalTable],
        after: Mapping[str, After] | None = None,
    ) -> None:
        self._sessions = database.sessions
        self._keys = keys
        self._topic = topic
        self.tables = tables
        """The service's own personal tables."""
        self._tables = (*tables, *SHARED)
        self._after = after or {}

    async def export(self, identifiers: Sequence[str], sections: Collection[str] = ()) -> AsyncIterator[tuple[str, str, bytes]]:
        """Yields section, table and JSON of each row, table by table; only of these sections, if any are given."""
        for declared in self._tables:
            if not declared.section or (sections and declared.section not in sections):
                continue
            table, owned = declared.table, _owned(declared, identifiers)
            shown = [column for column in table.columns if column.name not in declared.internal]
            async with self._sessions.reading() as session:
                rows = await session.stream(select(*shown).where(owned).execution_options(yield_per=_AT_ONCE))
                async for some in rows.mappings().partitions():
                    decryptor = await self._keys.decryptor(row[name] for row in some for name in declared.sealed)
                    for row in some:
                        yield declared.section, table.name, _json(declared, row, decryptor)
            for part in declared.parts:
                async for row in self._part(part, select(*table.primary_key).where(owned)):
                    yield declared.section, part.table.name, row

    async def count(self, identifiers: Sequence[str]) -> Mapping[str, int]:
        """Returns how many rows an erasure would find, by table."""
        counts: dict[str, int] = {}
        if not identifiers:
            return counts
        async with self._sessions.reading() as session:
            for declared in self._tables:
                if declared.derived:
                    continue
                found = or_(_owned(declared, identifiers), _mentions(declared, identifiers))
                query = select(func.count()).select_from(declared.table).where(found)
                counts[declared.table.name] = await session.scalar(query) or 0
            counts[letters.name] = len(await self._letters(session, identifiers))
        return counts

    async def erase(self, identifiers: Sequence[str], pseudonym: str, task: str = "") -> Mapping[str, int]:
        """Erases a person's rows in batches, each in a transaction that also counts them for the task.

        Returns:
            The number of rows erased by this call, by table.
        """
        counts: dict[str, int] = {}
        for declared in self._tables:
            name = declared.table.name

            async def work(session: AsyncSession, declared: PersonalTable = declared) -> int:
                found = await self._erase(session, declared, identifiers, pseudonym)
                if not declared.derived:
                    await _count(session, task, declared.table, found)
                return found

            taken = 0
            while found := await transact(self._sessions, work, follows=True):
                taken += found
            if not declared.derived:
                counts[name] = taken

        async def drop(session: AsyncSession) -> int:
            found = await self._drop(session, identifiers)
            await _count(session, task, letters, found)
            return found

        counts[letters.name] = await transact(self._sessions, drop, follows=True)
        return counts

    async def erased(self, task: str) -> Mapping[str, int]:
        """Returns the number of rows erased for a task, by table. Each row counts once, also after crashes; without a task, none do."""
        if not task:
            return {}
        async with self._sessions.reading() as session:
            rows = await session.execute(
                select(erased_rows.c.table_name, erased_rows.c["count"].label("count_")).where(erased_rows.c.task == task)
            )
            return {row.table_name: row.count_ for row in rows}

    async def _erase(self, session: AsyncSession, declared: PersonalTable, identifiers: Sequence[str], pseudonym: str) -> int:
        if declared.erase is not None:
            return await declared.erase(session, identifiers, pseudonym)
        table = declared.table
        query = select(table).where(_owned(declared, identifiers)).order_by(*table.primary_key).limit(_AT_ONCE).with_for_update()
        rows: list[Row] = [dict(row) for row in (await session.execute(query)).mappings()]
        if not rows:
            return await _blank(session, declared, identifiers)
        ids = _ids(table, rows)
        for part in declared.parts:
            await _erase_part(session, part, ids, deletes_rows=declared.deletes_rows)
        if declared.deletes_rows:
            await session.execute(delete(table).where(among(table, rows)))
        else:
            rows = [{**row, **_emptied(declared, row, pseudonym)} for row in rows]
            # The rows exist: an upsert writes them in one statement, while each UPDATE would be a round trip.
            await upsert(session, table, rows, changing=(*declared.identifiers, *declared.personal))
        await self._publish(session, declared, rows)
        if table.name in self._after:
            await self._after[table.name](session, rows)
        return len(rows)

    async def _publish(self, session: AsyncSession, declared: PersonalTable, rows: Sequence[Row]) -> None:
        if self._topic is None or declared.publication is None:
            return
        changes = [change for row in rows if (change := declared.publication(row)) is not None]
        await self._topic.forget(session, [key for key, message in changes if message is None])
        await self._topic.publish(session, [(key, message) for key, message in changes if message is not None])

    async def _part(self, part: Part, ids: Select[Any]) -> AsyncIterator[bytes]:
        async with self._sessions.reading() as session:
            query = select(part.table).where(part.table.c[part.key].in_(ids))
            rows = await session.stream(query.execution_options(yield_per=_AT_ONCE))
            async for row in rows.mappings():
                yield _dumped(_readable(row))

    async def _letters(self, session: AsyncSession, identifiers: Sequence[str]) -> list[int]:
        """Returns the ids of dead letters that contain an identifier of the person."""
        found: list[int] = []
        last, wanted = 0, set(identifiers)
        while page := await dead_letters.find(session, after=last):
            last = page[-1].id
            found += [letter.id for letter in page if wanted & identifiers_in_payload(letter.record.type, letter.record.payload)]
        return found

    async def _drop(self, session: AsyncSession, identifiers: Sequence[str]) -> int:
        """Drops the person's dead letters: they still count in the books, and their content is deleted."""
        found = await self._letters(session, identifiers)
        if found:
            await session.execute(update(letters).where(letters.c.id.in_(found)).values(state=DROPPED, payload=b""))
        return len(found)


def _values(kind: IdentifierKind, identifiers: Iterable[str]) -> list[Any]:
    """Returns what a column of a kind holds for these identifiers."""
    if kind is IdentifierKind.SUBJECT:
        return sorted(identifiers)
    split = [identifier.partition(":")[::2] for identifier in identifiers]
    if kind is IdentifierKind.EMAIL_HASH:
        return [bytes.fromhex(value) for which, value in split if which == "email"]
    wanted = {"user", "wordpress"} if kind is IdentifierKind.USER_ID else {"session"}
    return sorted(value for which, value in split if which in wanted)


def _owned(declared: PersonalTable, identifiers: Sequence[str]) -> ColumnElement[bool]:
    """The condition for rows that are the person's."""
    owned: list[ColumnElement[bool]] = []
    stronger: list[ColumnElement[bool]] = []
    for name, kind in declared.identifiers.items():
        column, values = declared.table.c[name], _values(kind, identifiers)
        if values:
            owned.append(and_(column.in_(values), *stronger))
        if not declared.any_identifier:
            stronger.append(column.is_(None))
    return or_(*owned) if owned else false()


def _mentions(declared: PersonalTable, identifiers: Sequence[str]) -> ColumnElement[bool]:
    """The condition for rows with a weaker identifier of the person: those of others who used the same browser."""
    weaker = [declared.table.c[name].in_(values) for name, kind in _weaker(declared) if (values := _values(kind, identifiers))]
    return or_(*weaker) if weaker else false()


def _weaker(declared: PersonalTable) -> list[tuple[str, IdentifierKind]]:
    return [] if declared.any_identifier else list(declared.identifiers.items())[1:]


async def _blank(session: AsyncSession, declared: PersonalTable, identifiers: Sequence[str]) -> int:
    """Removes the person's identifiers from rows of others; returns the number of rows changed."""
    count = 0
    for name, kind in _weaker(declared):
        column, values = declared.table.c[name], _values(kind, identifiers)
        if values:
            count += await rowcount(session, update(declared.table).where(column.in_(values)).values({name: None}))
    return count


async def _erase_part(session: AsyncSession, part: Part, ids: Sequence[Any], *, deletes_rows: bool) -> None:
    own = part.table.c[part.key].in_(ids)
    if deletes_rows:
        await session.execute(delete(part.table).where(own))
    elif part.personal:
        rows: list[Row] = [dict(row) for row in (await session.execute(select(part.table).where(own))).mappings()]
        emptied = [{**row, **{name: becomes(row) for name, becomes in part.personal.items()}} for row in rows]
        await upsert(session, part.table, emptied, changing=tuple(part.personal))


def _emptied(declared: PersonalTable, row: Row, pseudonym: str) -> dict[str, Any]:
    """Returns the columns about the person as an erasure leaves them."""
    identifiers = {name: pseudonym if kind is IdentifierKind.SUBJECT else None for name, kind in declared.identifiers.items()}
    return {**identifiers, **{name: becomes(row) for name, becomes in declared.personal.items()}}


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
    """The condition for exactly these rows of a table."""
    keys = list(table.primary_key)
    if len(keys) == 1:
        return keys[0].in_(_ids(table, rows))
    return tuple_(*keys).in_([tuple(row[key.name] for key in keys) for row in rows])


def _json(declared: PersonalTable, row: RowMapping, decryptor: Decryptor) -> bytes:
    opened = {name: decryptor.open(row[name], context=context) or None for name, context in declared.sealed.items()}
    return _dumped({**_readable(row), **opened, **{name: id_of(row[name]) for name in declared.keys}})


def _readable(row: RowMapping) -> dict[str, Any]:
    """Returns a row as its person may read it: without the mesh's own hashes and sealed values."""
    return {str(name): value for name, value in row.items() if not isinstance(value, bytes)}


def _dumped(record: Mapping[str, Any]) -> bytes:
    return orjson.dumps(record, default=_text)


def _text(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value:f}"
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError
