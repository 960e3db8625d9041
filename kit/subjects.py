"""What a service holds of persons, declared once: what is exported, what an erasure leaves, and what is documented follow from it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from decimal import Decimal
from enum import Enum
from typing import Any, Final, TypeAlias, cast

import orjson
from google.protobuf.descriptor_pool import Default
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass
from pmp.privacy.v1 import privacy_pb2 as pb
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceServicer
from sqlalchemy import ColumnElement, RowMapping, Select, Table, and_, delete, false, func, insert, or_, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import DeclarativeBase
from typing_extensions import override

from kit.database import READING, Database, changed, transact, upsert
from kit.interceptors import Context, bind_facts
from kit.keys.seals import Opener
from kit.keys.store import Keys
from kit.log import dead_letters
from kit.log.dead_letters import DROPPED
from kit.log.redis_log import RedisLog
from kit.log.streams import Position
from kit.log.tables import books, erased_rows, offsets, outbox_heads
from kit.log.tables import dead_letters as letters
from kit.outbox import Outbox, StateTopic
from kit.persons import aliases, persons, subject_of, users
from kit.privacy import person_consents
from kit.rules import without_query

_AT_ONCE: Final = 500
_RAW: Final = select(books.c.topic).distinct()
"""Topics of which the service keeps books: raw logs, which have no history to fall back on."""


class Kind(Enum):
    """How a column says whose a row is."""

    SUBJECT = "subject"
    """A name with its kind."""
    USER = "user"
    """A user's id as it was told."""
    EMAIL = "email"
    """The keyed hash of an address."""
    SESSION = "session"
    """A visit's id."""


Entity: TypeAlias = Table | type[DeclarativeBase]
"""A table, or its model."""
Row: TypeAlias = Mapping[str, Any]
Becomes: TypeAlias = Callable[[Row], Any]
"""What a column of an erased row becomes."""
Tell: TypeAlias = Callable[[Row], tuple[str, Message | None] | None]
"""What the service's topic has to tell of an erased row: its key and a message, or none to forget the key; None where it tells nothing."""
After: TypeAlias = Callable[[AsyncSession, Sequence[Row]], Awaitable[None]]
"""Does in the same transaction what follows from rows having been erased. They are given as they are now, or were when they are gone."""
Custom: TypeAlias = Callable[[AsyncSession, Sequence[str], str], Awaitable[int]]
"""Erases names, for which the pseudonym stands, from a table in a way of its own; says how many rows that were."""


def nothing(*columns: str) -> dict[str, Becomes]:
    """Columns of which nothing is left."""
    return dict.fromkeys(columns, lambda _row: None)


def pages(*columns: str) -> dict[str, Becomes]:
    """Addresses of which query and fragment go."""

    def page(column: str) -> Becomes:
        return lambda row: without_query(row[column]) if row[column] else None

    return {column: page(column) for column in columns}


@dataclass(frozen=True, slots=True)
class Part:
    """A table whose rows belong to rows of another."""

    entity: Entity
    key: str
    """The column that names them."""
    personal: Mapping[str, Becomes] = field(default_factory=dict[str, Becomes])

    @property
    def table(self) -> Table:
        """The table."""
        return _table(self.entity)


@dataclass(frozen=True, slots=True)
class Ages:
    """How the rows of a table grow old."""

    column: str
    """The time that says how old a row is."""
    by: str = ""
    """A column in whose order they do so, where there is no index of the time."""


@dataclass(frozen=True, slots=True)
class Holding:
    """A table that holds something of persons."""

    entity: Entity
    section: str
    """The part of an export that its rows belong to; empty for what only tells who is who, and is not shown."""
    why: str
    """What it is kept for."""
    kept: str
    """How long."""
    names: Mapping[str, Kind]
    """The columns that lead to a person, the strongest first: the first that is filled decides whose a row is."""
    personal: Mapping[str, Becomes] = field(default_factory=dict[str, Becomes])
    """Further columns about the person, and what an erasure makes of them."""
    sealed: Mapping[str, str] = field(default_factory=dict[str, str])
    """Columns that are sealed, and in which context."""
    internal: Collection[str] = ()
    """Columns of the mesh's own bookkeeping, which are not shown."""
    goes: bool = False
    """An erased row is deleted; else it stays without the person."""
    each_name: bool = False
    """Every one of the names makes a row the person's: it tells of both."""
    parts: Sequence[Part] = ()
    told: Tell | None = None
    erase: Custom | None = None
    """Where rows can't be erased one by one."""
    ages: Ages | None = None
    """Where rows may be deleted once they are too old."""

    @property
    def table(self) -> Table:
        """The table."""
        return _table(self.entity)


_WHO: Final = "who is who, so that visits and orders find their person"
LONG: Final = "until the person is erased"
"""How long most is kept."""
SET: Final = f"{LONG}, or as long as `PMP_SITE_RETENTION_TABLES` says"
"""How long what grows old is kept."""

SHARED: Final = (
    Holding(persons, "", _WHO, LONG, {"subject": Kind.SUBJECT, "person_id": Kind.USER}, goes=True, each_name=True),
    Holding(aliases, "", _WHO, LONG, {"subject": Kind.SUBJECT, "user_id": Kind.USER}, goes=True, each_name=True),
    Holding(users, "", _WHO, LONG, {"user_id": Kind.USER, "merged_into": Kind.USER}, goes=True, each_name=True),
    Holding(
        person_consents,
        "",
        "what the person allows, checked when something is stored",
        LONG,
        {"subject": Kind.SUBJECT},
        nothing(*(column.name for column in person_consents.c if column.name != "subject")),
        goes=True,
    ),
)
"""What every service keeps of persons beside its own tables."""


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
        holdings: Sequence[Holding],
        after: Mapping[str, After] | None = None,
    ) -> None:
        self._sessions = database.sessions
        self._keys = keys
        self._topic = topic
        self._holdings = (*holdings, *SHARED)
        self._after = after or {}

    async def export(self, names: Sequence[str], sections: Collection[str] = ()) -> AsyncIterator[tuple[str, str, bytes]]:
        """Section, table and JSON of each row, table by table; of these sections alone where some are given."""
        for holding in self._holdings:
            if not holding.section or (sections and holding.section not in sections):
                continue
            table, owned = holding.table, _owned(holding, names)
            shown = [column for column in table.columns if column.name not in holding.internal]
            async with self._sessions() as session:
                await session.connection(execution_options=READING)
                rows = await session.stream(select(*shown).where(owned).execution_options(yield_per=_AT_ONCE))
                async for some in rows.mappings().partitions():
                    opener = await self._keys.opener(row[name] for row in some for name in holding.sealed)
                    for row in some:
                        yield holding.section, table.name, _json(holding, row, opener)
            for part in holding.parts:
                async for row in self._part(part, select(*table.primary_key).where(owned)):
                    yield holding.section, part.table.name, row

    async def count(self, names: Sequence[str]) -> Mapping[str, int]:
        """How many rows an erasure would find, by table."""
        counts: dict[str, int] = {}
        if not names:
            return counts
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            for holding in self._holdings:
                query = select(func.count()).select_from(holding.table).where(or_(_owned(holding, names), _mentions(holding, names)))
                counts[holding.table.name] = await session.scalar(query) or 0
            counts[letters.name] = len(await self._letters(session, names))
        return counts

    async def erase(self, names: Sequence[str], pseudonym: str, task: str = "") -> Mapping[str, int]:
        """Erases in portions, each in a transaction of its own, and counts them under the task; says how many rows by table."""
        counts: dict[str, int] = {}
        for holding in self._holdings:
            name = holding.table.name

            async def work(session: AsyncSession, holding: Holding = holding) -> int:
                found = await self._erase(session, holding, names, pseudonym)
                await _count(session, task, holding.table, found)
                return found

            counts[name] = 0
            while found := await transact(self._sessions, work):
                counts[name] += found

        async def drop(session: AsyncSession) -> int:
            found = await self._drop(session, names)
            await _count(session, task, letters, found)
            return found

        counts[letters.name] = await transact(self._sessions, drop)
        return counts

    async def erased(self, task: str) -> Mapping[str, int]:
        """How many rows went under a task, by table: each once, whatever died on the way."""
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            rows = await session.execute(
                select(erased_rows.c.table_name, erased_rows.c["count"].label("count_")).where(erased_rows.c.task == task)
            )
            return {row.table_name: row.count_ for row in rows}

    async def _erase(self, session: AsyncSession, holding: Holding, names: Sequence[str], pseudonym: str) -> int:
        if holding.erase is not None:
            return await holding.erase(session, names, pseudonym)
        table = holding.table
        query = select(table).where(_owned(holding, names)).order_by(*table.primary_key).limit(_AT_ONCE).with_for_update()
        rows: list[Row] = [dict(row) for row in (await session.execute(query)).mappings()]
        if not rows:
            return await _blank(session, holding, names)
        ids = _ids(table, rows)
        for part in holding.parts:
            await _erase_part(session, part, ids, goes=holding.goes)
        if holding.goes:
            await session.execute(delete(table).where(among(table, rows)))
        else:
            rows = [{**row, **_emptied(holding, row, pseudonym)} for row in rows]
            # The rows are there: so written they all go in one statement, while each UPDATE is a round trip.
            await upsert(session, table, rows, changing=(*holding.names, *holding.personal))
        await self._tell(session, holding, rows)
        if table.name in self._after:
            await self._after[table.name](session, rows)
        return len(rows)

    async def _tell(self, session: AsyncSession, holding: Holding, rows: Sequence[Row]) -> None:
        if self._topic is None or holding.told is None:
            return
        told = [tell for row in rows if (tell := holding.told(row)) is not None]
        await self._topic.forget(session, [key for key, message in told if message is None])
        await self._topic.tell(session, [(key, message) for key, message in told if message is not None])

    async def _part(self, part: Part, ids: Select[Any]) -> AsyncIterator[bytes]:
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
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


class SubjectDataServicer(SubjectDataServiceServicer):
    """The rpcs of `SubjectData`, and the service's part of the log.

    Args:
        outbox: that of the topic the service publishes.
    """

    def __init__(self, data: SubjectData, database: Database, log: RedisLog, outbox: Outbox) -> None:
        self._data = data
        self._database = database
        self._log = log
        self._outbox = outbox

    @override
    async def Export(self, request: pb.ExportRequest, context: Context) -> AsyncIterator[pb.ExportResponse]:
        async for section, table, record in self._data.export(request.names, request.sections):
            yield pb.ExportResponse(section=section, table=table, record=record.decode())

    @override
    async def Erase(self, request: pb.EraseRequest, context: Context) -> pb.EraseResponse:
        # Looked at first: what was read by then is erased as well.
        read, left = await self._read(), 0
        if request.dry_run:
            counts = await self._data.count(request.names)
        else:
            counts = await self._data.erase(request.names, request.pseudonym, request.task)
            self._outbox.wake()
            left = await self._purge(request.purge_through)
        written = await self._written()
        bind_facts(rows=sum(counts.values()), entries_left=left)
        total = await self._data.erased(request.task)
        return pb.EraseResponse(tables=_counts(counts), total=_counts(total), read=read, written=written, entries_left=left)

    async def _read(self) -> list[pb.Place]:
        async with self._database.sessions() as session:
            await session.connection(execution_options=READING)
            rows = await session.execute(select(offsets))
            return [pb.Place(topic=row.topic, partition=row.partition, position=row.position) for row in rows]

    async def _written(self) -> list[pb.Place]:
        async with self._database.sessions() as session:
            await session.connection(execution_options=READING)
            heads = select(outbox_heads).where(outbox_heads.c.topic == self._outbox.topic, outbox_heads.c.position > 0)
            rows = (await session.execute(heads)).all()
            raw = (await session.execute(select(offsets.c.topic, offsets.c.partition).where(offsets.c.topic.in_(_RAW)))).all()
        own = [pb.Place(topic=row.topic, partition=row.partition, position=str(Position(row.position, 0))) for row in rows]
        received = [(row.topic, row.partition, await self._log.newest(row.topic, row.partition)) for row in raw]
        return own + [pb.Place(topic=topic, partition=partition, position=str(head)) for topic, partition, head in received]

    async def _purge(self, places: Iterable[pb.Place]) -> int:
        """Takes entries up to these places out of what the service published, and of the raw log it has read."""
        sessions, left = self._database.sessions, 0
        async with sessions() as session:
            await session.connection(execution_options=READING)
            raw = set(await session.scalars(_RAW))
            read = {(row.topic, row.partition): Position.parse(row.position) for row in await session.execute(select(offsets))}
        asked = False
        for place in places:
            asked, through = True, Position.parse(place.position)
            if place.topic == self._outbox.topic:
                left += await self._outbox.purge(sessions, self._log, place.partition, through.ms)
            elif place.topic in raw:
                behind = read.get((place.topic, place.partition), Position(0, 0))
                await self._log.trim(place.topic, place.partition, min(through, behind))
                left += behind < through
        return left if left or not asked else int(not await self._database.scrub())


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


def _table(entity: Entity) -> Table:
    return entity if isinstance(entity, Table) else cast("Table", entity.__table__)


def _values(kind: Kind, names: Iterable[str]) -> list[Any]:
    """What a column of a kind holds for names."""
    if kind is Kind.SUBJECT:
        return sorted(names)
    split = [name.partition(":")[::2] for name in names]
    if kind is Kind.EMAIL:
        return [bytes.fromhex(value) for which, value in split if which == "email"]
    wanted = {"user", "wordpress"} if kind is Kind.USER else {"session"}
    return sorted(value for which, value in split if which in wanted)


def _owned(holding: Holding, names: Sequence[str]) -> ColumnElement[bool]:
    """Says of rows whether they are the person's."""
    owned: list[ColumnElement[bool]] = []
    stronger: list[ColumnElement[bool]] = []
    for name, kind in holding.names.items():
        column, values = holding.table.c[name], _values(kind, names)
        if values:
            owned.append(and_(column.in_(values), *stronger))
        if not holding.each_name:
            stronger.append(column.is_(None))
    return or_(*owned) if owned else false()


def _mentions(holding: Holding, names: Sequence[str]) -> ColumnElement[bool]:
    """Says of rows whether a weaker name of the person stands in them: somebody else's, in a browser that both used."""
    weaker = [holding.table.c[name].in_(values) for name, kind in _weaker(holding) if (values := _values(kind, names))]
    return or_(*weaker) if weaker else false()


def _weaker(holding: Holding) -> list[tuple[str, Kind]]:
    return [] if holding.each_name else list(holding.names.items())[1:]


async def _blank(session: AsyncSession, holding: Holding, names: Sequence[str]) -> int:
    """Takes the person's names out of rows that are somebody else's."""
    count = 0
    for name, kind in _weaker(holding):
        column, values = holding.table.c[name], _values(kind, names)
        if values:
            count += await changed(session, update(holding.table).where(column.in_(values)).values({name: None}))
    return count


async def _erase_part(session: AsyncSession, part: Part, ids: Sequence[Any], *, goes: bool) -> None:
    own = part.table.c[part.key].in_(ids)
    if goes:
        await session.execute(delete(part.table).where(own))
    elif part.personal:
        await session.execute(update(part.table).where(own).values({name: becomes({}) for name, becomes in part.personal.items()}))


def _emptied(holding: Holding, row: Row, pseudonym: str) -> dict[str, Any]:
    """The columns that lead to the person, as they are to be."""
    names = {name: pseudonym if kind is Kind.SUBJECT else None for name, kind in holding.names.items()}
    return {**names, **{name: becomes(row) for name, becomes in holding.personal.items()}}


async def _count(session: AsyncSession, task: str, table: Table, rows: int) -> None:
    if not (task and rows):
        return
    own = (erased_rows.c.task == task, erased_rows.c.table_name == table.name)
    if not await changed(session, update(erased_rows).where(*own).values(count=erased_rows.c["count"] + rows)):
        await session.execute(insert(erased_rows).values(task=task, table_name=table.name, count=rows))


def _counts(counts: Mapping[str, int]) -> list[pb.TableCount]:
    return [pb.TableCount(table=name, rows=count) for name, count in counts.items() if count]


def _ids(table: Table, rows: Iterable[Row] | Sequence[RowMapping]) -> list[Any]:
    (key, *_) = table.primary_key
    return [row[key.name] for row in rows]


def among(table: Table, rows: Sequence[Row]) -> ColumnElement[bool]:
    """Says of rows of a table whether they are these."""
    keys = list(table.primary_key)
    if len(keys) == 1:
        return keys[0].in_(_ids(table, rows))
    return tuple_(*keys).in_([tuple(row[key.name] for key in keys) for row in rows])


def _json(holding: Holding, row: RowMapping, opener: Opener) -> bytes:
    opened = {name: opener.open(row[name], context=context) or None for name, context in holding.sealed.items()}
    return _dumped({**_readable(row), **opened})


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
