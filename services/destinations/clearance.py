"""Decides what may be sent at this moment: checked in the transaction that claims a delivery, and closed when in doubt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, TypeAlias, cast

from google.protobuf.descriptor_pool import Default
from google.protobuf.message_factory import GetMessageClass
from sqlalchemy.ext.asyncio import AsyncSession

from kit.people.hashing import KeyedHasher
from kit.people.identifiers import identifiers_in
from kit.people.keys.seals import BILLING_CONTEXT, EMAIL_CONTEXT, VISITOR_CONTEXT
from kit.people.privacy import Consent, Consents, of_one, of_several
from kit.people.suppression import Suppressed, Suppressions, screen
from services.destinations.kind import Destination, Message
from services.destinations.personal import KEPT_FOR
from services.destinations.queue import Claimed, Settled
from services.destinations.repository import DEAD, EXPIRED, PENDING, WITHHELD, Deliveries
from services.destinations.rules import allows, in_force

ERASED: Final = "the person was erased"
UNKNOWN: Final = "the outcome of the last attempt is unknown, and the destination does not recognise a repetition"
NOT_YET: Final = "the person is not known yet"
_WAITS: Final = (timedelta(seconds=2), timedelta(minutes=1))
SEALED: Final = {"email": EMAIL_CONTEXT, "billing": BILLING_CONTEXT, "visitor": VISITOR_CONTEXT}
"""The contexts of sealed fields, by their names without the prefix `sealed_`."""
_Refusal: TypeAlias = tuple[str, str]
"""The state that a delivery gets instead of being sent, and why."""
_KINDS: Final = ("wordpress", "user", "email", "session", "anonymous", "visitor")


@dataclass(frozen=True, slots=True)
class Cleared:
    """A delivery that may be sent."""

    claimed: Claimed
    message: Message
    consent: Consent
    traceparent: str
    """The W3C trace context with which the message was published; empty for none."""


async def clear(
    session: AsyncSession, hasher: KeyedHasher, destination: Destination[Any], claimed: Sequence[Claimed], now: datetime
) -> tuple[Sequence[Cleared], Sequence[Settled]]:
    """Separates claimed deliveries into those that may be sent now and those that may not, with what becomes of these."""
    stored = await Deliveries(session).messages({each.message_id for each in claimed})
    messages = {each: _parsed(row.type, row.payload) for each, row in stored.items()}
    identifiers = {each: ordered(message) for each, message in messages.items()}
    every = {identifier for some in identifiers.values() for identifier in some}
    suppressed = await Suppressions(session).of(hasher, every)
    consents: Mapping[str, Consent] = await Consents(session).of(every) if every else {}
    cleared: list[Cleared] = []
    refused: list[Settled] = []
    for each in claimed:
        message = messages.get(each.message_id)
        own = identifiers.get(each.message_id, ())
        whole = consent_for(destination, [consents[identifier] for identifier in own])
        consent = Consent() if message is None else in_force(message, whole)
        refusal = _impossible(destination, message, each, now) or _erased(message, own, each, suppressed)
        if refusal is None and (at := waits_until(destination, each, consent, now)):
            refused.append(Settled(each.id, PENDING, each.attempts - 1, at, NOT_YET, each.wanted.order_by, was_attempted=False))
            continue
        if refusal is None and each.wanted.needs_consent and not allows(consent, destination.consent):
            refusal = WITHHELD, f"no consent: {destination.consent}"
        if refusal is None:
            cleared.append(Cleared(each, cast("Message", message), consent, stored[each.message_id].traceparent))
        else:
            refused.append(Settled(each.id, refusal[0], each.attempts - 1, now, refusal[1], each.wanted.order_by, was_attempted=False))
    return cleared, refused


def consent_for(destination: Destination[Any], consents: Sequence[Consent]) -> Consent:
    """Returns a person's consent for a record, given the choices of each of its identifiers, the strongest first.

    A destination that needs no consent states the choices themselves: those of the person alone. Elsewhere the denial of another person
    in the same browser applies as well.
    """
    whole = of_several(consents)
    if destination.consent:
        return whole
    return of_one([each for each in consents if each.person_id in ("", whole.person_id)], whole.person_id)


def waits_until(destination: Destination[Any], claimed: Claimed, consent: Consent, now: datetime) -> datetime | None:
    """Returns until when a delivery waits, since its person may be known then; None if it does not wait.

    An order, the buyer's consent and the user it makes are published in three topics, which are read in any order, by other services
    as well.
    """
    if (settled := claimed.decided_at + destination.settles) > now:
        return settled
    if not destination.needs_profile or (consent.person_id and not _is_unasked(destination, claimed, consent)):
        return None
    return next((at for at in (claimed.decided_at + wait for wait in _WAITS) if at > now), None)


def _is_unasked(destination: Destination[Any], claimed: Claimed, consent: Consent) -> bool:
    return claimed.wanted.needs_consent and destination.consent is not None and getattr(consent, destination.consent) is None


def _impossible(destination: Destination[Any], message: Message | None, claimed: Claimed, now: datetime) -> _Refusal | None:
    if claimed.was_interrupted and not destination.is_repeatable(claimed.wanted):
        return DEAD, UNKNOWN
    if message is None and now - claimed.decided_at > KEPT_FOR:
        return EXPIRED, "its content is not kept any more"
    if destination.window is not None and now > claimed.wanted.at + destination.window:
        return EXPIRED, "older than the destination accepts"
    return None


def _erased(message: Message | None, identifiers: Sequence[str], claimed: Claimed, suppressed: Suppressed) -> _Refusal | None:
    """Returns the refusal of a delivery of an erased person: its message is gone, or one of its identifiers is suppressed."""
    screened = screen(identifiers, claimed.wanted.at, suppressed)
    return (WITHHELD, ERASED) if message is None or screened.is_dropped or screened.stripped else None


def ordered(message: Message) -> Sequence[str]:
    """Returns the identifiers of a message, the strongest first."""
    return sorted(identifiers_in(message), key=lambda each: (_KINDS.index(each.partition(":")[0]), each))


def sealed_fields(message: Any) -> Mapping[str, bytes]:
    """Returns the sealed fields of a message that are filled, without the prefix of their names."""
    return {name: value for name in SEALED if (value := getattr(message, f"sealed_{name}", b""))}


def _parsed(type_: str, payload: bytes) -> Any:
    return GetMessageClass(Default().FindMessageTypeByName(type_)).FromString(payload)
