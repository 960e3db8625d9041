"""Decides how an event may be stored, by its person's consent and the shop's settings: pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC
from enum import Enum
from typing import Final, Literal

from pmp.ingestion.v1 import event_pb2 as pb

from kit.people.identifiers import identifier_of
from kit.people.privacy import Choice
from kit.people.suppression import Suppressed, screen
from kit.rules import without_query
from services.ingestion.rules import TAGS

IDENTIFYING: Final = ("visitor", "session")
"""Fields of the enrichment that identify a person."""


class Treatment(Enum):
    """How an event is stored."""

    STORE = "store"
    """Stored with its person."""
    ANONYMOUS = "anonymous"
    """Stored without anything that identifies a person: it only counts."""
    DROP = "drop"
    """Not stored; counted as suppressed."""


@dataclass(frozen=True, slots=True)
class Policy:
    """How the shop treats events without consent."""

    denied: Treatment
    unknown: Treatment
    """For persons of whom no choice is known."""

    @classmethod
    def of(cls, denied: Literal["anonymous", "drop"], unknown: Literal["store", "anonymous", "drop"]) -> Policy:
        """Returns the policy that the settings specify."""
        return cls(Treatment(denied), Treatment(unknown))

    def treatment(self, choice: Choice | None) -> Treatment:
        """Returns the treatment of events whose person made this choice about analytics."""
        if choice is None:
            return self.unknown
        return Treatment.STORE if choice.granted else self.denied


def identifiers(received: pb.ReceivedEvent) -> tuple[str, ...]:
    """Returns the identifiers of an event, under which choices may have been made, the strongest first."""
    event = received.event
    found = identifier_of(user_id=event.user_id), identifier_of(email_hash=received.email_hash), identifier_of(session_id=event.session_id)
    return tuple(filter(None, found))


def unsuppressed(received: pb.ReceivedEvent, suppressed: Suppressed) -> pb.ReceivedEvent | None:
    """Returns an event as it may be stored: None if it is an erased person's, and without weaker identifiers of one.

    An event has those if an erased person used the same browser.
    """
    screened = screen(identifiers(received), received.event.timestamp.ToDatetime(UTC), suppressed) if suppressed else None
    if screened is None or not (screened.is_dropped or screened.stripped):
        return received
    if screened.is_dropped:
        return None
    kept = pb.ReceivedEvent()
    kept.CopyFrom(received)
    for identifier in screened.stripped:
        if identifier.startswith("email:"):
            kept.ClearField("sealed_email")
            kept.ClearField("email_hash")
        else:
            kept.event.ClearField("session_id")
    return kept


def is_anonymous(received: pb.ReceivedEvent) -> bool:
    """True if nothing in the event identifies a person, so that no consent is needed."""
    event = received.event
    named = event.user_id or event.session_id or received.email_hash or event.ip_address or event.user_agent
    return not (named or any(tag in event.metadata.fields for tag in TAGS))


def anonymous(received: pb.ReceivedEvent, enrichment: pb.Enrichment) -> tuple[pb.ReceivedEvent, pb.Enrichment]:
    """Returns the event and its enrichment without anything that identifies a person.

    Free-form data and the queries of URLs may hold names, order numbers or click ids, and are removed as well; source, course,
    video and currency were derived before. The id and the content hash stay, to recognise duplicates.
    """
    kept = pb.ReceivedEvent()
    kept.CopyFrom(received)
    for field in ("sealed_email", "email_hash", "address"):
        kept.ClearField(field)
    event = kept.event
    for field in ("user_id", "session_id", "ip_address", "user_agent", "metadata"):
        event.ClearField(field)
    event.page_url, event.referrer = without_query(event.page_url), without_query(event.referrer)
    counted = pb.Enrichment()
    counted.CopyFrom(enrichment)
    for field in IDENTIFYING:
        counted.ClearField(field)
    return kept, counted
