"""The rpcs of gdpr: records and reads consent, takes requests for erasure and export."""

from __future__ import annotations

import asyncio
import hmac
import secrets
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Final, NamedTuple

from google.api.httpbody_pb2 import HttpBody
from pmp.gdpr.v1 import gdpr_pb2 as pb
from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override
from uuid6 import uuid7

from kit.boundary.caller import Context, bind_log_fields, caller
from kit.database.transactions import Sessions, transact
from kit.errors import NotFound, Unavailable
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.people.identifiers import identifier_of
from kit.people.keys.store import Keys
from kit.people.persons import PersonKey, Persons
from kit.people.privacy import Consents
from kit.people.suppression import Suppressions, digest, screen
from kit.rules import ANY_AGE, Period, check, page_key, page_token, wrong_time
from services.gdpr.archive import NO_LINK, Archives
from services.gdpr.holders import Holders
from services.gdpr.messages import (
    IDENTIFIERS_CONTEXT,
    changed_message,
    conflicts,
    download_message,
    entry_message,
    keyed_suppression,
    request_message,
    state_message,
    suppression_key,
    tables_message,
)
from services.gdpr.models import ArchiveLinkRow, RequestRow
from services.gdpr.repository import ArchiveLinks, Audit, ConsentHistory, Requests
from services.gdpr.rules import DONE, DUE, ERASURE, EXPORT, LINK_LASTS, RUNNING, choices, erasure_steps, identifier_in_path
from services.gdpr.saga import sealed

_PAGE: Final = 100
_PUBLISHED_SECONDS: Final = 3.0
"""How long a call waits for the log. The gateway retries such a call, and gives up after 15 seconds."""


class _Done(NamedTuple):
    """The result of recording choices."""

    user_id: str
    consent: pb.ConsentState
    new: int
    offsets: Mapping[int, int]
    """Where in the topic they are published, by partition."""


class GdprServicer(GdprServiceServicer):
    """Records consent, and takes requests about personal data.

    A call returns once its changes are in the log: from then on they take effect without this process.

    Args:
        relay: publishes the topic.
        archives: serves exports.
        site: the calling system that is the shop's site.
        systems: other systems that have to erase a person.
    """

    def __init__(
        self,
        sessions: Sessions,
        topic: StateTopic,
        relay: Relay,
        keys: Keys,
        holders: Holders,
        *,
        archives: Archives,
        site: str,
        systems: Collection[str] = (),
    ) -> None:
        self._sessions = sessions
        self._topic = topic
        self._relay = relay
        self._hasher = keys.hasher
        self._keys = keys
        self._holders = holders
        self._archives = archives
        self._site = site
        self._systems = systems

    @override
    async def GetConsent(self, request: pb.GetConsentRequest, context: Context) -> pb.GetConsentResponse:
        after = page_key(request.page_token, int)
        limit = request.page_size or _PAGE
        async with self._sessions.reading() as session:
            person, history = await Persons(session).resolve(identifier_in_path(request.id)), ConsentHistory(session)
            in_force = await history.in_force(person)
            rows = await history.page(person, after, limit + 1)
        return pb.GetConsentResponse(
            user_id=person.person_id or request.id,
            consent=state_message(in_force),
            history=map(entry_message, rows[:limit]),
            next_page_token=page_token(rows[limit - 1].decided_at, rows[limit - 1].id) if len(rows) > limit else "",
        )

    @override
    async def UpdateConsent(self, request: pb.UpdateConsentRequest, context: Context) -> pb.UpdateConsentResponse:
        check(wrong_time("consent.timestamp", request.consent.timestamp, Period.of(ANY_AGE)))
        identifier, client, now = identifier_in_path(request.id), caller().client, datetime.now(UTC)
        made = choices(request.consent, now)

        async def work(session: AsyncSession) -> _Done:
            consents, history = Consents(session), ConsentHistory(session)
            suppressed = await Suppressions(session).of(self._hasher, [identifier])
            if screen([identifier], now, suppressed).is_dropped:
                return _Done(request.id, state_message({}), 0, {})  # nothing is stored under a suppressed identifier
            await consents.lock([identifier])
            person = await Persons(session).resolve(identifier)
            before = await history.in_force(person)
            new = await history.add(identifier, made, client, now)
            if new:
                changed = changed_message(identifier, await history.in_force(PersonKey(identifier)))
                changed.conflicts.extend(conflicts(identifier, new, client, before, self._site))
                await consents.apply([changed])
                await self._topic.publish(session, [(identifier, GdprChanged(consent=changed))])
            state, offsets = state_message(await history.in_force(person)), await self._topic.newest_offsets(session, [identifier])
            return _Done(person.person_id or request.id, state, len(new), offsets)

        done = await transact(self._sessions, work)
        await self._take_effect(done.offsets)
        bind_log_fields(new_choices=done.new)
        return pb.UpdateConsentResponse(success=True, duplicate=not done.new, user_id=done.user_id, consent=done.consent)

    @override
    async def EraseUserData(self, request: pb.EraseUserDataRequest, context: Context) -> pb.EraseUserDataResponse:
        identifier, client = self._identifier(request.id, request.email), caller().client
        if request.dry_run:
            return pb.EraseUserDataResponse(success=True, would_go=await self._would_go(identifier))

        request_id = str(uuid7())

        async def work(session: AsyncSession) -> tuple[pb.SubjectRequest, bool, Mapping[int, int]]:
            requests, now = Requests(session, self._hasher), datetime.now(UTC)
            identifiers = await requests.identifiers(identifier)
            keys = [suppression_key(digest(self._hasher, each)) for each in identifiers]
            known = await requests.suppressing(identifier)
            if known is None or (known.state == DONE and len(identifiers) > 1):
                # The address of an erased person belongs to the next one who registers with it.
                known = await requests.running_for(identifiers)
            if known is not None:
                return request_message(known, await requests.steps(known.id)), False, await self._topic.newest_offsets(session, keys)
            row = RequestRow(
                id=request_id,
                kind=ERASURE,
                state=RUNNING,
                client=client,
                pseudonym=f"erased:{secrets.token_hex(16)}",
                names=await sealed(self._keys, request_id, identifiers),
                requested_at=now,
                due_at=now + DUE,
            )
            requests.add(row, erasure_steps(self._holders.names, self._systems))
            await session.flush()
            await Audit(session).asked(row)
            changes = await requests.suppress(row.id, identifiers, now)
            await self._topic.publish(session, [keyed_suppression(change) for change in changes])
            return request_message(row, await requests.steps(row.id)), True, await self._topic.newest_offsets(session, keys)

        recorded, is_new, offsets = await transact(self._sessions, work)
        bind_log_fields(request=recorded.id, new=is_new)
        await self._take_effect(offsets)
        return pb.EraseUserDataResponse(success=True, request=recorded)

    @override
    async def GetSubjectRequest(self, request: pb.GetSubjectRequestRequest, context: Context) -> pb.GetSubjectRequestResponse:
        async with self._sessions.reading() as session:
            requests = Requests(session, self._hasher)
            row, link = await requests.get(request.id), await ArchiveLinks(session).get(request.id)
            if row is None or (not caller().internal and caller().client != row.client):
                raise NotFound("id: there is no such request")
            return pb.GetSubjectRequestResponse(request=request_message(row, await requests.steps(row.id), self._download(link)))

    @override
    async def ExportUserData(self, request: pb.ExportUserDataRequest, context: Context) -> pb.ExportUserDataResponse:
        identifier = self._identifier(request.id, request.email)
        owner, client = self._owner(), caller().client
        # A key of its own would outlive the link by far.
        sealed_identifier = (await self._keys.intake()).seal(identifier, context=IDENTIFIERS_CONTEXT)

        async def work(session: AsyncSession) -> tuple[pb.SubjectRequest, bool]:
            requests, links, now = Requests(session, self._hasher), ArchiveLinks(session), datetime.now(UTC)
            asked_for = self._digest(await Persons(session).person(identifier) or identifier, "archive person")
            link = await links.of(owner, asked_for)
            row = await requests.get(link.request_id) if link and link.expires_at > now else None
            if link is not None and row is not None:
                link.expires_at = now + LINK_LASTS
                return request_message(row, (), self._download(link)), False
            if link is not None:
                await session.delete(link)
                await session.flush()
            id_ = str(uuid7())
            row = RequestRow(
                id=id_, kind=EXPORT, state=DONE, client=client, pseudonym="", requested_at=now, due_at=now + DUE, finished_at=now
            )
            link = ArchiveLinkRow(owner=owner, asked_for=asked_for, request_id=id_, name=sealed_identifier, expires_at=now + LINK_LASTS)
            session.add_all([row, link])
            await session.flush()
            await Audit(session).asked(row)
            return request_message(row, (), self._download(link)), True

        recorded, is_new = await transact(self._sessions, work)
        bind_log_fields(request=recorded.id, new=is_new)
        return pb.ExportUserDataResponse(success=True, request=recorded)

    @override
    async def DownloadArchive(self, request: pb.DownloadArchiveRequest, context: Context) -> AsyncIterator[HttpBody]:
        if not hmac.compare_digest(request.token.encode(), self._token(request.id).encode()):
            raise NotFound(NO_LINK)
        headers = (("content-disposition", f'attachment; filename="personal-data-{request.id}.json"'), ("cache-control", "no-store"))
        size = 0
        async with aclosing(self._archives.fetch(request.id)) as portions:
            async for portion in portions:
                if not size:
                    # Only once there is something to send: any failure before is returned as an error.
                    await context.send_initial_metadata(headers)
                size += len(portion)
                yield HttpBody(content_type="application/json", data=portion)
        bind_log_fields(request=request.id, bytes=size)

    async def _take_effect(self, offsets: Mapping[int, int]) -> None:
        """Returns once the changes are in the log, where every holder reads them.

        Raises:
            Unavailable: the log does not accept them now. They are stored, and published later.
        """
        if not await self._relay.flush(offsets, _PUBLISHED_SECONDS):
            raise Unavailable("recorded, but not yet in force: the log does not answer; try again")

    def _download(self, link: ArchiveLinkRow | None) -> pb.Download | None:
        """Returns a link for its requester; None for any other caller."""
        if link is None or link.owner != self._owner() or link.expires_at <= datetime.now(UTC):
            return None
        return download_message(link.request_id, self._token(link.request_id), link.expires_at)

    def _token(self, request_id: str) -> str:
        """Returns a token that can't be guessed, and that no other caller can use."""
        return self._digest(f"{request_id} {self._owner()}", "archive link")

    def _owner(self) -> str:
        """Returns the digest of the caller."""
        return self._digest(f"{caller().client}\n{caller().user}", "archive owner")

    def _digest(self, text: str, purpose: str) -> str:
        return self._hasher.digest(text.encode(), purpose=purpose).hex()

    def _identifier(self, id_: str, email: str) -> str:
        return identifier_of(email_hash=self._hasher.fingerprint(email)) if email else identifier_in_path(id_)

    async def _would_go(self, identifier: str) -> list[pb.ErasedRows]:
        async with self._sessions.reading() as session:
            identifiers = await Requests(session, self._hasher).identifiers(identifier)
        answers = await asyncio.gather(*(self._holders.erase(holder, identifiers, dry_run=True) for holder in self._holders.names))
        by_holder = zip(self._holders.names, answers, strict=True)
        return [pb.ErasedRows(service=holder, tables=tables_message(answer.tables)) for holder, answer in by_holder]

    @override
    async def ListGdprChanges(self, request: pb.ListGdprChangesRequest, context: Context) -> AsyncIterator[pb.ListGdprChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            yield pb.ListGdprChangesResponse(position=position, changes=[GdprChanged.FromString(each) for each in payloads])
