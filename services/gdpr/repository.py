"""All SQL of gdpr."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import NamedTuple

from sqlalchemy import ColumnElement, and_, func, insert, or_, select
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from kit.persons import persons
from kit.rules import PageKey
from services.gdpr.models import ConsentRow
from services.gdpr.rules import Told


class Somebody(NamedTuple):
    """Whose choices are meant: those of a name and, where it leads to a person, those of all its names."""

    subject: str
    person_id: str = ""


class ConsentHistory:
    """Everything that was told of what people allow, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, subject: str, told: Sequence[Told], client: str, now: datetime) -> int:
        """Adds what was not told before; says how much. The caller holds the subject locked."""
        own = ConsentRow.subject == subject
        columns = (ConsentRow.purpose, ConsentRow.granted, ConsentRow.decided_at, ConsentRow.source, ConsentRow.policy_version)
        rows = await self._session.execute(select(*columns).where(own, ConsentRow.decided_at == told[0].decided_at))
        known = {Told(*row) for row in rows}
        new = [choice for choice in told if choice not in known]
        if new:
            same = {"subject": subject, "client": client, "recorded_at": now}
            await self._session.execute(insert(ConsentRow), [{**asdict(choice), **same} for choice in new])
        return len(new)

    async def in_force(self, who: Somebody) -> Mapping[str, ConsentRow]:
        """The choice that holds for each purpose that something was told about: the last; at one instant the denial."""
        order = (ConsentRow.decided_at.desc(), ConsentRow.granted, ConsentRow.policy_version.desc(), ConsentRow.source, ConsentRow.id)
        rank = func.row_number().over(partition_by=ConsentRow.purpose, order_by=order).label("rank_")
        ranked = select(ConsentRow, rank).where(_of(who)).subquery()
        newest = aliased(ConsentRow, ranked)
        rows = await self._session.scalars(select(newest).where(ranked.c.rank_ == 1))
        return {row.purpose: row for row in rows}

    async def page(self, who: Somebody, behind: PageKey[int] | None, limit: int) -> Sequence[ConsentRow]:
        """Choices behind a place in the history, the last ones first."""
        query = select(ConsentRow).where(_of(who)).order_by(ConsentRow.decided_at.desc(), ConsentRow.id.desc()).limit(limit)
        if behind is not None:
            earlier = ConsentRow.decided_at < behind.at
            query = query.where(or_(earlier, and_(ConsentRow.decided_at == behind.at, ConsentRow.id < behind.id)))
        return (await self._session.scalars(query)).all()


def _of(who: Somebody) -> ColumnElement[bool]:
    if not who.person_id:
        return ConsentRow.subject == who.subject
    return ConsentRow.subject.in_(select(persons.c.subject).where(persons.c.person_id == who.person_id))
