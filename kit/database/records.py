"""Rows as plain records: mapped objects cost a transaction of several hundred rows more than all else in it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from operator import attrgetter
from typing import Any, Final, Generic, TypeVar, cast

from sqlalchemy import Select, Table, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase

_Record = TypeVar("_Record")
_Values = Mapping[str, Any]

_KEY: Final = "key_of_row"
"""Parameter of an update; no column has this name."""


class RecordTable(Generic[_Record]):
    """A table, and the record of its rows.

    Args:
        entity: the mapped class of the table.
        record: a dataclass whose fields are the entity's attributes; one that a writer watches has its primary key as `id`.
    """

    def __init__(self, entity: type[DeclarativeBase], record: type[_Record]) -> None:
        self.table = cast("Table", entity.__table__)
        names = [field.name for field in fields(cast("Any", record))]
        column_of = {name: getattr(entity, name).property.columns[0] for name in names}
        written = [name for name in names if column_of[name].autoincrement is not True]
        self.query = cast("Select[Any]", select(*(getattr(entity, name) for name in names)))
        """Selects rows that `read` makes records of."""
        self._record = record
        self._columns = [column_of[name].name for name in written]
        self._fields = attrgetter(*written)

    async def read(self, session: AsyncSession, query: Select[Any]) -> Sequence[_Record]:
        """The records of the rows that a query finds."""
        return [self._record(*row) for row in await session.execute(query)]

    def values(self, record: _Record) -> _Values:
        """The values of a record by column, without a key that the database assigns."""
        return dict(zip(self._columns, self._fields(record), strict=True))


class RecordWriter:
    """Writes new rows, and changed records of rows that were read, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session
        self._new: dict[Table, list[_Values]] = defaultdict(list)
        self._read: dict[Any, tuple[RecordTable[Any], Any, _Values]] = {}

    def watch(self, table: RecordTable[_Record], records: Iterable[_Record]) -> None:
        """Takes records as they were read: `flush` writes the columns that change afterwards. Their rows have to be locked."""
        for record in records:
            self._read[cast("Any", record).id] = table, record, table.values(record)

    def knows(self, key: str) -> bool:
        """True if the record with this id was read."""
        return key in self._read

    def insert(self, table: Table, rows: Iterable[_Values]) -> None:
        """Adds new rows."""
        self._new[table] += rows

    async def flush(self) -> None:
        """Writes what changed and what is new: new rows in one statement for each table."""
        changes: dict[tuple[Table, tuple[str, ...]], list[_Values]] = defaultdict(list)
        for key, (table, record, before) in self._read.items():
            changed = {name: value for name, value in table.values(record).items() if value != before[name]}
            if changed:
                changes[table.table, tuple(changed)].append({_KEY: key, **changed})
        for (table, _), rows in changes.items():
            await self._session.execute(update(table).where(table.c.id == bindparam(_KEY)), rows)
        for table, rows in self._new.items():
            if rows:
                await self._session.execute(insert(table), rows)
        self._new.clear()
