"""Which user an identifier leads to, which one has an address and which report of a fact counts, without a database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import permutations
from typing import Any

import pytest

from services.identity.addresses import AddressClaim, OtherUser, address_claim
from services.identity.facts import PendingFacts
from services.identity.fields import microseconds
from services.identity.lifecycle import Campaign
from services.identity.links import Evidence, Link, Links, affected_by_merge, browser_identifiers, user_ids_in
from services.identity.observations import IdentityObservation, SeenCampaign
from services.identity.profiles import Address, Subscription

NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
LATER = NOON + timedelta(seconds=1)
EARLIER = NOON - timedelta(seconds=1)


def link(identifier: str, user_id: str, at: datetime = NOON, *, withdrawn: bool = False) -> Link:
    return Link(identifier, user_id, at, Evidence.EVENT, withdrawn)


def links_of(*several: Link, users: tuple[str, ...] = ()) -> Links:
    links = Links()
    links.load({each.identifier for each in several}, several)
    links.load_users(users)
    return links


def test_an_identifier_leads_to_the_user_it_was_first_seen_with() -> None:
    several = [link("session:s", "a", LATER), link("session:s", "b"), link("session:s", "c", EARLIER, withdrawn=True)]
    for order in permutations(several):
        links = links_of(*order)
        assert (links.owner("session:s"), links.users_seen_with("session:s")) == ("b", ["b", "a"])
    assert links_of(link("session:s", "b"), link("session:s", "a")).owner("session:s") == "a", "the same for every reader"
    assert Links().owner("session:s") == ""


def test_the_id_of_a_user_needs_no_link() -> None:
    links = links_of(users=("a",))
    assert [links.owner(identifier) for identifier in ("user:a", "user:b", "")] == ["a", "", ""]
    assert links.missing(["user:a", "", "session:s"]) == {"session:s"}
    assert user_ids_in(["user:a", "session:s", ""]) == {"a"}


def test_identifiers_are_loaded_once_whether_they_have_links_or_not() -> None:
    links = Links()
    links.load(["session:s", "session:t"], [link("session:s", "a")])
    assert links.missing(["session:s", "session:t", "session:u"]) == {"session:u"}


@pytest.mark.parametrize(
    ("known", "at", "adds"),
    [
        ([], NOON, True),
        ([link("session:s", "a")], NOON, False),
        ([link("session:s", "a")], LATER, False),
        ([link("session:s", "a")], EARLIER, True),
        ([link("session:s", "a", withdrawn=True)], LATER, True),
        ([link("session:s", "b")], LATER, True),
    ],
)
def test_a_link_that_is_new_or_earlier_changes_the_graph(known: list[Link], at: datetime, adds: bool) -> None:
    assert links_of(*known).adds("session:s", "a", at) is adds


def test_an_id_that_stands_for_a_missing_one_is_never_linked() -> None:
    assert not Links().adds("session:null", "a", NOON)
    assert browser_identifiers("null", "0") == []
    assert browser_identifiers("s", "a") == ["session:s", "anonymous:a"]


def test_a_withdrawn_link_keeps_its_time_and_its_evidence() -> None:
    links = links_of(link("email:h", "a"))
    links.put(links.withdrawn("email:h", "a"))
    assert links.owner("email:h") == ""
    assert links.withdrawn("email:h", "a") == link("email:h", "a", withdrawn=True)


def test_a_merge_affects_all_users_of_both_persons_and_all_their_identifiers() -> None:
    assert affected_by_merge(["a", "b"], ["session:s", "email:h"]) == {"user:a", "user:b", "session:s", "email:h"}


@pytest.mark.parametrize(
    ("other", "evidence", "claim"),
    [
        (OtherUser(is_same_person=True, has_address=True, field_times={}), Evidence.UPDATE, AddressClaim.HELD_BY_SAME_PERSON),
        (OtherUser(is_same_person=True, has_address=False, field_times={}), Evidence.UPDATE, AddressClaim.SEEN_BY_SAME_PERSON),
        (OtherUser(is_same_person=False, has_address=True, field_times={}), Evidence.UPDATE, AddressClaim.CONFLICTS),
        (OtherUser(is_same_person=False, has_address=True, field_times={}), Evidence.REGISTRATION, AddressClaim.MOVES),
        (
            OtherUser(is_same_person=False, has_address=True, field_times={"email": microseconds(LATER)}),
            Evidence.REGISTRATION,
            AddressClaim.OUTDATED,
        ),
        (
            OtherUser(is_same_person=False, has_address=False, field_times={"email": microseconds(LATER)}),
            Evidence.UPDATE,
            AddressClaim.MOVES,
        ),
    ],
)
def test_an_address_moves_to_the_later_writer_and_never_by_an_update(other: OtherUser, evidence: Evidence, claim: AddressClaim) -> None:
    assert address_claim({}, other, NOON, evidence) is claim


def test_an_update_older_than_the_own_address_does_not_conflict() -> None:
    other = OtherUser(is_same_person=False, has_address=True, field_times={})
    assert address_claim({"email": microseconds(LATER)}, other, NOON, Evidence.UPDATE) is AddressClaim.OUTDATED


def test_of_campaigns_the_first_counts_and_of_choices_the_last_in_every_order_of_arrival() -> None:
    campaigns = [Campaign(at, {"source": str(at)}) for at in (NOON, EARLIER, LATER)]
    choices = [Subscription("offers", subscribed, at) for subscribed, at in ((True, NOON), (False, LATER), (True, EARLIER))]
    for order in permutations(range(3)):
        facts = PendingFacts()
        for index in order:
            facts.add_campaign("session:s", campaigns[index])
            facts.add_subscription("a", choices[index])
        assert (facts.campaign_identifiers, facts.subscribers) == ({"session:s"}, {"a"})
        assert facts.first_campaigns({}) == {"session:s": campaigns[1]}
        assert facts.newer_subscriptions({}) == {("a", "offers"): choices[1]}


def test_what_is_stored_stays_unless_a_campaign_is_earlier_or_a_choice_later() -> None:
    facts = PendingFacts()
    facts.add_campaign("session:s", Campaign(NOON, {"source": "newsletter"}))
    facts.add_subscription("a", Subscription("offers", subscribed=False, changed_at=NOON))
    assert facts.first_campaigns({"session:s": NOON}) == {}
    assert facts.first_campaigns({"session:s": LATER}) != {}
    stored = {at: Subscription("offers", subscribed=True, changed_at=at) for at in (EARLIER, NOON, LATER)}
    assert [bool(facts.newer_subscriptions({("a", "offers"): each})) for each in stored.values()] == [True, True, False]
    assert facts.newer_subscriptions({("a", "offers"): Subscription("offers", subscribed=False, changed_at=NOON)}) == {}


def test_an_order_counts_as_last_reported_until_it_is_written() -> None:
    facts = PendingFacts()
    for paid in (False, True):
        facts.add_order({"purchase_id": "p1", "paid": paid})
    assert facts.orders == [{"purchase_id": "p1", "paid": True}]
    facts.clear()
    assert facts.orders == []


def seen(**fields: Any) -> IdentityObservation:
    return IdentityObservation(NOON, Evidence.EVENT, **fields)


ADDRESS = Address(b"h", None)
CAMPAIGN = SeenCampaign("session:s", Campaign(NOON, {"source": "newsletter"}))
KNOWN = links_of(link("wordpress:1", "a"), link("session:s", "a"), users=("a",))


@pytest.mark.parametrize(
    ("observation", "changes"),
    [
        (seen(user="wordpress:1", session="session:s"), False),
        (seen(user="user:a", session="session:s"), False),
        (seen(user="user:b", session="session:t"), False),
        (seen(session="session:t"), False),
        (seen(user="wordpress:1", session="session:t"), True),
        (seen(user="wordpress:2"), True),
        (seen(address=ADDRESS), True),
        (seen(user="user:b", address=ADDRESS), True),
        (seen(user="wordpress:1", session="session:s", login=True), True),
    ],
)
def test_an_observation_changes_the_graph_by_a_new_user_a_new_link_or_a_fact(observation: IdentityObservation, changes: bool) -> None:
    assert observation.changes_graph(KNOWN, {}) is changes


def test_a_campaign_changes_the_graph_when_it_is_the_first_of_its_session() -> None:
    known: list[dict[str, datetime]] = [{}, {"session:s": EARLIER}, {"session:s": NOON}, {"session:s": LATER}]
    assert [seen(campaign=CAMPAIGN).changes_graph(Links(), campaigns) for campaigns in known] == [True, False, False, True]


def test_the_strongest_identifier_that_has_a_user_or_creates_one_resolves_an_observation() -> None:
    assert seen(user="wordpress:1", address=ADDRESS).resolving_identifier(KNOWN) == "wordpress:1"
    assert seen(user="user:b", address=ADDRESS).resolving_identifier(KNOWN) == ADDRESS.identifier
    assert seen(user="user:b", session="session:s").resolving_identifier(KNOWN) == ""
