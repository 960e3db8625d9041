"""Who may be whom, who wins and how far a person has come, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import permutations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pmp.ingestion.v1.event_pb2 import EventStored

from kit.idempotency import key_of
from services.identity import rules
from services.identity.observations import may_be_made, observation_of
from services.identity.rules import Campaign, Order

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
ORDERS = st.lists(st.builds(Order, st.decimals(-100, 10_000, places=4), st.booleans(), st.booleans()), max_size=8)
CAMPAIGNS = st.lists(
    st.builds(Campaign, st.datetimes(timezones=st.just(UTC)), st.fixed_dictionaries({"source": st.sampled_from("abc")})), max_size=5
)


@settings(deadline=None, derandomize=True, max_examples=60)
@given(ORDERS, CAMPAIGNS, st.randoms(use_true_random=False))
def test_a_standing_does_not_depend_on_the_order_in_which_things_became_known(
    orders: list[Order], campaigns: list[Campaign], shuffle: st.DataObject
) -> None:
    before = rules.standing(lead=False, orders=orders, campaigns=campaigns)
    for some in (orders, campaigns):
        shuffle.shuffle(some)  # pyright: ignore[reportAttributeAccessIssue,reportUnknownMemberType]
    assert rules.standing(lead=False, orders=orders, campaigns=campaigns) == before
    assert before.lifetime_value == sum((order.net for order in orders), Decimal(0))
    assert before.utm_attribution == (min(campaigns, key=lambda it: (it.at, it.utm["source"])).utm if campaigns else None)


@pytest.mark.parametrize(
    ("lead", "orders", "expected"),
    [
        (False, [], "prospect"),
        (True, [], "lead"),
        (True, [(False, True)], "lead"),
        (False, [(True, False)], "customer"),
        (True, [(True, False), (False, True)], "customer"),
        (False, [(True, False), (True, True)], "subscriber"),
    ],
)
def test_a_person_comes_as_far_as_its_orders_and_its_address_say(lead: bool, orders: list[tuple[bool, bool]], expected: str) -> None:
    told = [Order(Decimal(0), paid, membership) for paid, membership in orders]
    assert rules.standing(lead=lead, orders=told, campaigns=()).user_type == expected


def test_of_writers_of_a_field_the_latest_wins_in_every_order_of_arrival() -> None:
    writes = [({"a": 1, "b": 1}, 1), ({"a": 2, "c": 2}, 2), ({"b": None, "c": 3}, 3), ({"b": 9}, 0)]
    ends: list[tuple[dict[str, int], dict[str, int]]] = []
    for order in permutations(writes):
        values: dict[str, int] = {}
        times: dict[str, int] = {}
        for changes, seconds in order:
            values, times = rules.written(values, times, changes, NOON + timedelta(seconds=seconds))
        ends.append((values, times))
    assert ends[0][0] == {"a": 2, "c": 3}
    assert all(end == ends[0] for end in ends)


def test_preferences_of_a_person_are_those_written_last_with_any_of_its_users() -> None:
    one = ({"a": 1, "b": 1, "d": 1}, {"preferences.a": 1, "preferences.b": 3, "preferences.d": 1, "email": 9})
    other = ({"a": 2, "b": 2}, {"preferences.a": 2, "preferences.b": 3, "preferences.d": 2})
    assert rules.combined([one, other]) == {"a": 2, "b": 1}
    assert rules.combined([other, one]) == {"a": 2, "b": 2}


def test_a_merge_has_its_limits() -> None:
    assert rules.merge_refusal({"a": 1}, {"b": None}) == ""
    assert rules.merge_refusal({"a": 1, "c": None}, {"b": 1}) == ""
    assert "WordPress" in rules.merge_refusal({"a": 1}, {"b": None, "c": 2})
    many = {str(number): None for number in range(rules.LARGEST_PERSON)}
    assert str(rules.LARGEST_PERSON) in rules.merge_refusal(many, {"b": None})


def test_a_wordpress_user_has_a_number_that_can_be() -> None:
    assert rules.wordpress_id("wordpress:42") == 42
    assert [rules.wordpress_id(name) for name in ("wordpress:0", f"wordpress:{2**63}", "session:42", "user:42", "")] == [None] * 5
    assert [may_be_made(name) for name in ("wordpress:1", "email:ab", "wordpress:0", "user:x", "session:s", "")] == [
        True,
        True,
        *[False] * 4,
    ]


def test_an_event_that_says_nothing_of_anybody_is_passed_over() -> None:
    page_view = EventStored(scope="site")
    page_view.event.session_id = "s"
    assert observation_of(page_view) is None
    page_view.event.utm_parameters.source = "news"
    seen = observation_of(page_view)
    assert seen is not None
    assert (seen.names, seen.campaign) == ([], ("session:s", Campaign(datetime(1970, 1, 1, tzinfo=UTC), {"source": "news"})))
    page_view.event.session_id = "null"
    assert observation_of(page_view) is None


def test_an_address_typed_in_a_browser_is_no_evidence_and_who_is_logged_in_is() -> None:
    lead = EventStored(scope="site", email_hash=b"h" * 32, key="e1")
    lead.event.event_type, lead.event.session_id = "lead_capture", "s1"
    servers = observation_of(lead)
    assert servers is not None
    assert (servers.address is not None, servers.lead) == (True, True)
    lead.key = key_of("e1", from_browser=True)
    assert observation_of(lead) is None
    lead.event.user_id, lead.is_update = "7", True
    passed_on = observation_of(lead)
    assert passed_on is not None
    assert (passed_on.names, passed_on.session, passed_on.lead) == (["wordpress:7"], "session:s1", False)
