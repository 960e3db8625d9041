"""Turns entries of the raw log into stored, published events: each id once."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias, cast

from pmp.ingestion.v1 import event_pb2 as pb
from pmp.log.v1 import log_pb2
from sqlalchemy import Table
from sqlalchemy.ext.asyncio import AsyncSession

from kit.idempotency import is_browsers, is_versioned, may_be_same, versioned
from kit.log import books
from kit.log.consume.handler import Outcome, Poison
from kit.log.publish.outbox import Outbox
from kit.log.streams import Delivery
from kit.people.identifiers import identifier_of
from kit.people.keys.seals import EMAIL_CONTEXT
from kit.people.keys.store import Keys
from kit.people.privacy import Consents, of_several
from kit.people.subjects.personal_tables import Ages
from kit.people.subjects.retention import Expiry, expiries
from kit.people.suppression import Suppressions
from kit.telemetry.tracing import trace_id_of, traceparent
from services.ingestion import rules
from services.ingestion.consent import Policy, Treatment, anonymous, identifiers, is_anonymous, unsuppressed
from services.ingestion.enrichment import Enricher
from services.ingestion.messages import key, moment, published_message, received_message, row
from services.ingestion.models import ProcessingRow, ReceiptRow
from services.ingestion.personal import PERSONAL_TABLES
from services.ingestion.repository import Events
from services.ingestion.settings import IngestionSettings

Identifiers: TypeAlias = tuple[str, ...]
"""The identifiers of an event, the strongest first."""

Consent: TypeAlias = Callable[[AsyncSession, Sequence[pb.ReceivedEvent], Sequence[Identifiers]], Awaitable[Sequence[Treatment]]]
"""Returns the treatment of each event, given with its identifiers, by its person's consent in the storing transaction."""

_Written: TypeAlias = tuple[dict[str, Any], log_pb2.Record]
"""The row of an event, and the record that is published of it."""

_RECEIPTS_KEPT = timedelta(days=30)
_RECIPE = 2
"""Version of how a content hash is made: hashes of different versions can't be compared."""

_STORED = pb.EventStored.DESCRIPTOR.full_name


class ApplyConsent:
    """Looks up the consent of the persons of events.

    Args:
        policy: how the shop treats events without consent.
    """

    def __init__(self, policy: Policy) -> None:
        self._policy = policy

    async def __call__(
        self, session: AsyncSession, received: Sequence[pb.ReceivedEvent], named: Sequence[Identifiers]
    ) -> Sequence[Treatment]:
        """Returns the treatment of each event, by two queries for all of them."""
        consents = await Consents(session).of({identifier for several in named for identifier in several})
        decided = {
            several: self._policy.treatment(of_several([consents[each] for each in several]).analytics_tracking) for several in set(named)
        }
        return [Treatment.STORE if is_anonymous(message) else decided[several] for message, several in zip(received, named, strict=True)]


class StoreEvents:
    """Handler of the raw log. Nothing is stored of erased persons.

    Args:
        outbox: of the topic `events`.
        enricher: derives the enrichment of events.
        keys: seal e-mail addresses under their persons' keys, and recognise the identifiers of erased persons.
        consent: decides how events are stored; without it, all are stored with their persons.
    """

    def __init__(self, outbox: Outbox, enricher: Enricher, keys: Keys, consent: Consent | None = None) -> None:
        self._outbox = outbox
        self._hasher = keys.hasher
        self._keys = keys
        self._enricher = enricher
        self._consent = consent

    async def __call__(self, session: AsyncSession, deliveries: Sequence[Delivery]) -> Sequence[Outcome]:
        """Stores new events; returns `stored`, `duplicate`, `suppressed`, or why a message is dead-lettered."""
        received = [self._received(delivery) for delivery in deliveries]
        named = [identifiers(message) for message in received]
        suppressed = await Suppressions(session).of(self._hasher, {identifier for several in named for identifier in several})
        treatments = await self._consent(session, received, named) if self._consent else [Treatment.STORE] * len(received)
        screened = [unsuppressed(message, suppressed) for message in received]
        treatments = [Treatment.DROP if left is None else treatment for left, treatment in zip(screened, treatments, strict=True)]
        received = [message if left is None else left for message, left in zip(received, screened, strict=True)]
        outcomes, filled = await self._outcomes(session, received, treatments)
        decided = zip(deliveries, received, treatments, outcomes, strict=True)
        new = [(delivery, message, treatment) for delivery, message, treatment, outcome in decided if outcome == books.STORED]
        await self._reseal([message for _, message, treatment in new if treatment is Treatment.STORE])
        now = datetime.now(UTC)
        rows: list[dict[str, Any]] = []
        written: dict[int, list[_Written]] = defaultdict(list)
        for delivery, message, treatment in new:
            enrichment = self._enricher.enrich(message.event)
            kept, found = anonymous(message, enrichment) if treatment is Treatment.ANONYMOUS else (message, enrichment)
            rows.append(row(kept, found, now))
            payload = published_message(kept, found).SerializeToString()
            record = log_pb2.Record(type=_STORED, payload=payload, traceparent=delivery.record.traceparent)
            written[delivery.partition].append((rows[-1], record))
        changed = [self._filled_in(message) for message in filled]
        if changed:
            repeated_in = {id_: each.partition for each, message in zip(deliveries, received, strict=True) for id_ in _ids(message)}
            for fields, record in changed:
                written[repeated_in[fields["id"]]].append((fields, record))
        await self._publish(session, written)
        events = Events(session)
        await events.add(rows)
        await events.change([fields for fields, _ in changed])
        await events.log([_logged(*each, now) for each in zip(deliveries, received, outcomes, strict=True)])
        return outcomes

    async def _publish(self, session: AsyncSession, written: Mapping[int, Sequence[_Written]]) -> None:
        """Writes records into the outbox, and their offsets into the rows."""
        records = {partition: [record for _, record in several] for partition, several in written.items()}
        for partition, offsets in (await self._outbox.add_to_partitions(session, records)).items() if records else ():
            ordinals: dict[int, int] = defaultdict(int)
            for (fields, _), offset in zip(written[partition], offsets, strict=True):
                fields |= {"topic_partition": partition, "topic_position": offset, "topic_ordinal": ordinals[offset]}
                ordinals[offset] += 1

    def _received(self, delivery: Delivery) -> pb.ReceivedEvent:
        message = pb.ReceivedEvent.FromString(delivery.record.payload)
        event = message.event
        content = rules.content(event, from_browser=message.from_browser) + message.email_hash
        message.content_hash = versioned(self._hasher.digest(content, purpose="event"), _RECIPE, message.reduction)
        # After the hash: the sender of a repetition may be in another network by then.
        rules.complete(event, message.address)
        # A browser's own id of its visitor may identify a person, and no erasure would find the event by it.
        if event.HasField("metadata") and (visitor := rules.visitor_of(event)):
            event.metadata.fields["visitor_id"].string_value = f"v-{self._hasher.digest(visitor.encode(), purpose='visitor').hex()}"
        return message

    async def _reseal(self, received: Sequence[pb.ReceivedEvent]) -> None:
        """Seals e-mail addresses under their persons' keys; those of erased persons are left out."""
        sealed = [message for message in received if message.sealed_email]
        if not sealed:
            return
        decryptor = await self._keys.decryptor(message.sealed_email for message in sealed)
        owners = [identifier_of(email_hash=message.email_hash) for message in sealed]
        seals = await self._keys.seals(set(owners))
        for message, owner in zip(sealed, owners, strict=True):
            email = decryptor.open(message.sealed_email, context=EMAIL_CONTEXT)
            message.sealed_email = seals[owner].seal(email, context=EMAIL_CONTEXT) if email else b""

    async def _outcomes(
        self, session: AsyncSession, received: Sequence[pb.ReceivedEvent], treatments: Sequence[Treatment]
    ) -> tuple[list[Outcome], Sequence[pb.ReceivedEvent]]:
        """Returns the outcome of each event, and the stored events to which repetitions add something; new ones are completed in place."""
        keys = [key(message) for message in received]
        older = {message.event.id for message, own in zip(received, keys, strict=True) if is_browsers(own)}
        known = dict(await Events(session).known({*keys, *older}))
        new: dict[str, pb.ReceivedEvent] = {}
        repeated: dict[str, list[pb.ReceivedEvent]] = defaultdict(list)
        outcomes: list[Outcome] = []
        for message, treatment, own in zip(received, treatments, keys, strict=True):
            id_ = message.event.id
            stored_as = id_ if own not in known and id_ in known and not is_versioned(known[id_]) else own
            if stored_as in known:
                same = may_be_same(known[stored_as], message.content_hash)
                outcomes.append(books.DUPLICATE if same else Poison("another event is stored under this id"))
                if same and treatment is Treatment.STORE:
                    repeated[stored_as].append(message)
            elif treatment is Treatment.DROP:
                outcomes.append(books.SUPPRESSED)
            else:
                known[stored_as] = message.content_hash
                if treatment is Treatment.STORE:
                    new[stored_as] = message
                outcomes.append(books.STORED)
        for both in new.keys() & repeated.keys():
            for message in repeated.pop(both):
                _fill_in(new[both], message)
        return outcomes, await self._completed(session, repeated)

    async def _completed(self, session: AsyncSession, repeated: Mapping[str, Sequence[pb.ReceivedEvent]]) -> Sequence[pb.ReceivedEvent]:
        """Returns the stored events to which repetitions add something."""
        completed: list[pb.ReceivedEvent] = []
        for stored in await Events(session).get(repeated) if repeated else ():
            known = received_message(stored)
            # Nothing is added to an event that was stored anonymously or has been anonymised.
            if stored.event_data["enrichment"].get("visitor"):
                added = [_fill_in(known, message) for message in repeated[stored.key]]
                if any(added):
                    completed.append(known)
        return completed

    def _filled_in(self, message: pb.ReceivedEvent) -> tuple[dict[str, Any], log_pb2.Record]:
        """Returns the row of a completed event, and the record to publish of it."""
        found = self._enricher.enrich(message.event)
        payload = published_message(message, found, is_update=True).SerializeToString()
        return row(message, found, datetime.now(UTC)), log_pb2.Record(type=_STORED, payload=payload, traceparent=traceparent())


def _ids(message: pb.ReceivedEvent) -> tuple[str, str]:
    """The ids under which an event may be stored: a browser's without the prefix of its key space, from before there was one."""
    return key(message), message.event.id


def _fill_in(known: pb.ReceivedEvent, repetition: pb.ReceivedEvent) -> bool:
    """Adds what a repetition has and the event lacks; returns whether there was something.

    The event then has the client and scope of the repetition. A browser adds nothing to the event of a server.
    """
    if known.event.session_id != repetition.event.session_id or (repetition.scope == "track" and known.scope != "track"):
        return False
    if not rules.fill_in(known.event, repetition.event):
        return False
    if known.scope == "track":
        known.client, known.scope = repetition.client, repetition.scope
    return True


def growing_old(settings: IngestionSettings) -> list[Expiry]:
    """Returns the tables whose rows expire: events, outcomes of deliveries, and receipts; the books keep the figures."""
    deliveries = Expiry(cast("Table", ProcessingRow.__table__), Ages("processed_at", by="id"), settings.site_log_retention)
    receipts = Expiry(cast("Table", ReceiptRow.__table__), Ages("last_at"), _RECEIPTS_KEPT)
    return [*expiries(PERSONAL_TABLES, {"events": settings.site_retention}), deliveries, receipts]


def _logged(delivery: Delivery, message: pb.ReceivedEvent, outcome: Outcome, now: datetime) -> dict[str, Any]:
    return {
        "event_id": message.event.id,
        "outcome": books.DEAD_LETTERED if isinstance(outcome, Poison) else outcome,
        "received_at": moment(message.received_at),
        "processed_at": now,
        "log_position": f"{delivery.partition}/{delivery.offset}/{delivery.ordinal}",
        "trace_id": trace_id_of(delivery.record.traceparent) or None,
    }
