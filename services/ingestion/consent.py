"""How an event may be kept, as its person's consent and the shop's settings say: decisions without a database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from enum import Enum
from typing import Final, Literal

from pmp.ingestion.v1 import event_pb2 as pb

from kit.people.persons import subject_of
from kit.people.privacy import Choice
from kit.people.suppression import Suppressed
from kit.rules import without_query

NAMING: Final = ("visitor", "session")
"""What enrichment finds out that leads to a person."""


class Treatment(Enum):
    """What becomes of an event."""

    STORE = "store"
    """Stored as its person's."""
    ANONYMOUS = "anonymous"
    """Stored without anything that leads to a person: it counts, and no more."""
    DROP = "drop"
    """Not stored; counted as suppressed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """What the shop does with events that their person has not consented to."""

    denied: Treatment
    unknown: Treatment
    """Of those of whom no choice is known."""

    @classmethod
    def of(cls, denied: Literal["anonymous", "drop"], unknown: Literal["store", "anonymous", "drop"]) -> Policy:
        """The policy as the settings say it."""
        return cls(Treatment(denied), Treatment(unknown))

    def treatment(self, choice: Choice | None) -> Treatment:
        """What becomes of the events of somebody who made this choice about analytics."""
        if choice is None:
            return self.unknown
        return Treatment.STORE if choice.granted else self.denied


def subjects(received: pb.ReceivedEvent) -> tuple[str, ...]:
    """The names of the event's person under which a choice may have been made, the strongest first."""
    event = received.event
    names = subject_of(user_id=event.user_id), subject_of(email_hash=received.email_hash), subject_of(session_id=event.session_id)
    return tuple(filter(None, names))


def is_suppressed(received: pb.ReceivedEvent, suppressed: Suppressed) -> bool:
    """True when the event is an erased person's: the strongest of its names is suppressed."""
    names = subjects(received) if suppressed else ()
    return bool(names) and suppressed.holds(names[0], received.event.timestamp.ToDatetime(UTC))


def without_suppressed(received: pb.ReceivedEvent, suppressed: Suppressed) -> pb.ReceivedEvent:
    """The event without weaker names that are suppressed: somebody's in whose browser an erased person was."""
    if not suppressed:
        return received
    at = received.event.timestamp.ToDatetime(UTC)
    weaker = [name for name in subjects(received)[1:] if suppressed.holds(name, at)]
    if not weaker:
        return received
    kept = pb.ReceivedEvent()
    kept.CopyFrom(received)
    for name in weaker:
        if name.startswith("email:"):
            kept.ClearField("sealed_email")
            kept.ClearField("email_hash")
        else:
            kept.event.ClearField("session_id")
    return kept


def is_anonymous(received: pb.ReceivedEvent) -> bool:
    """True when nothing in the event leads to a person: nobody's consent is needed."""
    event = received.event
    return not (event.user_id or event.session_id or received.email_hash or event.ip_address or event.user_agent)


def anonymous(received: pb.ReceivedEvent, enrichment: pb.Enrichment) -> tuple[pb.ReceivedEvent, pb.Enrichment]:
    """The event, and what was found out about it, without what leads to a person.

    Free-form data and the queries of addresses may hold names, numbers of orders or click ids, and go as well; source,
    course and currency were found out before. The id and the hash of the content stay: by them a duplicate is known.
    """
    kept = pb.ReceivedEvent()
    kept.CopyFrom(received)
    for name in ("sealed_email", "email_hash", "address"):
        kept.ClearField(name)
    event = kept.event
    for name in ("user_id", "session_id", "ip_address", "user_agent", "metadata"):
        event.ClearField(name)
    event.page_url, event.referrer = without_query(event.page_url), without_query(event.referrer)
    counted = pb.Enrichment()
    counted.CopyFrom(enrichment)
    for name in NAMING:
        counted.ClearField(name)
    return kept, counted
