"""Serves export and erasure of personal data, and the purging of a service's part of the log."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable, Mapping, Sequence
from typing import Final

from pmp.privacy.v1 import privacy_pb2 as pb
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceServicer
from sqlalchemy import select
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.engine import Database
from kit.log.publish.outbox import Outbox, assigned
from kit.log.redis_log import RedisLog
from kit.log.streams import Offset
from kit.log.tables import books, offsets
from kit.people.subjects.data import SubjectData
from kit.people.subjects.personal_tables import PersonalTable

_RAW: Final = select(books.c.topic).distinct()
"""Topics that the service accounts for in books: raw logs, which can't be replayed from a history."""


class SubjectDataServicer(SubjectDataServiceServicer):
    """The rpcs of `SubjectData`, and of the service's part of the log.

    Args:
        outbox: The outbox of the topic that the service publishes, if any.
        follows: The topics that the service follows; by default those that it has followed, which are the same unless its settings
            decide.
    """

    def __init__(
        self, data: SubjectData, database: Database, log: RedisLog, outbox: Outbox | None, *, follows: Collection[str] | None = None
    ) -> None:
        self._follows = follows
        self._data = data
        self._database = database
        self._log = log
        self._outbox = outbox

    @property
    def tables(self) -> Sequence[PersonalTable]:
        """The service's own personal tables."""
        return self._data.tables

    @override
    async def Export(self, request: pb.ExportRequest, context: Context) -> AsyncIterator[pb.ExportResponse]:
        async for section, table, record in self._data.export(request.names, request.sections):
            yield pb.ExportResponse(section=section, table=table, record=record.decode())

    @override
    async def Erase(self, request: pb.EraseRequest, context: Context) -> pb.EraseResponse:
        # Read first: what was consumed up to these positions is in the tables, and so it is erased as well.
        read, left = await self._read(), 0
        if request.dry_run:
            counts = await self._data.count(request.names)
        else:
            counts = await self._data.erase(request.names, request.pseudonym, request.task)
            if self._outbox is not None:
                self._outbox.wake()
            left = await self._purge(request.purge_through, asked=request.purge)
        written = await self._written()
        bind_log_fields(rows=sum(counts.values()), entries_left=left)
        total = await self._data.erased(request.task)
        return pb.EraseResponse(tables=_counts(counts), total=_counts(total), read=read, written=written, entries_left=left)

    async def _read(self) -> list[pb.Place]:
        async with self._database.sessions.reading() as session:
            query = select(offsets)
            # Offsets of a topic that is not followed any more stay where they are: nobody must wait for them.
            rows = await session.execute(query if self._follows is None else query.where(offsets.c.topic.in_(sorted(self._follows))))
            return [pb.Place(topic=row.topic, partition=row.partition, position=row.position) for row in rows]

    async def _written(self) -> list[pb.Place]:
        async with self._database.sessions.reading() as session:
            own = [] if self._outbox is None else _ends(self._outbox.topic, await assigned(session, self._outbox.topic))
            raw = (await session.execute(select(offsets.c.topic, offsets.c.partition).where(offsets.c.topic.in_(_RAW)))).all()
        received = [(row.topic, row.partition, await self._log.newest(row.topic, row.partition)) for row in raw]
        return own + [pb.Place(topic=topic, partition=partition, position=str(head)) for topic, partition, head in received]

    async def _purge(self, places: Iterable[pb.Place], *, asked: bool) -> int:
        """Removes entries up to these positions from the service's topic and from the raw log, as far as it has consumed that.

        If it is asked to, or there are positions, it also removes what remains of deleted rows in the files of the database.

        Returns:
            The number of entries or partitions that still have to be purged.
        """
        sessions, left = self._database.sessions, 0
        async with sessions.reading() as session:
            raw = set(await session.scalars(_RAW))
            read = {(row.topic, row.partition): Offset.parse(row.position) for row in await session.execute(select(offsets))}
        for place in places:
            asked, through = True, Offset.parse(place.position)
            if self._outbox is not None and place.topic == self._outbox.topic:
                left += await self._outbox.purge(sessions, self._log, place.partition, through.ms)
            elif place.topic in raw:
                consumed = read.get((place.topic, place.partition), Offset(0, 0))
                await self._log.trim(place.topic, place.partition, min(through, consumed))
                left += consumed < through
        return left if left or not asked else int(not await self._database.scrub())


def _counts(counts: Mapping[str, int]) -> list[pb.TableCount]:
    return [pb.TableCount(table=name, rows=count) for name, count in counts.items() if count]


def _ends(topic: str, last: Mapping[int, int]) -> list[pb.Place]:
    """Returns the last offset of each partition of a topic that has any."""
    return [pb.Place(topic=topic, partition=partition, position=str(Offset(offset, 0))) for partition, offset in last.items() if offset]
