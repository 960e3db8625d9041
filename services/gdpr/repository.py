"""All SQL of gdpr."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict
from datetime import datetime
from typing import Any, Final, NamedTuple, cast

from pmp.gdpr.v1 import change_pb2
from sqlalchemy import ColumnElement, Table, and_, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import aliased

from kit.database.transactions import rowcount, upsert
from kit.people.persons import Persons, persons
from kit.people.suppression import Suppressions, digest
from kit.people.vault import Vault
from kit.rules import PageKey
from services.gdpr.audit import Link, Receipt, link
from services.gdpr.messages import suppressed_message
from services.gdpr.models import ArchiveLinkRow, AuditRow, ConsentRow, RequestRow, StepRow, SuppressedRow
from services.gdpr.rules import RUNNING, WAITING, Told

_SUPPRESSED: Final = cast("Table", SuppressedRow.__table__)


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


class Audit:
    """What was done with people's data, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def append(self, entry: Mapping[str, Any]) -> str:
        """Adds an entry behind the last one; answers its hash.

        Raises:
            IntegrityError: another transaction added one meanwhile.
        """
        query = select(AuditRow).order_by(AuditRow.number.desc()).limit(1)
        last = await self._session.scalar(query)
        new = link(_link(last) if last else None, entry)
        await self._session.execute(insert(AuditRow), new._asdict())
        return new.hash

    async def asked(self, request: RequestRow) -> None:
        """Adds an entry for a request that was made now.

        Raises:
            IntegrityError: another transaction added one meanwhile.
        """
        told = {"request": request.id, "client": request.client, "requested_at": request.requested_at.isoformat()}
        await self.append({"action": f"{request.kind} asked", **told})

    async def chain(self) -> Sequence[Link]:
        """All entries, oldest first."""
        return [_link(row) for row in await self._session.scalars(select(AuditRow).order_by(AuditRow.number))]

    async def requests(self) -> Sequence[str]:
        """All requests there are."""
        return (await self._session.scalars(select(RequestRow.id).order_by(RequestRow.id))).all()

    async def receipts(self) -> Sequence[Receipt]:
        """The receipts of all requests that are done."""
        query = select(RequestRow.receipt, RequestRow.signature).where(RequestRow.receipt.is_not(None))
        return [Receipt(row.receipt or "", row.signature or "") for row in await self._session.execute(query)]


def _link(row: AuditRow) -> Link:
    return Link(row.number, row.entry, row.prev_hash, row.hash)


class Waiting(NamedTuple):
    """What of requests is not done."""

    due_at: datetime | None
    """When the first one is due; None when there is none."""
    steps: int


class Requests:
    """Requests about people's data, within one transaction."""

    def __init__(self, session: AsyncSession, vault: Vault) -> None:
        self._session = session
        self._vault = vault

    async def get(self, request_id: str) -> RequestRow | None:
        """A request."""
        return await self._session.get(RequestRow, request_id)

    async def steps(self, request_id: str) -> Sequence[StepRow]:
        """The steps of a request, in their order."""
        return (await self._session.scalars(select(StepRow).where(StepRow.request_id == request_id).order_by(StepRow.number))).all()

    async def running(self) -> Sequence[RequestRow]:
        """Requests that are not done, oldest first."""
        query = select(RequestRow).where(RequestRow.state == RUNNING).order_by(RequestRow.requested_at, RequestRow.id)
        return (await self._session.scalars(query)).all()

    async def waiting(self, since: datetime) -> Waiting:
        """When the request is due that is due first, and how many steps have been tried since before a time."""
        due = select(func.min(RequestRow.due_at)).where(RequestRow.state == RUNNING)
        steps = select(func.count()).select_from(StepRow).join(RequestRow, RequestRow.id == StepRow.request_id)
        steps = steps.where(RequestRow.state == RUNNING, StepRow.state == WAITING, StepRow.started_at < since)
        return Waiting(await self._session.scalar(due), await self._session.scalar(steps) or 0)

    async def names(self, subject: str) -> Sequence[str]:
        """All names of the person that a name leads to."""
        known = Persons(self._session)
        person = await known.person(subject)
        return sorted({subject, *(await known.subjects(person) if person else ())})

    async def of_name(self, subject: str) -> RequestRow | None:
        """The request by which a name was suppressed."""
        query = select(RequestRow).join(SuppressedRow, SuppressedRow.request_id == RequestRow.id)
        return await self._session.scalar(query.where(SuppressedRow.digest == digest(self._vault, subject).hex()))

    async def holding(self, names: Collection[str]) -> RequestRow | None:
        """The running request that has one of these names. They are locked: nobody else asks for the same person meanwhile."""
        digests = sorted(digest(self._vault, name).hex() for name in names)
        await upsert(self._session, _SUPPRESSED, [{"digest": each} for each in digests])
        query = select(RequestRow).join(SuppressedRow, SuppressedRow.request_id == RequestRow.id)
        return await self._session.scalar(query.where(SuppressedRow.digest.in_(digests), RequestRow.state == RUNNING).limit(1))

    async def suppress(self, request_id: str, names: Collection[str], at: datetime) -> Sequence[change_pb2.SuppressionChanged]:
        """Writes down that nothing is stored under names any more; answers what to tell of it."""
        digests = sorted(digest(self._vault, name) for name in names)
        await upsert(self._session, _SUPPRESSED, [{"digest": each.hex(), "request_id": request_id} for each in digests])
        changes = [suppressed_message(each, at) for each in digests]
        await Suppressions(self._session).learn(changes)
        return changes

    def add(self, request: RequestRow, steps: Sequence[str]) -> None:
        """A new request."""
        self._session.add(request)
        for number, name in enumerate(steps):
            self._session.add(
                StepRow(request_id=request.id, number=number, name=name, state=WAITING, failures=0, error="", tables={}, places=[])
            )


class ArchiveLinks:
    """Links to archives, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def get(self, request_id: str) -> ArchiveLinkRow | None:
        """The link of a request."""
        return await self._session.scalar(select(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id))

    async def of(self, owner: str, asked_for: str) -> ArchiveLinkRow | None:
        """The link that somebody has to the archive of a person."""
        return await self._session.get(ArchiveLinkRow, (owner, asked_for))

    async def take(self, request_id: str, now: datetime, until: datetime) -> bool:
        """Holds a link that nobody holds; says whether it does."""
        free = or_(ArchiveLinkRow.held_until.is_(None), ArchiveLinkRow.held_until < now)
        own = update(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id, free)
        return bool(await rowcount(self._session, own.values(held_until=until)))

    async def hold(self, request_id: str, held: datetime, until: datetime | None) -> bool:
        """Holds a link on, or lets it go; says whether the caller still held it."""
        own = update(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id, ArchiveLinkRow.held_until == held)
        return bool(await rowcount(self._session, own.values(held_until=until)))

    async def remove(self, request_id: str, held: datetime) -> bool:
        """Removes a link that was used; says whether the caller still held it."""
        own = delete(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id, ArchiveLinkRow.held_until == held)
        return bool(await rowcount(self._session, own))

    async def expire(self, now: datetime) -> int:
        """Removes links that have expired and are not held; says how many."""
        free = or_(ArchiveLinkRow.held_until.is_(None), ArchiveLinkRow.held_until < now)
        return await rowcount(self._session, delete(ArchiveLinkRow).where(ArchiveLinkRow.expires_at < now, free))


def _of(who: Somebody) -> ColumnElement[bool]:
    if not who.person_id:
        return ConsentRow.subject == who.subject
    return ConsentRow.subject.in_(select(persons.c.subject).where(persons.c.person_id == who.person_id))
