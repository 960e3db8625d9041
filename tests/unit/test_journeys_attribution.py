"""What sources are owed: whatever the paths, the shares are the revenue."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from kit.people.vault import Vault
from services.journeys.attribution import LOOKBACK, MARKOV, MODELS, NONE, History, Order, Visit, attribute, paths, visit_of, visits_of
from services.journeys.markov import MOST_STATES, OTHER, removal_effects
from services.journeys.rules import DIRECT, Glimpse
from services.journeys.shares import Ledger, Share, split

NOW = datetime(2026, 11, 22, tzinfo=UTC)
CENT = Decimal("0.01")
EVERY_MODEL = [*MODELS, MARKOV]
SOURCES = [DIRECT, "google", "newsletter", "facebook", "partner.example"]
VAULT = Vault(bytes(32))
quick = settings(max_examples=60, deadline=None, derandomize=True)

amounts = st.decimals(-1_000_000, 1_000_000, places=2)
weights = st.dictionaries(st.sampled_from(SOURCES), st.integers(1, 1000), min_size=1)


def by_name(name: str) -> bytes:
    return name.encode()


def ledger() -> Ledger:
    return Ledger(CENT, lambda order, name: VAULT.digest(f"{order}\0{name}".encode(), purpose="attribution"))


@st.composite
def shops(draw: st.DrawFn) -> tuple[list[Order], dict[str, list[Visit]]]:
    """Orders and visits of some persons, at times of which several are the same."""
    orders: list[Order] = []
    visits: dict[str, list[Visit]] = {}
    for person in "abc":
        began = draw(st.lists(st.tuples(st.integers(0, 130), st.sampled_from(SOURCES)), max_size=6))
        visits[person] = [
            Visit(NOW - timedelta(days=days), f"session:{person}{number}", source, direct=source == DIRECT)
            for number, (days, source) in enumerate(began)
        ]
        for number, (days, net, own) in enumerate(draw(st.lists(st.tuples(st.integers(0, 100), amounts, st.booleans()), max_size=4))):
            session = visits[person][0].session if own and visits[person] else ""
            orders.append(Order(f"{person}{number}", person, session, NOW - timedelta(days=days), net))
    return orders, visits


def attributed(model: str, orders: Sequence[Order], visits: Mapping[str, Sequence[Visit]]) -> Mapping[str, Share]:
    own = {visit.session: visit for several in visits.values() for visit in several}
    lost = [several for person, several in visits.items() if several and person not in {order.person for order in orders}]
    return attribute(model, orders, paths(orders, visits, own), lost, ledger())


@quick
@given(shops(), st.sampled_from(EVERY_MODEL))
def test_shares_add_up_to_the_revenue_to_the_cent(shop: tuple[list[Order], dict[str, list[Visit]]], model: str) -> None:
    orders, visits = shop
    shares = attributed(model, orders, visits)
    assert sum(share.amount for share in shares.values()) == sum(order.net or 0 for order in orders)
    assert sum(share.orders for share in shares.values()) == len(orders)
    assert all(share.amount == share.amount.quantize(CENT) for share in shares.values())


@quick
@given(shops(), st.sampled_from(EVERY_MODEL), st.randoms(use_true_random=False))
def test_the_order_of_what_is_given_does_not_matter(shop: tuple[list[Order], dict[str, list[Visit]]], model: str, chance: Random) -> None:
    orders, visits = shop
    shuffled = {person: chance.sample(several, len(several)) for person, several in chance.sample(list(visits.items()), len(visits))}
    assert attributed(model, chance.sample(orders, len(orders)), shuffled) == attributed(model, orders, visits)


@quick
@given(shops(), st.sampled_from([*MODELS]))
def test_a_refunded_order_leaves_what_the_others_gave(shop: tuple[list[Order], dict[str, list[Visit]]], model: str) -> None:
    orders, visits = shop
    whole = attributed(model, orders, visits)
    for refunded in orders:
        own = {visit.session: visit for several in visits.values() for visit in several}
        [theirs] = [attribute(model, [refunded], paths(orders, visits, own), [], ledger())]
        left = attributed(model, [order._replace(net=Decimal(0)) if order is refunded else order for order in orders], visits)
        assert {name: share.amount - (theirs[name].amount if name in theirs else 0) for name, share in whole.items()} == {
            name: share.amount for name, share in left.items()
        }


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


def test_the_cent_that_is_left_favours_no_name() -> None:
    visits = {"a": [visit(days, name) for days, name in ((3, "a"), (2, "b"), (1, "c"))]}
    orders = [Order(f"order-{number}", "a", "", NOW, Decimal(1)) for number in range(3000)]
    shares = attribute("linear", orders, {order.purchase_id: visits["a"] for order in orders}, [], ledger())
    assert sum(share.amount for share in shares.values()) == 3000
    # Each of 3000 cents goes to one of three: 1000 each, and a standard deviation of 26.
    assert all(abs(share.amount - 1000) < Decimal("1.30") for share in shares.values())
    assert len({share.amount for share in shares.values()}) > 1


def test_of_the_same_order_the_same_name_gets_the_cent() -> None:
    path = [visit(2, "a"), visit(1, "b")]
    first: dict[int, str] = {}
    for number in range(20):
        order = Order(f"order-{number}", "a", "", NOW, Decimal("0.01"))
        once, again = (attribute("linear", [order], {order.purchase_id: path}, [], ledger()) for _ in range(2))
        assert once == again
        refunded = attribute("linear", [order._replace(net=Decimal("-0.01"))], {order.purchase_id: path[::-1]}, [], ledger())
        assert {name: -share.amount for name, share in refunded.items()} == {name: share.amount for name, share in once.items()}
        first[number] = max(once, key=lambda name: once[name].amount)
    assert set(first.values()) == {"a", "b"}


def visit(days: float, name: str) -> Visit:
    return Visit(NOW - timedelta(days=days), f"session:{days}", name, direct=name == DIRECT)


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
    path = [visit(7 * (count - place), "google") for place in range(count)]
    found = MODELS[model](path, NOW)
    assert [Fraction(weight, sum(found)) for weight in found] == expected


def test_direct_visits_get_the_last_non_direct_share_only_among_themselves() -> None:
    assert MODELS["last_non_direct"]([visit(3, "google"), visit(2, DIRECT), visit(1, DIRECT)], NOW) == [1, 0, 0]
    assert MODELS["last_non_direct"]([visit(2, DIRECT), visit(1, DIRECT)], NOW) == [0, 1]


def test_a_path_is_what_lies_between_two_orders_and_ninety_days() -> None:
    visits = {"a": [visit(days, f"v{days}") for days in (95, 90, 60, 30, 20, 1)]}
    orders = [Order(f"o{days}", "a", "", NOW - timedelta(days=days), Decimal(1)) for days in (30, 25, 10, 0)]
    found = paths(orders, visits, {})
    assert {name: [each.name for each in path] for name, path in found.items()} == {
        "o30": ["v95", "v90", "v60", "v30"],
        "o25": [],
        "o10": ["v20"],
        "o0": ["v1"],
    }
    alone = paths(orders[-1:], visits, {})
    assert [each.name for each in alone["o0"]] == ["v90", "v60", "v30", "v20", "v1"]
    assert timedelta(days=90) == LOOKBACK


def test_the_visit_of_an_order_is_on_its_path_whoever_was_seen_in_it() -> None:
    own = {"session:2": visit(2, "google")}
    order = Order("o", "a", "session:2", NOW, Decimal(10))
    assert attribute("linear", [order], paths([order], {}, own), [], ledger())["google"].amount == 10
    assert list(attribute("linear", [order], paths([order], {}, {}), [], ledger())) == [NONE]
    again = order._replace(purchase_id="p", paid_at=NOW + timedelta(minutes=1))
    assert [each.name for each in paths([again, order], {}, own)["p"]] == ["google"]


def test_a_visit_is_grouped_by_what_it_says() -> None:
    told = Glimpse("session:1", "", NOW, NOW, "e1", "google", "search", "")
    assert [visit_of(told, group).name for group in ("source", "medium", "campaign")] == ["google", "search", "(not set)"]
    assert visit_of(Glimpse("session:1", "", NOW, NOW, "e1"), "campaign").name == DIRECT
    pages = [
        '[["a","session:1","2026-11-22 00:00:00.000000",null,null,null,null,null]]',
        '[["a","session:1","2026-11-23 00:00:00.000000","2026-11-22 00:00:00.000000","e1","google","search",""]]',
    ]
    assert visits_of(pages, "source") == visits_of(pages[::-1], "source") == {"a": [Visit(NOW, "session:1", "google", direct=False)]}


def test_a_visit_that_somebody_else_began_before_the_period_is_no_lost_path_of_it() -> None:
    began = ["2026-11-20 00:00:00.000000", "2026-11-22 00:00:00.000000"]
    page = json.dumps([["a", "session:1", at, None, None, None, None, None] for at in began] + [["b", "session:2", began[1], *[None] * 5]])
    found = History((), (), (), [page], "source")
    assert found.lost(NOW) == [[Visit(NOW, "session:2", DIRECT, direct=True)]]
    assert len(found.lost(None)) == 2


def removed(bought: Sequence[Sequence[str]], lost: Sequence[Sequence[str]], name: str) -> float:
    """The chance of a purchase when all that leads to a name leads to nothing, by walking the chain many steps."""
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


chains = st.lists(st.lists(st.sampled_from("abcd"), min_size=1, max_size=5), max_size=6)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(chains.filter(bool), chains)
def test_removal_effects_are_those_of_walking_the_chain(bought: list[list[str]], lost: list[list[str]]) -> None:
    found = removal_effects(bought, lost)
    whole = removed(bought, lost, "nobody")
    effects = {name: 1 - removed(bought, lost, name) / whole for name in {name for path in [*bought, *lost] for name in path}}
    assert sum(found.values()) == 1
    assert {name: float(effect) for name, effect in found.items()} == pytest.approx(
        {name: effect / sum(effects.values()) for name, effect in effects.items()}, abs=1e-9
    )


def test_the_chain_of_the_literature_is_reproduced() -> None:
    # C1>C2>C3 buys, C1 and C2>C3 don't: the example with which removal effects are commonly explained.
    found = removal_effects([["C1", "C2", "C3"]], [["C1"], ["C2", "C3"]])
    assert {name: round(float(effect), 4) for name, effect in found.items()} == {"C1": 0.2, "C2": 0.4, "C3": 0.4}


def test_nobody_who_buys_means_no_effect() -> None:
    assert removal_effects([], [["a"]]) == {}
    assert attribute(MARKOV, [], {}, [[visit(1, "google")]], ledger()) == {}


def test_rare_names_share_one_state() -> None:
    bought = [[f"campaign {number:04}"] * (1 + (number < 10)) for number in range(1000)]
    found = removal_effects(bought, [])
    assert len(found) == MOST_STATES
    assert float(found[OTHER]) == pytest.approx((1000 - MOST_STATES + 1) / 1000)
