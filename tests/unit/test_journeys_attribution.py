"""What sources are owed: whatever the paths, the shares are the revenue."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.people.hashing import KeyedHasher
from services.journeys.attribution import (
    EVERY_MODEL,
    LOOKBACK,
    MARKOV,
    MODELS,
    NONE,
    BrowserSession,
    Order,
    Path,
    Totals,
    browser_session_of,
    paths_of,
)
from services.journeys.markov import MOST_STATES, OTHER, removal_effects, steps_of
from services.journeys.rules import DIRECT, SessionFacts
from services.journeys.shares import Share, Splitter, split

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CENT = Decimal("0.01")
SOURCES = [DIRECT, "google", "newsletter", "facebook", "partner.example"]
HASHER = KeyedHasher(bytes(32))
quick = settings(max_examples=60, deadline=None, derandomize=True)

amounts = st.decimals(-1_000_000, 1_000_000, places=2)
weights = st.dictionaries(st.sampled_from(SOURCES), st.integers(1, 1000), min_size=1)


def by_name(name: str) -> bytes:
    return name.encode()


SPLITTER = Splitter(CENT, lambda order, name: HASHER.digest(f"{order}\0{name}".encode(), purpose="attribution"))
Shop = dict[str, tuple[list[Order], list[BrowserSession]]]
"""Orders and sessions by person."""


@st.composite
def shops(draw: st.DrawFn) -> Shop:
    """Orders and sessions of some persons, at times of which several are the same."""
    shop: Shop = {}
    for person in "abc":
        began = draw(st.lists(st.tuples(st.integers(0, 230), st.sampled_from(SOURCES)), max_size=6))
        sessions = [browser_session(days, source, f"session:{person}{number}") for number, (days, source) in enumerate(began)]
        orders: list[Order] = []
        for number, (days, net, own) in enumerate(draw(st.lists(st.tuples(st.integers(0, 100), amounts, st.booleans()), max_size=4))):
            orders.append(Order(f"{person}{number}", sessions[0].identifier if own and sessions else "", NOW - timedelta(days=days), net))
        shop[person] = orders, sessions
    return shop


def paths(shop: Shop) -> list[Path]:
    return [path for person, (orders, sessions) in shop.items() for path in paths_of(person, orders, sessions, {})]


def totals(model: str, given_paths: Sequence[Path]) -> Totals:
    found = Totals(model, "source", SPLITTER)
    for path in given_paths:
        found.add(path)
    return found


def attributed(model: str, shop: Shop) -> Mapping[str, Share]:
    return totals(model, paths(shop)).shares()


@quick
@given(shops(), st.sampled_from(EVERY_MODEL))
def test_shares_add_up_to_the_revenue_to_the_cent(shop: Shop, model: str) -> None:
    orders = [order for several, _ in shop.values() for order in several]
    shares = attributed(model, shop)
    assert sum(share.amount for share in shares.values()) == sum(order.net or 0 for order in orders)
    assert sum(share.orders for share in shares.values()) == len(orders)
    assert all(share.amount == share.amount.quantize(CENT) for share in shares.values())


@quick
@given(shops(), st.sampled_from(EVERY_MODEL), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(shop: Shop, model: str, chance: Random) -> None:
    shuffled = {person: tuple(chance.sample(each, len(each)) for each in shop[person]) for person in chance.sample(list(shop), len(shop))}
    assert attributed(model, shuffled) == attributed(model, shop)  # pyright: ignore[reportArgumentType]


@quick
@given(shops(), st.sampled_from([*MODELS]))
def test_a_refunded_order_leaves_what_the_others_gave(shop: Shop, model: str) -> None:
    whole = attributed(model, shop)
    for person, (orders, sessions) in shop.items():
        for refunded in orders:
            [own] = [path for path in paths(shop) if path.ending == f"order:{refunded.purchase_id}"]
            theirs = totals(model, [own]).shares()
            left = attributed(
                model, {**shop, person: ([each._replace(net=Decimal(0)) if each is refunded else each for each in orders], sessions)}
            )
            assert {name: share.amount - (theirs[name].amount if name in theirs else 0) for name, share in whole.items()} == {
                name: share.amount for name, share in left.items()
            }


@quick
@given(shops(), st.sampled_from(EVERY_MODEL), st.randoms(use_true_random=False))
def test_totals_add_up_and_what_is_taken_away_leaves_no_trace(shop: Shop, model: str, chance: Random) -> None:
    every = paths(shop)
    taken = chance.sample(every, len(every) // 2)
    first, second = totals(model, taken), totals(model, [path for path in every if path not in taken])
    second.merge(first.dumps())
    assert second.shares() == attributed(model, shop)
    for path in taken:
        second.add(Path.loads(path.dumps()), -1)
    left = totals(model, [path for path in every if path not in taken])
    assert content(second) == content(left)


def content(found: Totals) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(found.dumps())
    return {**read, "net": Decimal(read["net"]), "shares": sorted(read["shares"]), "steps": sorted(read["steps"])}


@quick
@given(shops())
def test_every_session_is_on_one_path_that_lasts_ninety_days_at_most(shop: Shop) -> None:
    for person, (orders, sessions) in shop.items():
        found = [*paths_of(person, orders, sessions, {})]
        assert len({path.ending for path in found}) == len(found)
        assert sum(path.bought for path in found) == len(orders)
        for path in found:
            assert list(path.sessions) == sorted(path.sessions)
            assert not path.sessions or path.ended_at - path.sessions[0].began <= LOOKBACK
        seen = [each.identifier for path in found for each in path.sessions]
        assert set(seen) == {each.identifier for each in sessions}
        # Only the session in which a person bought twice is on two.
        assert {each for each in seen if seen.count(each) > 1} <= {order.session for order in orders}


@quick
@given(amounts, weights)
def test_parts_add_up_and_are_less_than_a_cent_from_exact(total: Decimal, parts: dict[str, int]) -> None:
    found = split(total, tuple(parts.items()), CENT, by_name)
    assert sum(found.values()) == total
    whole = sum(parts.values())
    assert all(abs(Fraction(found[name]) - Fraction(total) * Fraction(weight, whole)) < Fraction(CENT) for name, weight in parts.items())


@pytest.mark.parametrize(
    ("total", "unit", "expected"),
    [
        ("0.01", "0.01", {"a": "0.01", "b": "0", "c": "0"}),
        ("100", "0.01", {"a": "33.34", "b": "33.33", "c": "33.33"}),
        ("-100", "0.01", {"a": "-33.34", "b": "-33.33", "c": "-33.33"}),
        ("100", "1", {"a": "34", "b": "33", "c": "33"}),
        ("1.0005", "0.01", {"a": "0.3405", "b": "0.33", "c": "0.33"}),
        ("0", "0.01", {"a": "0", "b": "0", "c": "0"}),
    ],
)
def test_what_rounding_leaves_goes_to_the_largest_remainders(total: str, unit: str, expected: dict[str, str]) -> None:
    thirds = tuple((name, 1) for name in "cab")
    assert split(Decimal(total), thirds, Decimal(unit), by_name) == {name: Decimal(part) for name, part in expected.items()}


def bought(purchase_id: str, net: str, sessions: Sequence[BrowserSession]) -> Path:
    return Path("a", f"order:{purchase_id}", NOW, Decimal(net), tuple(sessions))


def test_the_cent_that_is_left_favours_no_name() -> None:
    sessions = [browser_session(days, name) for days, name in ((3, "a"), (2, "b"), (1, "c"))]
    shares = totals("linear", [bought(f"order-{number}", "1", sessions) for number in range(3000)]).shares()
    assert sum(share.amount for share in shares.values()) == 3000
    # Each of 3000 cents goes to one of three: 1000 each, and a standard deviation of 26.
    assert all(abs(share.amount - 1000) < Decimal("1.30") for share in shares.values())
    assert len({share.amount for share in shares.values()}) > 1


def test_of_the_same_order_the_same_name_gets_the_cent() -> None:
    path = [browser_session(2, "a"), browser_session(1, "b")]
    first: dict[int, str] = {}
    for number in range(20):
        once, again = (totals("linear", [bought(f"order-{number}", "0.01", path)]).shares() for _ in range(2))
        assert once == again
        refunded = totals("linear", [bought(f"order-{number}", "-0.01", path[::-1])]).shares()
        assert {name: -share.amount for name, share in refunded.items()} == {name: share.amount for name, share in once.items()}
        first[number] = max(once, key=lambda name: once[name].amount)
    assert set(first.values()) == {"a", "b"}


def browser_session(days: float, name: str, identifier: str = "") -> BrowserSession:
    return BrowserSession(NOW - timedelta(days=days), identifier or f"session:{days}", None if name == DIRECT else name)


@pytest.mark.parametrize(
    ("model", "count", "expected"),
    [
        ("first_touch", 3, [1, 0, 0]),
        ("last_touch", 3, [0, 0, 1]),
        ("last_non_direct", 3, [0, 0, 1]),
        ("linear", 4, [Fraction(1, 4)] * 4),
        ("position_based", 1, [1]),
        ("position_based", 2, [Fraction(1, 2)] * 2),
        ("position_based", 4, [Fraction(2, 5), Fraction(1, 10), Fraction(1, 10), Fraction(2, 5)]),
        ("time_decay", 3, [Fraction(1, 7), Fraction(2, 7), Fraction(4, 7)]),
    ],
)
def test_each_model_is_the_one_it_is_known_as(model: str, count: int, expected: list[Fraction]) -> None:
    path = [browser_session(7 * (count - index), "google") for index in range(count)]
    found = MODELS[model](path, NOW)
    assert [Fraction(weight, sum(found)) for weight in found] == expected


def test_direct_sessions_get_the_last_non_direct_share_only_among_themselves() -> None:
    path = [browser_session(3, "google"), browser_session(2, DIRECT), browser_session(1, DIRECT)]
    assert MODELS["last_non_direct"](path, NOW) == [1, 0, 0]
    assert MODELS["last_non_direct"](path[1:], NOW) == [0, 1]


def sources(found: Iterable[Path]) -> dict[str, list[str | None]]:
    """The sources on each path, by its ending."""
    return {path.ending: [each.source for each in path.sessions] for path in found}


def test_a_path_is_what_lies_between_two_orders_and_ninety_days() -> None:
    sessions = [browser_session(days, f"v{days}") for days in (95, 90, 60, 30, 20, 1)]
    orders = [Order(f"{days}", "", NOW - timedelta(days=days), Decimal(1)) for days in (30, 25, 10, 0)]
    assert sources(paths_of("a", orders, sessions, {})) == {
        "order:30": ["v95", "v90", "v60", "v30"],
        "order:25": [],
        "order:10": ["v20"],
        "order:0": ["v1"],
    }
    assert sources(paths_of("a", orders[-1:], sessions, {})) == {
        "session:95": ["v95"],
        "order:0": ["v90", "v60", "v30", "v20", "v1"],
    }
    assert timedelta(days=90) == LOOKBACK


def test_sessions_that_no_order_followed_are_on_lost_paths_of_ninety_days() -> None:
    sessions = [browser_session(days, f"v{days}") for days in (300, 250, 210, 209, 119, 3)]
    assert sources(paths_of("a", [], sessions, {})) == {
        "session:210": ["v300", "v250", "v210"],
        "session:119": ["v209", "v119"],
        "session:3": ["v3"],
    }
    order = Order("o", "", NOW - timedelta(days=205), Decimal(1))
    assert sources(paths_of("a", [order], sessions, {})) == {
        "session:300": ["v300"],
        "order:o": ["v250", "v210", "v209"],
        "session:119": ["v119"],
        "session:3": ["v3"],
    }


def test_the_session_of_an_order_is_on_its_path_whichever_identifiers_were_seen_in_it() -> None:
    placed_in = {"session:2": browser_session(2, "google")}
    order = Order("o", "session:2", NOW, Decimal(10))
    assert totals("linear", [*paths_of("a", [order], [], placed_in)]).shares()["google"].amount == 10
    assert list(totals("linear", [*paths_of("a", [order], [], {})]).shares()) == [NONE]
    again = order._replace(purchase_id="p", paid_at=NOW + timedelta(minutes=1))
    assert sources(paths_of("a", [again, order], [], placed_in))["order:p"] == ["google"]


def test_a_session_is_grouped_by_its_facts() -> None:
    session = browser_session_of(SessionFacts("session:1", "", NOW, NOW, "e1", "google", "search", ""))
    assert [session.name(group) for group in ("source", "medium", "campaign")] == ["google", "search", "(not set)"]
    assert browser_session_of(SessionFacts("session:1", "", NOW, NOW, "e1")).name("campaign") == DIRECT


def removed(bought: Sequence[Sequence[str]], lost: Sequence[Sequence[str]], name: str) -> float:
    """The probability of a purchase when every transition to a name leads to nothing, by walking the chain many steps."""
    transitions: dict[str, list[str]] = {}
    for path, end in [*((path, "+") for path in bought), *((path, "-") for path in lost)]:
        for state, to in pairwise(["^", *path, end]):
            transitions.setdefault(state, []).append("-" if to == name else to)
    chances, chance = {"^": 1.0}, 0.0
    for _ in range(2000):
        after: dict[str, float] = {}
        for state, likely in chances.items():
            for to in transitions.get(state, []) if state not in "+-" else []:
                after[to] = after.get(to, 0) + likely / len(transitions[state])
        chance += after.pop("+", 0)
        chances = {state: likely for state, likely in after.items() if state != "-" and likely > 1e-15}
        if not chances:
            break
    return chance


def effects_of(won: Sequence[Sequence[str]], lost: Sequence[Sequence[str]]) -> Mapping[str, Fraction]:
    ended = [*((path, True) for path in won), *((path, False) for path in lost)]
    return removal_effects(Counter(step for path, won in ended for step in steps_of(path, bought=won)))


chains = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), max_size=6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(chains.filter(bool), chains)
def test_removal_effects_are_those_of_walking_the_chain(bought: list[list[str]], lost: list[list[str]]) -> None:
    found = effects_of(bought, lost)
    whole = removed(bought, lost, "nobody")
    effects = {name: 1 - removed(bought, lost, name) / whole for name in {name for path in [*bought, *lost] for name in path}}
    assert sum(found.values()) == 1
    assert {name: float(effect) for name, effect in found.items()} == pytest.approx(
        {name: effect / sum(effects.values()) for name, effect in effects.items()}, abs=1e-9
    )


def test_the_chain_of_the_literature_is_reproduced() -> None:
    # C1>C2>C3 buys, C1 and C2>C3 don't: the example with which removal effects are commonly explained.
    found = effects_of([["C1", "C2", "C3"]], [["C1"], ["C2", "C3"]])
    assert {name: round(float(effect), 4) for name, effect in found.items()} == {"C1": 0.2, "C2": 0.4, "C3": 0.4}


def test_nobody_who_buys_means_no_effect() -> None:
    assert effects_of([], [["a"]]) == {}
    assert totals(MARKOV, [*paths_of("a", [], [browser_session(1, "google")], {})]).shares() == {}


def test_rare_names_share_one_state() -> None:
    bought = [[f"campaign {number:04}"] * (1 + (number < 10)) for number in range(1000)]
    found = effects_of(bought, [])
    assert len(found) == MOST_STATES
    assert float(found[OTHER]) == pytest.approx((1000 - MOST_STATES + 1) / 1000)
