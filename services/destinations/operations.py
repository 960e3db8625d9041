"""What operators do with deliveries that are decided: they replay them, and retry or drop dead letters."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from enum import Enum
from typing import Any, Final, cast

from sqlalchemy import ColumnElement, Table, select, update
from sqlalchemy.ext.asyncio import AsyncSession

from services.destinations.clearance import UNKNOWN
from services.destinations.kind import Destination, Wanted
from services.destinations.models import DeliveryRow
from services.destinations.repository import DEAD, DELIVERED, DROPPED, PENDING, Deliveries, Destinations

AT_ONCE: Final = 500
"""Deliveries of one transaction, or of one page."""

_deliveries: Final = cast("Table", DeliveryRow.__table__)


class Verdict(Enum):
    """Whether a delivery is made again."""

    REPLAYED = "replayed"
    TOO_OLD = "too_old"
    NOT_REPEATABLE = "not_repeatable"
    GONE = "gone"


class Operations:
    """Operations on the deliveries of one destination, within one transaction."""

    def __init__(self, session: AsyncSession, destination: str) -> None:
        self._session = session
        self._destination = destination
        self._own = _deliveries.c.destination == destination

    async def replay(
        self, destination: Destination[Any], since: datetime, until: datetime, after: int, now: datetime, *, dry_run: bool
    ) -> tuple[int | None, Counter[Verdict]]:
        """Makes some deliveries of a period due again that are neither pending nor dropped.

        Args:
            destination: decides which of them it would take.
            since: when they happened at the earliest.
            until: before when they happened.
            after: only those with a higher number.
            now: the time.
            dry_run: whether they are only counted.

        Returns:
            The last number that was looked at, None if there are no more, and how many deliveries had which verdict.
        """
        await Destinations(self._session).lock([self._destination])
        query = select(_deliveries).where(self._own, _deliveries.c.id > after, _deliveries.c.state.not_in((PENDING, DROPPED)))
        query = query.where(_deliveries.c.happened_at >= since, _deliveries.c.happened_at < until)
        rows = (await self._session.execute(query.order_by(_deliveries.c.id).limit(AT_ONCE).with_for_update())).all()
        kept = await Deliveries(self._session).messages({row.message_id for row in rows})
        verdicts = {row.id: _verdict(destination, row, has_message=row.message_id in kept, now=now) for row in rows}
        if not dry_run:
            await self._due_again([row for row in rows if verdicts[row.id] is Verdict.REPLAYED], now)
        return rows[-1].id if rows else None, Counter(verdicts.values())

    async def dead(self, after: int) -> Sequence[DeliveryRow]:
        """Returns dead letters with a higher number, the oldest first."""
        query = select(DeliveryRow).where(DeliveryRow.destination == self._destination, DeliveryRow.state == DEAD, DeliveryRow.id > after)
        return (await self._session.scalars(query.order_by(DeliveryRow.id).limit(AT_ONCE))).all()

    async def retry(self, ids: Sequence[int], now: datetime) -> int:
        """Makes dead letters due again, all that there were before now if no ids are given, at most 500; returns how many."""
        rows = await self._dead(ids, _deliveries.c.next_attempt_at <= now)
        await self._due_again(rows, now)
        return len(rows)

    async def drop(self, ids: Sequence[int]) -> int:
        """Drops dead letters, all of them if no ids are given, at most 500; returns how many."""
        rows = await self._dead(ids)
        if rows:
            await self._session.execute(update(_deliveries).where(_deliveries.c.id.in_([row.id for row in rows])).values(state=DROPPED))
        return len(rows)

    async def _dead(self, ids: Sequence[int], *which: ColumnElement[bool]) -> Sequence[Any]:
        await Destinations(self._session).lock([self._destination])
        query = select(_deliveries).where(self._own, _deliveries.c.state == DEAD, *which)
        if ids:
            query = query.where(_deliveries.c.id.in_(ids))
        return (await self._session.execute(query.order_by(_deliveries.c.id).limit(AT_ONCE).with_for_update())).all()

    async def _due_again(self, rows: Sequence[Any], now: datetime) -> None:
        if not rows:
            return
        due = {"state": PENDING, "attempts": 0, "decided_at": now, "next_attempt_at": now, "claim": "", "detail": ""}
        await self._session.execute(update(_deliveries).where(_deliveries.c.id.in_([row.id for row in rows])).values(due))
        left = Counter(DEAD if row.state == DROPPED else row.state for row in rows)
        moved = {PENDING: len(rows), **{state: -count for state, count in left.items()}}
        await Destinations(self._session).move(self._destination, moved)


def _verdict(destination: Destination[Any], row: Any, *, has_message: bool, now: datetime) -> Verdict:
    if not has_message:
        return Verdict.GONE
    if destination.window is not None and now > row.happened_at + destination.window:
        return Verdict.TOO_OLD
    wanted = Wanted(row.name, row.key, row.happened_at, row.order_by)
    may_have_arrived = row.state == DELIVERED or row.detail.endswith(UNKNOWN)
    return Verdict.NOT_REPEATABLE if may_have_arrived and not destination.is_repeatable(wanted) else Verdict.REPLAYED
