"""When a delivery is tried again, when a destination is left alone, what consent allows, and where a webhook may go."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from typing import ClassVar

import httpx
import pytest
from pmp.ingestion.v1.event_pb2 import Event, EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from typing_extensions import override

from kit.people.privacy import PURPOSES, Choice, Consent, Purpose
from services.destinations.answers import retry_after
from services.destinations.clearance import Cleared
from services.destinations.kind import Destination, Erasure, Message, Options, Outcome, Outgoing, Result, Wanted
from services.destinations.queue import Claimed, delivery_id
from services.destinations.rules import MOST_ATTEMPTS, Breaker, allows, delay, in_force
from services.destinations.settling import PutOff, settled
from services.destinations.webhook.addresses import AddressRefused, is_public, resolved

NOW = datetime(2026, 3, 1, tzinfo=UTC)


class Ledger(Destination[Options]):
    """A destination that recognises repetitions of orders alone."""

    options_type: ClassVar[type[Options]] = Options
    consent = None
    window: ClassVar[timedelta | None] = timedelta(days=3)

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        return ()

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        return [Result(Outcome.DELIVERED) for _ in deliveries]

    @override
    async def test(self) -> Result:
        return Result(Outcome.DELIVERED)

    @override
    async def erase(self, person: Erasure) -> Result | None:
        return None

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return wanted.name == "order"


@pytest.fixture
def ledger() -> Ledger:
    return Ledger("ledger", Options(kind="ledger"), httpx.AsyncClient())


def cleared(name: str = "order", attempts: int = 1, age: timedelta = timedelta(0)) -> Cleared:
    wanted = Wanted(name, "key", NOW - age)
    return Cleared(Claimed(1, wanted, "m", attempts, was_interrupted=False, decided_at=NOW), PurchaseChanged(), Consent(), "")


def test_attempts_are_spread_over_a_weekend() -> None:
    delays = [delay(attempts, None, chance=0.5) for attempts in range(1, MOST_ATTEMPTS)]
    assert [each and each.total_seconds() for each in delays][:3] == [5, 30, 120]
    assert sum((each for each in delays if each), timedelta()) == timedelta(hours=75, minutes=42, seconds=35)
    assert delay(MOST_ATTEMPTS, None) is None
    assert {delay(1, None) for _ in range(50)} != {delay(1, None)}, "what failed together is not repeated together"


def test_a_destination_says_how_long_to_wait_for_a_day_at_most() -> None:
    assert delay(1, timedelta(minutes=10), chance=0.5) == timedelta(minutes=10)
    assert delay(1, timedelta(days=9), chance=0.5) == timedelta(days=1)
    assert delay(6, timedelta(seconds=1), chance=0.5) == timedelta(hours=1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("30", timedelta(seconds=30)),
        ("Sun, 01 Mar 2026 00:01:00 GMT", timedelta(minutes=1)),
        ("Sat, 28 Feb 2026 00:01:00 GMT", timedelta(0)),
        ("soon", None),
        ("", None),
        ("-5", None),
    ],
)
def test_how_long_to_wait_is_read_as_seconds_or_as_a_date(value: str, expected: timedelta | None) -> None:
    assert retry_after({"retry-after": value}, NOW) == expected


def test_a_breaker_opens_after_five_failures_in_a_row_and_then_longer_each_time() -> None:
    breaker = Breaker().after([False] * 4, NOW)
    assert breaker.open_until is None
    breaker = breaker.after([False], NOW)
    assert breaker.open_until == NOW + timedelta(seconds=30)
    pauses: list[timedelta] = []
    now = NOW
    for _ in range(7):
        assert breaker.open_until is not None
        now = breaker.open_until
        assert breaker.is_probing
        breaker = breaker.after([False], now)
        assert breaker.open_until is not None
        pauses.append(breaker.open_until - now)
    assert [each.total_seconds() for each in pauses] == [60, 120, 240, 480, 900, 900, 900]
    closed = breaker.after([True], breaker.open_until or now)
    assert (closed.is_probing, closed.failures) == (False, 0)


def test_a_breaker_opens_when_half_of_a_minutes_attempts_fail() -> None:
    mixed = Breaker().after([True, False] * 4 + [True], NOW)
    assert mixed.open_until is None
    assert mixed.after([False], NOW + timedelta(seconds=59)).open_until is not None
    assert mixed.after([False], NOW + timedelta(seconds=61)).open_until is None


def test_failures_of_what_was_sent_before_it_opened_do_not_open_a_breaker_again() -> None:
    breaker = Breaker().after([False] * 16, NOW)
    assert (breaker.opened, breaker.open_until) == (1, NOW + timedelta(seconds=30))


def test_an_unknown_outcome_is_repeated_only_where_the_destination_recognises_it(ledger: Ledger) -> None:
    unknown = Result(Outcome.RETRY, "ReadTimeout", is_ambiguous=True)
    assert settled(ledger, cleared("order"), unknown, NOW).state == "pending"
    given_up = settled(ledger, cleared("event"), unknown, NOW)
    assert given_up.state == "dead"
    assert given_up.detail.startswith("ReadTimeout: the outcome of the last attempt is unknown")
    assert settled(ledger, cleared("event"), Result(Outcome.RETRY, "HTTP 503"), NOW).state == "pending"


def test_what_would_be_too_old_at_the_next_attempt_expires(ledger: Ledger) -> None:
    assert settled(ledger, cleared(age=timedelta(days=3)), Result(Outcome.RETRY, "HTTP 503"), NOW).state == "expired"
    last = settled(ledger, cleared(attempts=MOST_ATTEMPTS), Result(Outcome.RETRY, "HTTP 503"), NOW)
    assert (last.state, last.detail) == ("dead", "HTTP 503, at each of 13 attempts")


def test_what_is_put_off_or_refused_for_its_credentials_uses_no_attempt(ledger: Ledger) -> None:
    for result in (PutOff("identity answers UNAVAILABLE"), Result(Outcome.UNAUTHORIZED, "HTTP 401")):
        found = settled(ledger, cleared(attempts=3), result, NOW)
        assert (found.state, found.attempts) == ("pending", 2)


@pytest.mark.parametrize(
    ("purpose", "choice", "allowed"),
    [
        ("analytics_tracking", None, True),
        ("analytics_tracking", False, False),
        ("marketing_emails", None, False),
        ("marketing_emails", True, True),
        ("third_party_sharing", None, False),
        ("third_party_sharing", False, False),
        (None, None, True),
    ],
)
def test_unknown_is_no_unless_it_was_asked_for_at_the_intake(purpose: Purpose | None, choice: bool | None, allowed: bool) -> None:
    made = None if choice is None else Choice(choice, NOW)
    assert allows(Consent(*(made if each == purpose else None for each in PURPOSES)), purpose) is allowed


def test_global_privacy_control_denies_sharing_with_third_parties() -> None:
    granted = Consent(third_party_sharing=Choice(granted=True, decided_at=NOW), analytics_tracking=Choice(granted=True, decided_at=NOW))
    controlled = in_force(EventStored(event=Event(global_privacy_control=True)), granted)
    assert not allows(controlled, "third_party_sharing")
    assert allows(controlled, "analytics_tracking")
    assert in_force(EventStored(), granted) is granted


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2001:4860:4860::8888", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("fd00::1", False),
        ("fe80::1", False),
        ("::ffff:10.1.2.3", False),
        ("64:ff9b::a01:203", False),
        ("2002:a01:203::1", False),
    ],
)
def test_addresses_of_the_internet_are_distinguished(address: str, public: bool) -> None:
    assert is_public(ip_address(address)) is public


async def test_a_private_address_is_refused_unless_it_is_allowed() -> None:
    with pytest.raises(AddressRefused, match="its address is not public"):
        await resolved("localhost", 443, allow_private=False)
    assert ip_address(await resolved("localhost", 443, allow_private=True)).is_loopback


def test_a_delivery_has_one_id_for_good() -> None:
    assert delivery_id("crm", "order.paid:1") == "dlv_2f675190741c1b9abe3e93020bf76eae"
    assert delivery_id("crm", "order.paid:1") != delivery_id("crm", "order.paid:2")
