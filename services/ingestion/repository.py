"""All SQL of ingestion."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias, cast

from sqlalchemy import Table, bindparam, delete, func, insert, select, tuple_, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks, upsert
from kit.log.intake import account
from services.ingestion.models import EventRow, ProcessingRow, ReceiptRow

Delivery: TypeAlias = tuple[str, datetime]
"""The id of an event, and when it was received: sending it again is another delivery."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_RECEIPTS: Final = cast("Table", ReceiptRow.__table__)

# Building a statement takes longer than executing it.
_KNOWN: Final = select(EventRow.key, EventRow.content_hash).where(EventRow.key.in_(bindparam("keys", expanding=True)))
_ADD: Final = insert(cast("Table", EventRow.__table__))
_LOG: Final = insert(cast("Table", ProcessingRow.__table__))

_AS_RECEIVED: Final = frozenset({"id", "content_hash", "received_at", "created_at"})


class Events:
    """The event store within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def known(self, keys: Collection[str]) -> Mapping[str, bytes]:
        """Returns the content hashes of those keys that are stored."""
        rows = await self._session.execute(_KNOWN, {"keys": sorted(keys)})
        return {row.key: row.content_hash for row in rows}

    async def get(self, keys: Collection[str]) -> Sequence[EventRow]:
        """Returns the stored events of these keys, locked."""
        query = select(EventRow).where(EventRow.key.in_(sorted(keys))).order_by(EventRow.key).with_for_update()
        return (await self._session.scalars(query)).all()

    async def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Stores new events, ordered by id, so that two transactions that share some never deadlock.

        Raises:
            IntegrityError: another transaction has stored one of them.
        """
        if rows:
            await self._session.execute(_ADD, sorted(rows, key=lambda row: row["id"]))

    async def change(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Updates stored events, except what was received, and when."""
        for row in sorted(rows, key=lambda row: row["id"]):
            changed = {column: value for column, value in row.items() if column not in _AS_RECEIVED}
            await self._session.execute(update(EventRow).where(EventRow.key == row["id"]).values(changed))

    async def log(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Records the outcomes of deliveries."""
        await self._session.execute(_LOG, rows)

    async def published(self, partition: int, after: int, limit: int) -> Sequence[EventRow]:
        """Returns events of a partition of the topic after an offset: those of at least one offset, and all of each."""
        own = EventRow.topic_partition == partition
        order = (EventRow.topic_position, EventRow.topic_ordinal)
        rows = (
            await self._session.scalars(select(EventRow).where(own, EventRow.topic_position > after).order_by(*order).limit(limit))
        ).all()
        if len(rows) < limit:
            return rows
        last = rows[-1].topic_position
        whole = [row for row in rows if row.topic_position < last]
        if whole:
            return whole
        return (await self._session.scalars(select(EventRow).where(own, EventRow.topic_position == last).order_by(*order))).all()


class Receipts:
    """Receipts of what was appended to the log, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, receipts: Sequence[account.Receipts]) -> None:
        """Stores receipts; existing ones are not changed."""
        rows = [
            {
                "writer": each.writer,
                "number": each.number,
                "partition": each.partition,
                "hour": each.hour,
                "client": each.client,
                "scope": each.scope,
                "first_at": _EPOCH + timedelta(microseconds=each.first),
                "last_at": _EPOCH + timedelta(microseconds=each.last),
                "events": "\n".join(f"{received} {' '.join(ids)}" for received, ids in each.calls).encode(),
                "lost": False,
            }
            for each in receipts
        ]
        await upsert(self._session, _RECEIPTS, rows, changing=("writer",))

    async def unsettled(self, limit: int) -> Sequence[tuple[str, int]]:
        """Returns the keys of receipts whose events have no known outcome yet."""
        found = select(ReceiptRow.writer, ReceiptRow.number).where(ReceiptRow.lost.is_(False)).limit(limit)
        return [(row.writer, row.number) for row in await self._session.execute(found)]

    async def get(self, keys: Collection[tuple[str, int]]) -> Sequence[ReceiptRow]:
        """Returns those receipts that still exist, locked."""
        key = tuple_(ReceiptRow.writer, ReceiptRow.number)
        return (
            await self._session.scalars(
                select(ReceiptRow).where(key.in_(keys)).order_by(ReceiptRow.writer, ReceiptRow.number).with_for_update()
            )
        ).all()

    async def lost(self, hours: Collection[int] | None = None) -> Sequence[ReceiptRow]:
        """Returns the receipts of lost events, of all hours or of some, by sender and time."""
        of = [ReceiptRow.lost.is_(True)] + ([] if hours is None else [ReceiptRow.hour.in_(hours)])
        order = (ReceiptRow.client, ReceiptRow.scope, ReceiptRow.first_at)
        return (await self._session.scalars(select(ReceiptRow).where(*of).order_by(*order))).all()

    async def delete(self, keys: Collection[tuple[str, int]]) -> None:
        """Deletes receipts."""
        await self._session.execute(delete(ReceiptRow).where(tuple_(ReceiptRow.writer, ReceiptRow.number).in_(keys)))

    async def settled(self, ids: Sequence[str]) -> Mapping[Delivery, int]:
        """Returns the deliveries of some events with a known outcome, and how often each was in the log."""
        found: Counter[Delivery] = Counter()
        columns = (ProcessingRow.event_id, ProcessingRow.received_at)
        for some in chunks(ids):
            of = ProcessingRow.event_id.in_(some)
            # A dead letter that was retried is recorded again.
            entries = func.count(ProcessingRow.log_position.distinct())
            for event_id, received_at, count in await self._session.execute(select(*columns, entries).where(of).group_by(*columns)):
                found[event_id, received_at] += count
        return found


async def keep_receipts(session: AsyncSession, receipts: Sequence[account.Receipts]) -> None:
    """Stores receipts of what was appended to the log."""
    await Receipts(session).add(receipts)


def deliveries(row: ReceiptRow) -> list[Delivery]:
    """Returns the deliveries in a receipt."""
    calls = [line.split(" ") for line in row.events.decode().splitlines()]
    return [(event_id, _EPOCH + timedelta(microseconds=int(received))) for received, *ids in calls for event_id in ids]


def as_events(lost: Sequence[Delivery]) -> bytes:
    """Serialises deliveries as a receipt has them."""
    return "\n".join(f"{(received - _EPOCH) // timedelta(microseconds=1)} {event_id}" for event_id, received in lost).encode()
