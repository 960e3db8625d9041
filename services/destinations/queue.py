"""The queue of one destination: which deliveries are due, who is making an attempt at them, and what became of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

from sqlalchemy import Table, bindparam, func, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import chunks
from services.destinations.kind import Wanted
from services.destinations.models import DeliveryRow
from services.destinations.repository import PENDING, Destinations

CLAIMED_FOR: Final = timedelta(seconds=45)
"""How long a claim holds: longer than an attempt lasts. Then its sender is taken for dead."""

_SOON: Final = timedelta(seconds=1)
_deliveries: Final = cast("Table", DeliveryRow.__table__)
_SETTLE: Final = (
    update(_deliveries)
    .where(_deliveries.c.id == bindparam("row_id"))
    .values(
        claim="",
        state=bindparam("new_state"),
        attempts=bindparam("new_attempts"),
        next_attempt_at=bindparam("new_next_attempt_at"),
        detail=bindparam("new_detail"),
    )
)
_POSTPONE: Final = update(_deliveries).where(_deliveries.c.id == bindparam("row_id")).values(next_attempt_at=bindparam("at"))


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery at which this sender may make an attempt."""

    id: int
    wanted: Wanted
    """As it was decided; whether it was history is not kept."""
    message_id: str
    attempts: int
    """Attempts that were begun, this one included."""
    was_interrupted: bool
    """The attempt before has no result, since its sender died: it may have had its effect."""
    decided_at: datetime


class Settled(NamedTuple):
    """What an attempt, or the decision to make none, does to a delivery."""

    id: int
    state: str
    attempts: int
    next_attempt_at: datetime
    detail: str
    order_by: str
    was_attempted: bool = True
    """Whether it had an attempt with a result."""


def delivery_id(destination: str, key: str) -> str:
    """Returns the id by which a destination recognises a delivery: the same at each attempt, and when it is replayed."""
    return f"dlv_{blake2b(f'{destination} {key}'.encode(), digest_size=16).hexdigest()}"


class Queue:
    """The queue of a destination, within one transaction that has locked the destination.

    Args:
        destination: its name.
        sender: names who claims.
    """

    def __init__(self, session: AsyncSession, destination: str, sender: str) -> None:
        self._session = session
        self._destination = destination
        self._sender = sender
        self._pending = (_deliveries.c.destination == destination, _deliveries.c.state == PENDING)

    async def next_due(self) -> datetime | None:
        """Returns when a delivery is due next; None if none is pending. Reads one row of an index."""
        return await self._session.scalar(select(func.min(_deliveries.c.next_attempt_at)).where(*self._pending))

    async def claim(self, limit: int, now: datetime) -> Sequence[Claimed]:
        """Claims deliveries that are due, those that wait longest first; others skip them meanwhile.

        Of deliveries that are sent one after the other only the first is claimed; the others wait for it.
        """
        due = select(_deliveries).where(*self._pending, _deliveries.c.next_attempt_at <= now)
        due = due.order_by(_deliveries.c.next_attempt_at, _deliveries.c.id).limit(limit).with_for_update(skip_locked=True)
        rows = (await self._session.execute(due)).all()
        first = await self._first({row.order_by for row in rows if row.order_by})
        own = [row for row in rows if not row.order_by or first[row.order_by] == row.id]
        await self._postpone([row for row in rows if row.order_by and first[row.order_by] != row.id], first, {row.id for row in own}, now)
        if own:
            claim = {"claim": self._sender, "next_attempt_at": now + CLAIMED_FOR, "attempts": _deliveries.c.attempts + 1}
            await self._session.execute(update(_deliveries).where(_deliveries.c.id.in_([row.id for row in own])).values(claim))
        return [_claimed(row) for row in own]

    async def settle(self, settled: Sequence[Settled], now: datetime) -> int:
        """Stores what became of deliveries, and moves the counts of the books.

        Those that another sender has taken over meanwhile are passed over: their result is the other's.

        Returns:
            The number of deliveries settled.
        """
        mine: set[int] = set()
        for ids in chunks({each.id for each in settled}):
            query = select(_deliveries.c.id).where(_deliveries.c.id.in_(ids), _deliveries.c.claim == self._sender, *self._pending)
            mine |= set(await self._session.scalars(query.with_for_update()))
        own = [each for each in settled if each.id in mine]
        if not own:
            return 0
        await self._session.execute(_SETTLE, [_new_values(each) for each in own])
        final = Counter(each.state for each in own if each.state != PENDING)
        await Destinations(self._session).move(
            self._destination, {PENDING: -final.total(), **final}, sum(each.was_attempted for each in own)
        )
        await self._release({each.order_by for each in own if each.order_by and each.state != PENDING}, now)
        return len(own)

    async def _first(self, orders: Collection[str]) -> Mapping[str, int]:
        """Returns the first pending delivery of each of these orders."""
        found: dict[str, int] = {}
        for some in chunks(orders):
            query = select(_deliveries.c.order_by, func.min(_deliveries.c.id).label("first")).where(
                *self._pending, _deliveries.c.order_by.in_(some)
            )
            rows = await self._session.execute(query.group_by(_deliveries.c.order_by))
            found |= {row.order_by: row.first for row in rows}
        return found

    async def _postpone(self, rows: Sequence[Any], first: Mapping[str, int], claimed: Collection[int], now: datetime) -> None:
        """Lets deliveries wait until the first of their order is tried, so that they are not looked at until then."""
        at = dict.fromkeys(claimed, now + CLAIMED_FOR)
        for some in chunks({first[row.order_by] for row in rows} - at.keys()):
            query = select(_deliveries.c.id, _deliveries.c.next_attempt_at).where(_deliveries.c.id.in_(some))
            at |= {row.id: max(row.next_attempt_at, now + _SOON) for row in await self._session.execute(query)}
        if rows:
            await self._session.execute(_POSTPONE, [{"row_id": row.id, "at": at[first[row.order_by]]} for row in rows])

    async def _release(self, orders: Collection[str], now: datetime) -> None:
        """Makes the first deliveries of these orders due."""
        for some in chunks(set((await self._first(orders)).values())):
            query = select(_deliveries.c.id, _deliveries.c.not_before).where(_deliveries.c.id.in_(some))
            due = [{"row_id": row.id, "at": max(now, row.not_before or now)} for row in await self._session.execute(query)]
            await self._session.execute(_POSTPONE, due)


def _claimed(row: Any) -> Claimed:
    wanted = Wanted(row.name, row.key, row.happened_at, row.order_by, row.not_before, row.needs_consent)
    return Claimed(row.id, wanted, row.message_id, row.attempts + 1, bool(row.claim), row.decided_at)


def _new_values(settled: Settled) -> dict[str, Any]:
    return {
        "row_id": settled.id,
        "new_state": settled.state,
        "new_attempts": settled.attempts,
        "new_next_attempt_at": settled.next_attempt_at,
        "new_detail": settled.detail[:200],
    }
