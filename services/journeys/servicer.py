"""The rpcs of journeys: tracks touchpoints and conversions, reads journeys, attribution and funnels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from google.protobuf.message import Message
from pmp.journeys.v1 import change_pb2
from pmp.journeys.v1 import journeys_pb2 as pb
from pmp.journeys.v1.journeys_pb2_grpc import JourneysServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override
from uuid6 import uuid7

from kit.boundary.caller import Context, bind_log_fields, caller
from kit.database.group_commit import GroupCommit
from kit.database.transactions import Sessions
from kit.errors import Conflict, Forbidden, NotFound, Violation
from kit.idempotency import key_of, may_be_same, versioned
from kit.log.publish.state_topic import StateTopic
from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifier_of
from kit.people.persons import Persons
from kit.people.suppression import Suppressions
from kit.rules import Period, check, page_key, page_token, wrong_struct, wrong_time
from kit.settings import Settings
from services.journeys import answers, attribution, journey, messages, models, rules
from services.journeys.actions import people
from services.journeys.attribution_store import AttributionStore
from services.journeys.funnel import Funnel, steps_of
from services.journeys.repository import Journey, Touchpoints, facts_of_sessions

_PAGE = 100
_CATCH_UP_SECONDS = 0.1
"""How long a report waits for recent changes before it states that some are pending."""
_CONTENT = 1
"""Version of the compared content of touchpoints and conversions: raised when that changes."""


class _Recorded(NamedTuple):
    """The result of recording something once."""

    duplicate: bool
    changes: Sequence[tuple[str, Message]] = ()
    """What is published of it."""


class _Record(NamedTuple):
    """Something to record once under an id."""

    id: str
    work: Callable[[AsyncSession], Awaitable[_Recorded]]


class JourneysServicer(JourneysServiceServicer):
    """Answers from the tables of journeys."""

    def __init__(self, settings: Settings, sessions: Sessions, topic: StateTopic, hasher: KeyedHasher, store: AttributionStore) -> None:
        self._settings = settings
        self._sessions = sessions
        self._topic = topic
        self._hasher = hasher
        self._store = store
        self._commits: GroupCommit[_Record, _Recorded] = GroupCommit(sessions, self._recorded, key=lambda record: record.id)

    @override
    async def TrackTouchpoint(self, request: pb.TrackTouchpointRequest, context: Context) -> pb.TrackTouchpointResponse:
        touchpoint, who = request.touchpoint, caller()
        if who.scope == "track" and touchpoint.user_id and touchpoint.user_id != who.user:
            raise Forbidden("a track token speaks for its own user only")
        check(
            wrong_time("touchpoint.timestamp", touchpoint.timestamp, Period.kept(self._settings, "journeys.user_journeys", as_events=True)),
            wrong_struct("touchpoint.metadata", touchpoint.metadata),
            None if touchpoint.user_id or touchpoint.session_id else Violation("touchpoint", "user_id or session_id is required"),
        )
        content_hash = versioned(self._hasher.digest(messages.touchpoint_content(touchpoint), purpose="touchpoint"), _CONTENT)
        id_ = touchpoint.id or str(uuid7())
        key = key_of(id_, from_browser=who.scope == "track", beside=True)
        sent_row = messages.client_row(touchpoint, key, self._settings.site_currency, content_hash, datetime.now(UTC))

        async def record(session: AsyncSession) -> _Recorded:
            touchpoints = Touchpoints(session)
            row = await self._unsuppressed(session, sent_row)
            if row is None:
                return _Recorded(duplicate=False)
            # Touchpoints older than the key spaces have their plain ids.
            known = await touchpoints.tracked([key, id_])
            if known is not None and not may_be_same(known["content_hash"], content_hash):
                raise Conflict("another touchpoint is recorded under this id")
            if known is None:
                await touchpoints.add([row])
            elif added := messages.filled_in(known, row, messages.ADDED_TO_TOUCHPOINTS):
                await touchpoints.change(models.touchpoints, known["id"], added)
                row = {**known, **added}
            else:
                return _Recorded(duplicate=True)
            seen = messages.session_facts(row)
            await touchpoints.see([seen] if seen else [])
            return _Recorded(duplicate=known is not None, changes=[messages.touchpoint_recorded(row)])

        duplicate = await self._record(_Record(key, record))
        return pb.TrackTouchpointResponse(success=True, event_id=id_, duplicate=duplicate)

    @override
    async def TrackConversion(self, request: pb.TrackConversionRequest, context: Context) -> pb.TrackConversionResponse:
        conversion = request.conversion
        currency = conversion.currency.upper() or self._settings.site_currency
        check(
            wrong_time("conversion.timestamp", conversion.timestamp, Period.kept(self._settings, "journeys.conversions")),
            wrong_struct("conversion.metadata", conversion.metadata),
            None
            if conversion.user_id or conversion.email or conversion.session_id
            else Violation("conversion", "user_id, email or session_id is required"),
            rules.wrong_currency("conversion.currency", currency),
        )
        hashes = {
            "content": versioned(self._hasher.digest(messages.conversion_content(conversion), purpose="conversion"), _CONTENT),
            "email": self._hasher.fingerprint(conversion.email) if conversion.email else b"",
        }
        sent_row = messages.conversion_row(conversion, conversion.id or str(uuid7()), currency, hashes, datetime.now(UTC))

        async def record(session: AsyncSession) -> _Recorded:
            touchpoints = Touchpoints(session)
            row = await self._unsuppressed(session, sent_row)
            if row is None:
                return _Recorded(duplicate=False)
            known = await touchpoints.conversion(row["id"])
            if known is not None and not may_be_same(known["content_hash"], hashes["content"]):
                raise Conflict("another conversion is recorded under this id")
            if known is None:
                await touchpoints.add_conversion(row)
            elif added := messages.filled_in(known, row, messages.ADDED_TO_CONVERSIONS):
                await touchpoints.change(models.conversions, known["id"], added)
                row = {**known, **added}
            else:
                return _Recorded(duplicate=True)
            return _Recorded(duplicate=known is not None, changes=[messages.conversion_recorded(row)])

        duplicate = await self._record(_Record(sent_row["id"], record))
        return pb.TrackConversionResponse(success=True, event_id=sent_row["id"], duplicate=duplicate)

    @override
    async def GetUserJourney(self, request: pb.GetUserJourneyRequest, context: Context) -> pb.GetUserJourneyResponse:
        start, size = page_key(request.page_token, str), request.page_size or _PAGE
        async with self._sessions.reading() as session:
            person = await Persons(session).resolve(identifier_of(user_id=request.id))
            found = Journey(session, person)
            rows = await found.page(start, size + 1)
            ends = len(rows) <= size
            parts = journey.parts_of(rows) if start is None and ends else await found.parts()
            if not (parts or person.person_id):
                raise NotFound("nothing is known of this user")
            purchases = await found.purchases(2)
            first = rows[:1] if start is None else await found.page(None, 1)
            last = rows[-1:] if ends and rows else await found.last()
            browser_sessions = journey.sessions(parts)
            facts = await facts_of_sessions(session, {each.identifier for each in browser_sessions})
        stages = journey.stages(parts, purchases)
        return pb.GetUserJourneyResponse(
            user_id=person.person_id or request.id,
            stages=[stage for stage, _ in stages],
            reached=answers.reached(stages),
            touchpoints=[answers.touchpoint(row, purchases) for row in rows[:size]],
            next_page_token=page_token(rows[size - 1].timestamp, rows[size - 1].id) if len(rows) > size else "",
            touchpoint_count=sum(part.touchpoints for part in parts),
            sessions=[answers.browser_session(each, facts.get(each.identifier)) for each in browser_sessions],
            first_touch=answers.touchpoint(first[0], purchases) if first else None,
            last_touch=answers.touchpoint(last[0], purchases) if last else None,
            time_to_convert=answers.duration(journey.time_to_convert(parts, purchases)),
        )

    @override
    async def GetAttribution(self, request: pb.GetAttributionRequest, context: Context) -> pb.GetAttributionResponse:
        model, group_by = request.model or attribution.last_non_direct.__name__, request.group_by or "source"
        since, until = answers.period(request, datetime.now(UTC))
        pending = await self._store.catch_up(_CATCH_UP_SECONDS)
        totals = await self._store.totals(model, group_by, since, until)
        # A chain of many names takes a tenth of a second to solve.
        shares = await asyncio.to_thread(totals.shares)
        bind_log_fields(orders=totals.orders, pending=pending)
        return pb.GetAttributionResponse(
            model=model,
            group_by=group_by,
            currency=self._settings.site_currency,
            shares=answers.shares(shares),
            total=answers.total(shares),
            orders=totals.orders,
            orders_without_rate=totals.unrated,
            pending_changes=pending,
        )

    @override
    async def GetFunnel(self, request: pb.GetFunnelRequest, context: Context) -> pb.GetFunnelResponse:
        names = steps_of(request.steps)
        funnel = Funnel(names, answers.window(request))
        since, until = answers.period(request, datetime.now(UTC))
        async with self._sessions.reading() as session:
            async for page in people(session, names, since, until):
                funnel.add(page)
        return answers.funnel(funnel.count())

    @override
    async def ListJourneyChanges(
        self, request: pb.ListJourneyChangesRequest, context: Context
    ) -> AsyncIterator[pb.ListJourneyChangesResponse]:
        async for position, payloads in self._topic.history(self._sessions, request.partition, request.after_position):
            changes = [change_pb2.JourneyChanged.FromString(payload) for payload in payloads]
            yield pb.ListJourneyChangesResponse(position=position, changes=changes)

    async def _unsuppressed(self, session: AsyncSession, row: messages.Row) -> messages.Row | None:
        """Returns the row as it may be stored; None if its person was erased: the call succeeds and stores nothing."""
        suppressed = await Suppressions(session).of(self._hasher, messages.identifiers_of(row))
        return messages.unsuppressed(row, suppressed)

    async def _record(self, record: _Record) -> bool:
        """Records something once and wakes the relay if there are changes to publish; returns whether it was a duplicate."""
        recorded = await self._commits(record)
        if recorded.changes:
            self._topic.wake()
        bind_log_fields(duplicate=recorded.duplicate)
        return recorded.duplicate

    async def _recorded(self, session: AsyncSession, records: Sequence[_Record]) -> Sequence[_Recorded]:
        recorded = [await record.work(session) for record in records]
        await self._topic.publish(session, [change for each in recorded for change in each.changes])
        return recorded
