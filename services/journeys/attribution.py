"""Which sources the revenue of orders is owed to: pure, and the same whatever order the visits and orders are given in.

The path of an order is the visits of its person that began since the paid order before, at most 90 days back before it was paid,
the visit in which it was bought among them. That one alone is the path where nothing began since: somebody buys twice in one visit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from typing import Any, Final, NamedTuple

from kit.people.persons import subject_of
from services.journeys.markov import removal_effects
from services.journeys.rules import DIRECT, Glimpse, earliest

LOOKBACK: Final = timedelta(days=90)
NONE: Final = "(none)"
"""Stands for an order without a known visit."""
NOT_SET: Final = "(not set)"
"""Stands for what a visit from outside does not say, such as the campaign of a search."""
MARKOV: Final = "markov"

_HALF_LIFE: Final = timedelta(days=7)


class Visit(NamedTuple):
    """One visit on a path."""

    began: datetime
    session: str
    name: str
    """Of its source, medium or campaign."""
    direct: bool
    """Nothing led to it."""


class Order(NamedTuple):
    """A paid order."""

    purchase_id: str
    person: str
    session: str
    """Its own visit; empty when it is not known."""
    paid_at: datetime
    net: Decimal | None
    """Paid less refunded in the base currency; None without an exchange rate."""


@dataclass(slots=True)
class Share:
    """What is owed to one name."""

    amount: Decimal = Decimal(0)
    orders: Fraction = field(default_factory=Fraction)


def order_of(row: Any) -> Order:
    """A paid order as its row has it."""
    return Order(row.purchase_id, row.person, subject_of(session_id=row.session_id or ""), row.paid_at, row.net)


def visit_of(glimpse: Glimpse, group_by: str) -> Visit:
    """A visit under the name by which it is grouped: its source, medium or campaign."""
    if glimpse.source is None:
        return Visit(glimpse.started_at, glimpse.session, DIRECT, direct=True)
    return Visit(glimpse.started_at, glimpse.session, getattr(glimpse, group_by) or NOT_SET, direct=False)


def visits_of(rows: Iterable[Sequence[Any]], group_by: str) -> Mapping[str, list[Visit]]:
    """Visits by person, oldest first.

    Args:
        rows: person, visit, and what one subject's part in it says of the visit, as in `Glimpse`.
        group_by: source, medium or campaign.
    """
    parts: dict[tuple[str, str], list[Glimpse]] = defaultdict(list)
    for person, session, *said in rows:
        parts[person, session].append(Glimpse(session, "", *said))
    visits: dict[str, list[Visit]] = defaultdict(list)
    for (person, _), several in parts.items():
        visits[person].append(visit_of(earliest(several), group_by))
    return {person: sorted(several) for person, several in visits.items()}


def first_touch(path: Sequence[Visit], _paid_at: datetime) -> Sequence[Fraction]:
    """All to the first visit. Source: Google Analytics, "First interaction" (support.google.com/analytics/answer/1662518)."""
    return [Fraction(place == 0) for place in range(len(path))]


def last_touch(path: Sequence[Visit], _paid_at: datetime) -> Sequence[Fraction]:
    """All to the last visit. Source: Google Analytics, "Last interaction" (support.google.com/analytics/answer/1662518)."""
    return [Fraction(place == len(path) - 1) for place in range(len(path))]


def last_non_direct(path: Sequence[Visit], _paid_at: datetime) -> Sequence[Fraction]:
    """All to the last visit that something led to; to the last one when nothing led to any.

    Source: Google Analytics, "Last non-direct click" (support.google.com/analytics/answer/1662518).
    """
    chosen = max((place for place, visit in enumerate(path) if not visit.direct), default=len(path) - 1)
    return [Fraction(place == chosen) for place in range(len(path))]


def linear(path: Sequence[Visit], _paid_at: datetime) -> Sequence[Fraction]:
    """The same to each visit. Source: Google Analytics, "Linear" (support.google.com/analytics/answer/1662518)."""
    return [Fraction(1, len(path))] * len(path)


def position_based(path: Sequence[Visit], _paid_at: datetime) -> Sequence[Fraction]:
    """40 % to the first visit, 40 % to the last, 20 % to those between in equal parts; halves where there are two.

    Source: Google Analytics, "Position based" (support.google.com/analytics/answer/1662518).
    """
    inner = len(path) - 2
    if inner < 1:
        return linear(path, _paid_at)
    return [Fraction(2, 5), *[Fraction(1, 5 * inner)] * inner, Fraction(2, 5)]


def time_decay(path: Sequence[Visit], paid_at: datetime) -> Sequence[Fraction]:
    """Half as much to a visit 7 days earlier: 2^(-age / 7 days), brought to a sum of 1.

    Source: Google Analytics, "Time decay" with its half-life of 7 days (support.google.com/analytics/answer/1662518).
    """
    weights = [Fraction(2.0 ** -((paid_at - visit.began) / _HALF_LIFE)) for visit in path]
    total = sum(weights)
    return [weight / total for weight in weights]


MODELS: Final[Mapping[str, Callable[[Sequence[Visit], datetime], Sequence[Fraction]]]] = {
    model.__name__: model for model in (first_touch, last_touch, last_non_direct, linear, position_based, time_decay)
}
"""How much of an order each visit of its path, which has at least one, is owed: parts of 1."""


def paths(orders: Iterable[Order], visits: Mapping[str, Sequence[Visit]], own: Mapping[str, Visit]) -> Mapping[str, Sequence[Visit]]:
    """The path of each order, by the order's id.

    Args:
        orders: all paid orders of the persons since 90 days before the first that is asked for.
        visits: by person, the visits.
        own: by the visit's name, the visits in which orders were placed.
    """
    by_person: dict[str, list[Order]] = defaultdict(list)
    for order in orders:
        by_person[order.person].append(order)
    found: dict[str, Sequence[Visit]] = {}
    for person, several in by_person.items():
        before: datetime | None = None
        known = {visit.session: visit for visit in visits.get(person, ())}
        for order in sorted(several, key=lambda each: (each.paid_at, each.purchase_id)):
            oldest = order.paid_at - LOOKBACK
            bought_in = own.get(order.session)
            candidates = {**known, bought_in.session: bought_in} if bought_in else known
            recent = sorted(visit for visit in candidates.values() if oldest <= visit.began <= order.paid_at)
            path = [visit for visit in recent if before is None or visit.began > before]
            found[order.purchase_id] = path or [visit for visit in recent if visit.session == order.session]
            before = order.paid_at
    return found


def attribute(
    model: str, orders: Sequence[Order], paths: Mapping[str, Sequence[Visit]], lost: Sequence[Sequence[Visit]], unit: Decimal
) -> Mapping[str, Share]:
    """What is owed to each name; the amounts add up to those of the orders.

    Args:
        model: one of `MODELS`, or `markov`.
        orders: the orders, each with an exchange rate.
        paths: by order.
        lost: the paths of persons who bought nothing, for `markov` alone.
        unit: the smallest amount of the base currency.
    """
    shares: dict[str, Share] = defaultdict(Share)
    if model == MARKOV:
        names = [_names(paths[order.purchase_id]) for order in orders]
        effects = removal_effects(names, [_names(sorted(path)) for path in lost])
        _share(shares, effects, sum((order.net or Decimal(0) for order in orders), Decimal(0)), len(orders), unit)
        return shares
    for order in orders:
        path = paths[order.purchase_id]
        weights: dict[str, Fraction] = defaultdict(Fraction)
        for visit, weight in zip(path, MODELS[model](path, order.paid_at) if path else (), strict=True):
            weights[visit.name] += weight
        _share(shares, weights or {NONE: Fraction(1)}, order.net or Decimal(0), 1, unit)
    return shares


def _names(path: Sequence[Visit]) -> tuple[str, ...]:
    return tuple(visit.name for visit in path) or (NONE,)


def _share(shares: dict[str, Share], weights: Mapping[str, Fraction], total: Decimal, orders: int, unit: Decimal) -> None:
    for name, part in split(total, weights, unit).items():
        if weights[name]:
            shares[name].amount += part
            shares[name].orders += weights[name] * orders


def split(total: Decimal, weights: Mapping[str, Fraction], unit: Decimal) -> Mapping[str, Decimal]:
    """An amount in parts by weight, in whole units that add up to it: what rounding down leaves goes to the largest remainders.

    Of equal remainders the larger weight comes first, and then the name. Less than a unit of the amount goes to the first of all.
    Source: the largest remainder method of Hamilton (en.wikipedia.org/wiki/Quota_method).

    Args:
        total: the amount, which may be negative.
        weights: parts of 1.
        unit: the smallest amount.
    """
    if not weights:
        return {}
    units, rest = divmod(abs(total), unit)
    exact = {name: int(units) * weight for name, weight in weights.items()}
    parts = {name: int(share) for name, share in exact.items()}
    order = sorted(weights, key=lambda name: (parts[name] - exact[name], -weights[name], name))
    for name in order[: int(units) - sum(parts.values())]:
        parts[name] += 1
    sign = -1 if total < 0 else 1
    amounts = {name: sign * part * unit for name, part in parts.items()}
    amounts[order[0]] += sign * rest
    return amounts
