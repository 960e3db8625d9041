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
from kit.people.hashing import KeyedHasher
from kit.people.persons import PersonKey, Persons, persons
from kit.people.suppression import Suppressions, digest
from kit.rules import PageKey
from services.gdpr.audit import Link, Receipt, link
from services.gdpr.messages import suppressed_message
from services.gdpr.models import ArchiveLinkRow, AuditRow, ConsentRow, RequestRow, StepRow, SuppressedRow
from services.gdpr.rules import RUNNING, WAITING, Choice

_SUPPRESSED: Final = cast("Table", SuppressedRow.__table__)


class ConsentHistory:
    """All choices that were ever reported, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def add(self, identifier: str, choices: Sequence[Choice], client: str, now: datetime) -> Sequence[Choice]:
        """Adds choices that are new, and returns them. The caller has locked the identifier."""
        own = ConsentRow.subject == identifier
        columns = (ConsentRow.purpose, ConsentRow.granted, ConsentRow.decided_at, ConsentRow.source, ConsentRow.policy_version)
        rows = await self._session.execute(select(*columns).where(own, ConsentRow.decided_at == choices[0].decided_at))
        known = {Choice(*row) for row in rows}
        new = [choice for choice in choices if choice not in known]
        if new:
            same = {"subject": identifier, "client": client, "recorded_at": now}
            await self._session.execute(insert(ConsentRow), [{**asdict(choice), **same} for choice in new])
        return new

    async def in_force(self, person: PersonKey) -> Mapping[str, ConsentRow]:
        """Returns the choice in force for each purpose: the latest one; of several at the same instant a denial."""
        order = (ConsentRow.decided_at.desc(), ConsentRow.granted, ConsentRow.policy_version.desc(), ConsentRow.source, ConsentRow.id)
        rank = func.row_number().over(partition_by=ConsentRow.purpose, order_by=order).label("rank_")
        ranked = select(ConsentRow, rank).where(_of(person)).subquery()
        newest = aliased(ConsentRow, ranked)
        rows = await self._session.scalars(select(newest).where(ranked.c.rank_ == 1))
        return {row.purpose: row for row in rows}

    async def page(self, person: PersonKey, after: PageKey[int] | None, limit: int) -> Sequence[ConsentRow]:
        """Returns the choices after a page's last one, newest first."""
        query = select(ConsentRow).where(_of(person)).order_by(ConsentRow.decided_at.desc(), ConsentRow.id.desc()).limit(limit)
        if after is not None:
            earlier = ConsentRow.decided_at < after.at
            query = query.where(or_(earlier, and_(ConsentRow.decided_at == after.at, ConsentRow.id < after.id)))
        return (await self._session.scalars(query)).all()


class Audit:
    """The audit log, within one transaction."""

    def __init__(self, session: AsyncSession) -> None:
        self._session = session

    async def append(self, entry: Mapping[str, Any]) -> str:
        """Appends an entry; returns its hash.

        Raises:
            IntegrityError: another transaction has appended one.
        """
        query = select(AuditRow).order_by(AuditRow.number.desc()).limit(1)
        last = await self._session.scalar(query)
        new = link(_link(last) if last else None, entry)
        await self._session.execute(insert(AuditRow), new._asdict())
        return new.hash

    async def asked(self, request: RequestRow) -> None:
        """Appends an entry for a new request.

        Raises:
            IntegrityError: another transaction has appended one.
        """
        facts = {"request": request.id, "client": request.client, "requested_at": request.requested_at.isoformat()}
        await self.append({"action": f"{request.kind} asked", **facts})

    async def chain(self) -> Sequence[Link]:
        """Returns all entries, oldest first."""
        return [_link(row) for row in await self._session.scalars(select(AuditRow).order_by(AuditRow.number))]

    async def requests(self) -> Sequence[str]:
        """Returns the ids of all requests."""
        return (await self._session.scalars(select(RequestRow.id).order_by(RequestRow.id))).all()

    async def receipts(self) -> Sequence[Receipt]:
        """Returns the receipts of all requests that are done."""
        query = select(RequestRow.receipt, RequestRow.signature).where(RequestRow.receipt.is_not(None))
        return [Receipt(row.receipt or "", row.signature or "") for row in await self._session.execute(query)]


def _link(row: AuditRow) -> Link:
    return Link(row.number, row.entry, row.prev_hash, row.hash)


class Waiting(NamedTuple):
    """What remains to be done of requests."""

    due_at: datetime | None
    """When the first one is due; None without any."""
    steps: int
    """Number of overdue steps."""


class Requests:
    """Requests about personal data, within one transaction."""

    def __init__(self, session: AsyncSession, hasher: KeyedHasher) -> None:
        self._session = session
        self._hasher = hasher

    async def get(self, request_id: str) -> RequestRow | None:
        """Returns a request."""
        return await self._session.get(RequestRow, request_id)

    async def steps(self, request_id: str) -> Sequence[StepRow]:
        """Returns the steps of a request, in order."""
        return (await self._session.scalars(select(StepRow).where(StepRow.request_id == request_id).order_by(StepRow.number))).all()

    async def running(self) -> Sequence[RequestRow]:
        """Returns the requests that are not done, oldest first."""
        query = select(RequestRow).where(RequestRow.state == RUNNING).order_by(RequestRow.requested_at, RequestRow.id)
        return (await self._session.scalars(query)).all()

    async def waiting(self, since: datetime) -> Waiting:
        """Returns when the first request is due, and how many steps have been tried since before a time."""
        due = select(func.min(RequestRow.due_at)).where(RequestRow.state == RUNNING)
        steps = select(func.count()).select_from(StepRow).join(RequestRow, RequestRow.id == StepRow.request_id)
        steps = steps.where(RequestRow.state == RUNNING, StepRow.state == WAITING, StepRow.started_at < since)
        return Waiting(await self._session.scalar(due), await self._session.scalar(steps) or 0)

    async def identifiers(self, identifier: str) -> Sequence[str]:
        """Returns all identifiers of the person to whom an identifier belongs."""
        known = Persons(self._session)
        person = await known.person(identifier)
        return sorted({identifier, *(await known.identifiers(person) if person else ())})

    async def suppressing(self, identifier: str) -> RequestRow | None:
        """Returns the request that suppressed an identifier."""
        query = select(RequestRow).join(SuppressedRow, SuppressedRow.request_id == RequestRow.id)
        return await self._session.scalar(query.where(SuppressedRow.digest == digest(self._hasher, identifier).hex()))

    async def running_for(self, identifiers: Collection[str]) -> RequestRow | None:
        """Returns the running request for one of these identifiers, and locks them against concurrent requests for the same person."""
        digests = sorted(digest(self._hasher, identifier).hex() for identifier in identifiers)
        await upsert(self._session, _SUPPRESSED, [{"digest": each} for each in digests])
        query = select(RequestRow).join(SuppressedRow, SuppressedRow.request_id == RequestRow.id)
        return await self._session.scalar(query.where(SuppressedRow.digest.in_(digests), RequestRow.state == RUNNING).limit(1))

    async def suppress(self, request_id: str, identifiers: Collection[str], at: datetime) -> Sequence[change_pb2.SuppressionChanged]:
        """Suppresses identifiers; returns the changes to publish."""
        digests = sorted(digest(self._hasher, identifier) for identifier in identifiers)
        await upsert(self._session, _SUPPRESSED, [{"digest": each.hex(), "request_id": request_id} for each in digests])
        changes = [suppressed_message(each, at) for each in digests]
        await Suppressions(self._session).apply(changes)
        return changes

    def add(self, request: RequestRow, steps: Sequence[str]) -> None:
        """Adds a request with its steps."""
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
        """Returns the link of a request."""
        return await self._session.scalar(select(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id))

    async def of(self, owner: str, asked_for: str) -> ArchiveLinkRow | None:
        """Returns the link of a requester to the archive of a person."""
        return await self._session.get(ArchiveLinkRow, (owner, asked_for))

    async def take(self, request_id: str, now: datetime, until: datetime) -> bool:
        """Holds a link that is free; returns whether it was."""
        free = or_(ArchiveLinkRow.held_until.is_(None), ArchiveLinkRow.held_until < now)
        own = update(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id, free)
        return bool(await rowcount(self._session, own.values(held_until=until)))

    async def hold(self, request_id: str, held: datetime, until: datetime | None) -> bool:
        """Extends or releases a hold; returns whether the caller still had it."""
        own = update(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id, ArchiveLinkRow.held_until == held)
        return bool(await rowcount(self._session, own.values(held_until=until)))

    async def remove(self, request_id: str, held: datetime) -> bool:
        """Deletes a link that was used; returns whether the caller still held it."""
        own = delete(ArchiveLinkRow).where(ArchiveLinkRow.request_id == request_id, ArchiveLinkRow.held_until == held)
        return bool(await rowcount(self._session, own))

    async def expire(self, now: datetime) -> int:
        """Deletes links that have expired and are not held; returns their number."""
        free = or_(ArchiveLinkRow.held_until.is_(None), ArchiveLinkRow.held_until < now)
        return await rowcount(self._session, delete(ArchiveLinkRow).where(ArchiveLinkRow.expires_at < now, free))


def _of(person: PersonKey) -> ColumnElement[bool]:
    if not person.person_id:
        return ConsentRow.subject == person.identifier
    return ConsentRow.subject.in_(select(persons.c.subject).where(persons.c.person_id == person.person_id))
