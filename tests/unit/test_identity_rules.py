"""Lifecycle stages, fields of profiles and what observations are evidence of, without a database."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmp.ingestion.v1.event_pb2 import EventStored

from kit.idempotency import key_of
from services.identity.fields import apply_preferences, combine_preferences
from services.identity.lifecycle import Campaign, LifecycleStage, Order, lifecycle_stage
from services.identity.links import may_create_user, wordpress_id_of
from services.identity.merges import LARGEST_PERSON, MergeRefusal, may_become, merge_refusal, registration_may_merge
from services.identity.models import UserRow
from services.identity.observations import observe_event
from services.identity.repository import touch

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
AMOUNTS = st.decimals(-100, 10_000, places=4)
TIMES = st.datetimes(timezones=st.just(UTC))
ORDERS = st.lists(
    st.builds(Order, AMOUNTS, st.sampled_from(["EUR", "USD", ""]), AMOUNTS, st.booleans(), st.booleans(), st.none() | TIMES), max_size=8
)
CAMPAIGNS = st.lists(st.builds(Campaign, TIMES, st.fixed_dictionaries({"source": st.sampled_from("abc")})), max_size=5)


def stage(
    orders: Sequence[Order], campaigns: Sequence[Campaign] = (), active_at: Sequence[datetime] = (), *, is_lead: bool = False
) -> LifecycleStage:
    return lifecycle_stage(is_lead=is_lead, orders=orders, campaigns=campaigns, active_at=active_at, known_at=NOON)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ORDERS, CAMPAIGNS, st.lists(TIMES, max_size=3), st.randoms(use_true_random=False))
def test_a_lifecycle_stage_does_not_depend_on_the_order_in_which_facts_arrived(
    orders: list[Order], campaigns: list[Campaign], active_at: list[datetime], shuffle: st.DataObject
) -> None:
    before = stage(orders, campaigns, active_at)
    for some in (orders, campaigns, active_at):
        shuffle.shuffle(some)  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
    assert stage(orders, campaigns, active_at) == before
    assert before.lifetime_value == sum((order.net for order in orders), Decimal(0))
    in_euro = [order.net_in_currency for order in orders if order.paid and order.currency == "EUR"]
    assert before.lifetime_values.get("EUR", Decimal(0)) == sum(in_euro, Decimal(0))
    assert before.last_active_at == max([*active_at, *(order.sold_at for order in orders if order.sold_at)], default=NOON)
    assert before.utm_attribution == (min(campaigns, key=lambda it: (it.at, it.utm["source"])).utm if campaigns else None)


@pytest.mark.parametrize(
    ("is_lead", "orders", "expected"),
    [
        (False, [], "prospect"),
        (True, [], "lead"),
        (True, [(False, True)], "lead"),
        (False, [(True, False)], "customer"),
        (True, [(True, False), (False, True)], "customer"),
        (False, [(True, False), (True, True)], "subscriber"),
    ],
)
def test_orders_and_an_address_decide_the_user_type(is_lead: bool, orders: list[tuple[bool, bool]], expected: str) -> None:
    known = [Order(Decimal(0), "EUR", Decimal(0), paid, membership, None) for paid, membership in orders]
    assert stage(known, is_lead=is_lead).user_type == expected


def test_of_writers_of_a_field_the_latest_wins_in_every_order_of_arrival() -> None:
    writes = [({"a": 1, "b": 1}, 1), ({"a": 2, "c": 2}, 2), ({"b": None, "c": 3}, 3), ({"b": 9}, 0)]
    ends: list[tuple[dict[str, int], dict[str, int]]] = []
    for order in permutations(writes):
        values: dict[str, int] = {}
        times: dict[str, int] = {}
        for changes, seconds in order:
            values, times = apply_preferences(values, times, changes, NOON + timedelta(seconds=seconds))
        ends.append((values, times))
    assert ends[0][0] == {"a": 2, "c": 3}
    assert all(end == ends[0] for end in ends)


def test_preferences_of_a_person_are_those_written_last_with_any_of_its_users() -> None:
    one = ({"a": 1, "b": 1, "d": 1}, {"preferences.a": 1, "preferences.b": 3, "preferences.d": 1, "email": 9})
    other = ({"a": 2, "b": 2}, {"preferences.a": 2, "preferences.b": 3, "preferences.d": 2})
    assert combine_preferences([one, other]) == {"a": 2, "b": 1}
    assert combine_preferences([other, one]) == {"a": 2, "b": 2}


def test_a_merge_has_its_limits() -> None:
    assert merge_refusal({"a": 1}, {"b": None}) is None
    assert merge_refusal({"a": 1, "c": None}, {"b": 1}) is None
    different = merge_refusal({"a": 1}, {"b": None, "c": 2})
    assert different is MergeRefusal.DIFFERENT_WORDPRESS_USERS
    assert "WordPress" in different.value
    many = {str(number): None for number in range(LARGEST_PERSON)}
    too_many = merge_refusal(many, {"b": None})
    assert too_many is MergeRefusal.TOO_MANY_USERS
    assert str(LARGEST_PERSON) in too_many.value


def test_a_registration_merges_only_a_lead_into_its_wordpress_user() -> None:
    assert registration_may_merge({"a": 1, "b": None}, {"c": None})
    assert not registration_may_merge({"a": 1}, {"c": 1}), "a WordPress user is no lead"
    assert not registration_may_merge({str(number): None for number in range(LARGEST_PERSON)}, {"c": None})


def test_a_lead_becomes_a_wordpress_user_unless_its_person_is_another() -> None:
    assert may_become({"a": None}, 1)
    assert may_become({"a": None, "b": 1}, 1)
    assert not may_become({"a": None, "b": 2}, 1)


def test_a_wordpress_user_has_a_positive_number_of_64_bits() -> None:
    assert wordpress_id_of("wordpress:42") == 42
    assert [wordpress_id_of(identifier) for identifier in ("wordpress:0", f"wordpress:{2**63}", "session:42", "user:42", "")] == [None] * 5
    assert [may_create_user(identifier) for identifier in ("wordpress:1", "email:ab", "wordpress:0", "user:x", "session:s", "")] == [
        True,
        True,
        *[False] * 4,
    ]


def test_an_event_without_identifiers_is_no_observation() -> None:
    page_view = EventStored(scope="site")
    page_view.event.session_id = "s"
    assert observe_event(page_view) is None
    page_view.event.utm_parameters.source = "newsletter"
    seen = observe_event(page_view)
    assert seen is not None
    assert (seen.identifiers, seen.campaign) == ([], ("session:s", Campaign(datetime(1970, 1, 1, tzinfo=UTC), {"source": "newsletter"})))
    page_view.event.session_id = "null"
    assert observe_event(page_view) is None


def test_an_address_typed_in_a_browser_is_no_evidence_and_a_login_is() -> None:
    lead = EventStored(scope="site", email_hash=b"h" * 32, key="e1")
    lead.event.event_type, lead.event.session_id = "lead_capture", "s1"
    from_server = observe_event(lead)
    assert from_server is not None
    assert (from_server.address is not None, from_server.lead) == (True, True)
    lead.key = key_of("e1", from_browser=True)
    assert observe_event(lead) is None
    lead.event.user_id, lead.is_update = "7", True
    passed_on = observe_event(lead)
    assert passed_on is not None
    assert (passed_on.identifiers, passed_on.session, passed_on.lead) == (["wordpress:7"], "session:s1", False)


@pytest.mark.parametrize(("seconds", "microseconds"), [(-60, 1), (0, 0), (60, 60_000_000)])
def test_the_time_of_update_of_a_user_never_falls(seconds: int, microseconds: int) -> None:
    row = UserRow(updated_at=NOON)
    touch(row, NOON + timedelta(seconds=seconds))
    assert row.updated_at == NOON + timedelta(microseconds=microseconds)
