"""Topics of states: the newest message of each key is all there is to know of it, so these messages are the topic's history."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final

from google.protobuf.message import Message
from pmp.log.v1 import log_pb2 as pb
from sqlalchemy import delete, func, select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, upsert
from kit.log.publish.outbox import Outbox
from kit.log.streams import partition_of
from kit.log.tables import topic_state
from kit.telemetry.tracing import traceparent

_HISTORY_ROWS: Final = 500


class StateTopic(Outbox):
    """A topic whose messages each hold the whole state of their key.

    A key's messages share one partition, and are read in order. Those of two keys are not: what a reader makes of several keys
    must not depend on which came first.
    """

    def __init__(self, topic: str, partitions: int) -> None:
        super().__init__(topic)
        self._partitions = partitions

    async def publish(self, session: AsyncSession, changes: Sequence[tuple[str, Message]]) -> None:
        """Writes messages under their keys into the caller's transaction. Best done last: offsets stay locked until it ends."""
        by_partition: dict[int, list[tuple[str, Message]]] = defaultdict(list)
        for key, message in changes:
            by_partition[partition_of(key, self._partitions)].append((key, message))
        if not by_partition:
            return
        trace = traceparent()
        records = {
            partition: [pb.Record(type=m.DESCRIPTOR.full_name, payload=m.SerializeToString(), traceparent=trace) for _, m in keyed]
            for partition, keyed in by_partition.items()
        }
        rows: dict[str, dict[str, Any]] = {}
        for partition, offsets in (await self.add_to_partitions(session, records)).items():
            for ordinal, ((key, _), offset) in enumerate(zip(by_partition[partition], offsets, strict=True)):
                found = {"partition": partition, "position": offset, "ordinal": ordinal}
                rows[key] = {"topic": self.topic, "key": key, **found, "payload": records[partition][ordinal].payload}
        await upsert(session, topic_state, [rows[key] for key in sorted(rows)])

    async def newest_offsets(self, session: AsyncSession, keys: Iterable[str]) -> Mapping[int, int]:
        """Returns the offsets, by partition, up to which the newest messages of these keys reach."""
        own = (topic_state.c.topic == self.topic, topic_state.c.key.in_(sorted(keys)))
        query = select(topic_state.c.partition, func.max(topic_state.c.position).label("last")).where(*own)
        return {row.partition: row.last for row in await session.execute(query.group_by(topic_state.c.partition))}

    async def forget(self, session: AsyncSession, keys: Iterable[str]) -> None:
        """Deletes keys from the history, in the caller's transaction: a consumer that starts there never reads them."""
        await session.execute(delete(topic_state).where(topic_state.c.topic == self.topic, topic_state.c.key.in_(sorted(keys))))

    async def history(self, sessions: Sessions, partition: int, after: int) -> AsyncIterator[tuple[int, Sequence[bytes]]]:
        """Streams the newest message of each key that was published after an offset: by offset, and in the order of publishing."""
        own = (topic_state.c.topic == self.topic, topic_state.c.partition == partition)
        order = (topic_state.c.position, topic_state.c.ordinal)
        while True:
            async with sessions.reading() as session:
                ends = select(topic_state.c.position).where(*own, topic_state.c.position > after).order_by(*order).limit(_HISTORY_ROWS)
                last = await session.scalar(select(func.max(ends.subquery().c.position)))
                if last is None:
                    return
                query = select(topic_state.c.position, topic_state.c.payload).where(*own, topic_state.c.position.between(after + 1, last))
                rows = (await session.execute(query.order_by(*order))).all()
            for offset, group in groupby(rows, key=lambda row: row.position):
                yield offset, [row.payload for row in group]
            after = last
