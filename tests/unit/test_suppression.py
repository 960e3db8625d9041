"""The suppression gate: one function, which every service that stores or publishes anything of persons uses alike."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from pmp.ingestion.v1 import event_pb2
from pmp.journeys.v1 import journeys_pb2
from pmp.purchases.v1 import change_pb2

from kit.errors import Conflict
from kit.people.identifiers import identifier_of
from kit.people.suppression import Screening, Suppressed, Suppression, for_registration, screen
from services.identity import observations, profiles
from services.identity.links import Evidence
from services.ingestion import consent
from services.journeys import messages as journeys
from services.purchases import details

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TICK = timedelta.resolution
EMAIL = f"email:{b'ada'.hex()}"
IDENTIFIERS = ("wordpress:42", EMAIL, "session:s-1")
fast = hypothesis_settings(deadline=None, derandomize=True, max_examples=200)


class Seen(NamedTuple):
    """The identifiers of a record, as its fields have them."""

    user_id: str
    email_hash: bytes
    session_id: str


@dataclass(frozen=True, slots=True)
class Use:
    """How one service uses the gate."""

    record: Callable[[Seen], Any]
    unsuppressed: Callable[[Any, Suppressed], Any]
    identifiers: Callable[[Any], Sequence[str]]
    """The identifiers of a record, the strongest first."""


def _timestamp() -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(NOON)
    return timestamp


def _received(seen: Seen) -> event_pb2.ReceivedEvent:
    event = event_pb2.Event(id="e-1", user_id=seen.user_id, session_id=seen.session_id, timestamp=_timestamp())
    return event_pb2.ReceivedEvent(event=event, email_hash=seen.email_hash, sealed_email=seen.email_hash)


def _observation(seen: Seen) -> observations.IdentityObservation:
    address = profiles.Address(seen.email_hash, None) if seen.email_hash else None
    user, session = identifier_of(user_id=seen.user_id), identifier_of(session_id=seen.session_id)
    return observations.IdentityObservation(NOON, Evidence.EVENT, user=user, address=address, session=session)


def _changed(seen: Seen) -> change_pb2.PurchaseChanged:
    fields = seen._asdict()
    return change_pb2.PurchaseChanged(purchase_id="p-1", subject=identifier_of(**fields), timestamp=_timestamp(), **fields)


def _reported(seen: Seen) -> details.OrderDetails:
    columns = {column: value for column, value in seen._asdict().items() if value}
    return details.OrderDetails(NOON, columns, lines=(), is_test=False, is_staff=False)


def _event_row(seen: Seen) -> journeys.Row:
    received = _received(seen)
    return journeys.event_row(event_pb2.EventStored(event=received.event, key="e-1", email_hash=received.email_hash), NOON)


def _touchpoint_row(seen: Seen) -> journeys.Row:
    touchpoint = journeys_pb2.Touchpoint(user_id=seen.user_id, session_id=seen.session_id, timestamp=_timestamp())
    return journeys.client_row(touchpoint, "t-1", "EUR", b"", NOON)


def _conversion_row(seen: Seen) -> journeys.Row:
    conversion = journeys_pb2.Conversion(user_id=seen.user_id, session_id=seen.session_id, timestamp=_timestamp())
    return journeys.conversion_row(conversion, "c-1", "EUR", {"email": seen.email_hash, "content": b""}, NOON)


def _identifiers(row: journeys.Row) -> Sequence[str]:
    return list(dict.fromkeys(filter(None, journeys.identifiers_of(row))))


USES = {
    "ingestion's events": Use(_received, consent.unsuppressed, consent.identifiers),
    "identity's events": Use(_observation, observations.IdentityObservation.unsuppressed, lambda seen: seen.all_identifiers),
    "identity's orders": Use(
        lambda seen: observations.observe_purchase(_changed(seen)),
        observations.PurchaseObservation.unsuppressed,
        lambda order: list(filter(None, dict.fromkeys(order.all_identifiers))),
    ),
    "purchases' reports": Use(_reported, details.OrderDetails.unsuppressed, lambda reported: reported.identifiers),
    "journeys' events": Use(_event_row, journeys.unsuppressed, _identifiers),
    "journeys' touchpoints": Use(_touchpoint_row, journeys.unsuppressed, _identifiers),
    "journeys' conversions": Use(_conversion_row, journeys.unsuppressed, _identifiers),
    "journeys' orders": Use(lambda seen: journeys.order_row(_changed(seen), 1, 0), journeys.unsuppressed, _identifiers),
}

_seen = st.builds(Seen, st.sampled_from(["", "42"]), st.sampled_from([b"", b"ada"]), st.sampled_from(["", "s-1"]))
_times = st.sampled_from([NOON - TICK, NOON, NOON + TICK])
_suppressions = st.builds(Suppression, _times, st.just(Suppression(NOON).until) | _times)
_suppressed = st.dictionaries(st.sampled_from([*IDENTIFIERS, "wordpress:7"]), _suppressions)


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@fast
@given(seen=_seen, suppressed=_suppressed)
def test_nothing_of_an_erased_person_passes_and_everything_else_does(use: Use, seen: Seen, suppressed: Suppressed) -> None:
    record = use.record(seen)
    before = use.identifiers(record)
    held = {each for each in before if each in suppressed and suppressed[each].until > NOON}
    after = use.unsuppressed(record, suppressed)
    left: Sequence[str] = () if after is None else use.identifiers(after)
    if not held:
        assert after == record
    elif before[0] in held:
        assert list(left) == []
    else:
        assert list(left) == [each for each in before if each not in held]


@fast
@given(st.lists(st.sampled_from(["", *IDENTIFIERS]), max_size=4), _suppressed)
def test_the_gate_drops_by_the_strongest_and_strips_the_rest(identifiers: list[str], suppressed: Suppressed) -> None:
    screened = screen(identifiers, NOON, suppressed)
    held = {each for each in identifiers if each in suppressed and suppressed[each].until > NOON}
    strongest = next(filter(None, identifiers), None)
    assert screened == (Screening(is_dropped=True) if strongest in held else Screening(stripped=frozenset(held)))


@fast
@given(_seen.filter(lambda seen: bool(seen.user_id or seen.email_hash)), st.dictionaries(st.sampled_from(IDENTIFIERS), _times))
def test_a_registration_brings_back_an_address_and_no_other_identifier(seen: Seen, erased: dict[str, datetime]) -> None:
    address = profiles.Address(seen.email_hash, None) if seen.email_hash else None
    sessions = [identifier_of(session_id=seen.session_id)] if seen.session_id else []
    registration = profiles.Registration(int(seen.user_id or 0), sessions, {}, profiles.Profile(NOON, address))
    suppressed = {identifier: Suppression(at) for identifier, at in erased.items()}
    is_erased = registration.account in erased or (address is not None and erased.get(EMAIL, NOON - TICK) >= NOON)
    if is_erased:
        with pytest.raises(Conflict, match=r"^this person was erased; only a new registration is taken$"):
            registration.unsuppressed(suppressed)
    else:
        left = registration.unsuppressed(suppressed)
        assert left.browser == [session for session in sessions if session not in erased]
        assert (left.wordpress_id, left.profile) == (registration.wordpress_id, registration.profile)


def test_an_address_registered_before_counts_for_what_happened_since() -> None:
    returned = {EMAIL: Suppression(NOON - TICK, until=NOON)}
    assert screen([EMAIL], NOON, returned) == Screening()
    assert screen([EMAIL], NOON - TICK, returned) == Screening(is_dropped=True)
    assert screen([EMAIL], NOON, for_registration({EMAIL: Suppression(NOON)})) == Screening(is_dropped=True)
    assert screen([EMAIL], NOON + TICK, for_registration({EMAIL: Suppression(NOON)})) == Screening()
