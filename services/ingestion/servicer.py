"""The rpcs of ingestion: appends events to the raw log, reads the books and the history."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Sequence
from dataclasses import dataclass
from itertools import groupby
from time import time_ns

from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb
from pmp.ingestion.v1.ingestion_pb2_grpc import IngestionServiceServicer
from pmp.options.v1 import options_pb2
from typing_extensions import override
from uuid6 import uuid7

from kit.boundary.caller import Caller, Context, bind_log_fields, caller, remark
from kit.boundary.items import NOTHING, ItemsReader
from kit.boundary.nobody import forget_nobody
from kit.boundary.validation import broken_still, validate
from kit.database.transactions import Sessions
from kit.errors import Forbidden, InvalidRequest, Violation
from kit.log import books
from kit.log.intake.account import Sender
from kit.log.intake.appender import Appender
from kit.log.streams import StreamLog
from kit.people.hashing import KeyedHasher
from kit.people.keys.seals import EMAIL_CONTEXT, Seal
from kit.people.keys.store import Keys
from kit.rules import Period
from kit.scrubbing.scrubber import Scrubber
from kit.settings import Settings
from kit.telemetry.tracing import traceparent
from services.ingestion import losses, rules
from services.ingestion.messages import RAW_TOPIC, stored_message
from services.ingestion.reading import EventReader
from services.ingestion.repository import Events, Receipts

_HISTORY_ROWS = 500
_NAMED_IDS = 1000
_RECEIVED = event_pb2.ReceivedEvent.DESCRIPTOR.full_name
_TRACK_EVENT = pb.DESCRIPTOR.services_by_name["IngestionService"].methods_by_name["TrackEvent"]
_EVENT_BYTES = _TRACK_EVENT.GetOptions().Extensions[options_pb2.max_request_bytes]
# An event is measured as it is stored, with a generated id where the client sent none: measuring it as sent would serialise it twice.
_KEPT_BYTES = _EVENT_BYTES + 64


@dataclass(slots=True)
class _Rejected:
    event_id: str
    violations: Sequence[Violation]
    forbidden: bool = False


class _Admission:
    """Decides whether the events of one call are accepted; what they have in common is computed once.

    Args:
        seal: seals e-mail addresses; None if no event has one.
    """

    def __init__(self, hasher: KeyedHasher, scrubber: Scrubber, seal: Seal | None, who: Caller, allowed: Period) -> None:
        self._hasher = hasher
        self._scrubber = scrubber
        self._seal = seal
        self._who = who
        self._allowed = allowed
        # The caller's address is the visitor's only if a browser calls.
        address = rules.network(who.address) if who.scope == "track" else ""
        self._record = event_pb2.ReceivedRecord(
            type=_RECEIVED,
            payload=event_pb2.ReceivedEventBytes(client=who.client, scope=who.scope, address=address, reduction=rules.REDUCTION),
            traceparent=traceparent(),
        )
        received = time_ns() // 1000
        self._record.payload.received_at.FromMicroseconds(received)
        self.sender = Sender(who.client, who.scope, received)

    def verdict(self, event: event_pb2.Event, broken: Sequence[Violation]) -> bytes | _Rejected:
        """Returns the record of an accepted event, reduced to what the mesh stores, and with an id.

        Args:
            event: as the client sent it; changed in place.
            broken: the rules of its proto that it breaks.
        """
        who = self._who
        if who.scope == "track" and event.user_id and event.user_id != who.user:
            return _Rejected(event.id, [Violation("user_id", "a track token speaks for its own user only")], forbidden=True)
        is_passed_on = event.HasField("context")
        if who.scope == "track" and is_passed_on:
            return _Rejected(event.id, [Violation("context", "a track token passes on nothing")], forbidden=True)
        wrong = rules.violations(event, self._allowed)
        if broken or wrong:
            # An invalid id may be anything, and is not repeated.
            shown_id = "" if any(violation.field == "id" for violation in broken) else event.id
            return _Rejected(shown_id, [*broken, *wrong])
        received = self._record.payload
        received.from_browser = is_passed_on or who.scope == "track"
        if is_passed_on:
            rules.fold(event)
        if self._seal:
            email = event.email
            received.sealed_email = self._seal.seal(email, context=EMAIL_CONTEXT) if email else b""
            received.email_hash = self._hasher.fingerprint(email) if email else b""
        sent_id = event.id
        if not sent_id:
            event.id = str(uuid7())
        rules.reduce(event, self._scrubber)
        received.event = content = event.SerializeToString()
        if len(content) > _KEPT_BYTES:
            return _Rejected(sent_id, [Violation("", f"the event is larger than {_EVENT_BYTES} bytes")])
        return self._record.SerializeToString()


class IngestionServicer(IngestionServiceServicer):
    """Takes events and answers for each of them."""

    def __init__(self, settings: Settings, sessions: Sessions, log: StreamLog, appender: Appender, keys: Keys) -> None:
        self._settings = settings
        self._scrubber = Scrubber(settings.site_url_parameters)
        self._sessions = sessions
        self._log = log
        self._appender = appender
        self._keys = keys
        self._single = EventReader(settings.site_timezone)
        self._several = ItemsReader(pb.TrackEventsRequest.DESCRIPTOR, "events", settings.site_timezone)

    @override
    async def TrackEvent(self, request: pb.TrackEventRequest, context: Context) -> pb.TrackEventResponse:
        may_leave_out = request.HasField("json_body") and not request.strict
        notes = self._single.read(request)
        event = request.event
        forget_nobody(request)
        broken = validate(event)
        if may_leave_out:
            broken = broken_still(event, broken, notes)
        admission = await self._admission(with_email=bool(event.email))
        verdict = admission.verdict(event, notes.broken(broken))
        if isinstance(verdict, bytes):
            await self._appender.append([(_key(event), verdict)], ids=[event.id], sender=admission.sender)
            answer = pb.TrackEventResponse(success=True, event_id=event.id)
            if notes.is_remarkable:
                remark(notes, answer)
            return answer
        await self._appender.append([], rejected=1)
        if verdict.forbidden:
            raise Forbidden(verdict.violations[0].description)
        raise InvalidRequest(verdict.violations)

    @override
    async def TrackEvents(self, request: pb.TrackEventsRequest, context: Context) -> pb.TrackEventsResponse:
        items = self._several.read(request)
        admission = await self._admission(with_email=any([event.email for event in request.events]))  # noqa: C419  (faster than one by one)
        response = pb.TrackEventsResponse(ignored_fields=items.ignored)
        results = response.results
        records: list[tuple[str, bytes]] = []
        ids: list[str] = []
        for number, event in enumerate(request.events):
            notes = items.notes.get(number, NOTHING)
            verdict = admission.verdict(event, notes.broken(items.broken.get(number, ())))
            if isinstance(verdict, bytes):
                records.append((_key(event), verdict))
                ids.append(event.id)
                result = results.add(success=True, event_id=event.id)
            else:
                result = results.add(event_id=verdict.event_id, violations=map(_event_violation, verdict.violations))
            if notes is not NOTHING:
                remark(notes, result)
        response.accepted, response.rejected = len(records), len(results) - len(records)
        response.success = not response.rejected
        await self._appender.append(records, rejected=response.rejected, ids=ids, sender=admission.sender)
        bind_log_fields(accepted=response.accepted, rejected=response.rejected)
        return response

    @override
    async def GetAccounting(self, request: pb.GetAccountingRequest, context: Context) -> pb.GetAccountingResponse:
        first = getattr(request, "from").seconds // 3600  # a keyword of Python
        end = -(-request.to.seconds // 3600) if request.HasField("to") else None
        accounts = await books.accounts(self._sessions, self._log, RAW_TOPIC, self._settings.log_partitions)
        chosen = {hour: account for hour, account in accounts.items() if first <= hour and (end is None or hour < end)}
        total = books.Account()
        for account in chosen.values():
            total.add(account)
        return pb.GetAccountingResponse(
            total=_account(total),
            hours=[pb.HourlyAccount(hour=Timestamp(seconds=hour * 3600), account=_account(account)) for hour, account in chosen.items()],
            balanced=all(account.balanced for account in chosen.values()),
            lost=await self._lost([hour for hour, account in chosen.items() if account.missing]),
        )

    @override
    async def ListEvents(self, request: pb.ListEventsRequest, context: Context) -> AsyncIterator[pb.ListEventsResponse]:
        position = request.after_position
        while True:
            async with self._sessions.reading() as session:
                rows = await Events(session).published(request.partition, position, _HISTORY_ROWS)
            if not rows:
                return
            for position, group in groupby(rows, key=lambda row: row.topic_position):
                yield pb.ListEventsResponse(position=position, events=[stored_message(row) for row in group])

    async def _lost(self, hours: Collection[int]) -> Sequence[pb.LostEvents]:
        if not hours:
            return ()
        async with self._sessions.reading() as session:
            return [_lost_events(each) for each in losses.ranges(await Receipts(session).lost(hours))]

    async def _admission(self, *, with_email: bool) -> _Admission:
        # Few events have an e-mail address, and the others must not wait for keys.
        seal = await self._keys.intake() if with_email else None
        allowed = Period.kept(self._settings, "ingestion.events", as_events=True)
        return _Admission(self._keys.hasher, self._scrubber, seal, caller(), allowed)


def _key(event: event_pb2.Event) -> str:
    """Returns the partition key of an event: a person's events stay in order."""
    return event.user_id or event.session_id or event.id


def _event_violation(violation: Violation) -> pb.EventViolation:
    return pb.EventViolation(field=violation.field, description=violation.description)


def _lost_events(loss: losses.Range) -> pb.LostEvents:
    message = pb.LostEvents(client=loss.client, scope=loss.scope, count=len(loss.ids), event_ids=loss.ids[:_NAMED_IDS])
    getattr(message, "from").FromMicroseconds(loss.first)  # a keyword of Python
    message.to.FromMicroseconds(loss.last)
    return message


def _account(account: books.Account) -> pb.Account:
    return pb.Account(**{name: getattr(account, name) for name in account.__slots__}, missing=account.missing)
