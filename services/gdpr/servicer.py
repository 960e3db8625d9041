"""The rpcs of gdpr: choices are told and looked up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from typing import Final, NamedTuple

from pmp.gdpr.v1 import gdpr_pb2 as pb
from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.database import READING, Sessions, transact
from kit.interceptors import Context, bind_facts, caller
from kit.outbox import StateTopic
from kit.persons import Persons
from kit.privacy import Consents
from kit.rules import check, page_key, page_token, wrong_time
from kit.suppression import Suppressions
from kit.vault import Vault
from services.gdpr.messages import changed_message, entry_message, state_message
from services.gdpr.repository import ConsentHistory, Somebody
from services.gdpr.rules import choices, subject_named

_PAGE: Final = 100
# Shops bring choices of many years: one may be as old as its person.
_ANY_AGE: Final = timedelta(days=36_500)


class _Done(NamedTuple):
    """What became of choices that were told."""

    user_id: str
    consent: pb.ConsentState
    new: int


class GdprServicer(GdprServiceServicer):
    """Keeps people's choices."""

    def __init__(self, sessions: Sessions, topic: StateTopic, vault: Vault) -> None:
        self._sessions = sessions
        self._topic = topic
        self._vault = vault

    @override
    async def GetConsent(self, request: pb.GetConsentRequest, context: Context) -> pb.GetConsentResponse:
        behind = page_key(request.page_token, int)
        limit = request.page_size or _PAGE
        async with self._sessions() as session:
            await session.connection(execution_options=READING)
            who, history = await _somebody(session, subject_named(request.id)), ConsentHistory(session)
            in_force = await history.in_force(who)
            rows = await history.page(who, behind, limit + 1)
        return pb.GetConsentResponse(
            user_id=who.person_id or request.id,
            consent=state_message(in_force),
            history=map(entry_message, rows[:limit]),
            next_page_token=page_token(rows[limit - 1].decided_at, rows[limit - 1].id) if len(rows) > limit else "",
        )

    @override
    async def UpdateConsent(self, request: pb.UpdateConsentRequest, context: Context) -> pb.UpdateConsentResponse:
        check(wrong_time("consent.timestamp", request.consent.timestamp, _ANY_AGE))
        subject, client, now = subject_named(request.id), caller().client, datetime.now(UTC)
        told = choices(request.consent, now)

        async def work(session: AsyncSession) -> _Done:
            consents, history = Consents(session), ConsentHistory(session)
            if (await Suppressions(session).of(self._vault, [subject])).holds(subject, now):
                return _Done(request.id, pb.ConsentState(), 0)  # nobody's choice is kept under a name that was erased
            await consents.lock([subject])
            new = await history.add(subject, told, client, now)
            who = await _somebody(session, subject)
            done = _Done(who.person_id or request.id, state_message(await history.in_force(who)), new)
            if new:
                changed = changed_message(subject, await history.in_force(Somebody(subject)))
                await consents.learn([changed])
                await self._topic.tell(session, [(subject, GdprChanged(consent=changed))])
            return done

        done = await transact(self._sessions, work)
        self._topic.wake()
        bind_facts(new_choices=done.new)
        return pb.UpdateConsentResponse(success=True, duplicate=not done.new, user_id=done.user_id, consent=done.consent)

    @override
    async def ListGdprChanges(self, request: pb.ListGdprChangesRequest, context: Context) -> AsyncIterator[pb.ListGdprChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            yield pb.ListGdprChangesResponse(position=position, changes=[GdprChanged.FromString(each) for each in payloads])


async def _somebody(session: AsyncSession, subject: str) -> Somebody:
    return Somebody(subject, await Persons(session).person(subject))
