"""Which sources the revenue of orders is owed to: pure, and the same whatever order the visits and orders are given in.

The path of an order is the visits of its person that began since the paid order before, at most 90 days back before it was paid,
the visit in which it was bought among them. That one alone is the path where nothing began since: somebody buys twice in one visit.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from math import lcm
from typing import Final, NamedTuple

import orjson

from kit.people.persons import subject_of
from services.journeys.markov import removal_effects
from services.journeys.rules import DIRECT, Glimpse, earliest
from services.journeys.shares import Ledger, Share, Weights

LOOKBACK: Final = timedelta(days=90)
NONE: Final = "(none)"
"""Stands for an order without a known visit."""
NOT_SET: Final = "(not set)"
"""Stands for what a visit from outside does not say, such as the campaign of a search."""
MARKOV: Final = "markov"

_HALF_LIFE: Final = timedelta(days=7)
_DECAY_BITS: Final = 80
"""The weight of a visit at the time of the order is 2 to the power of this: 90 days before, 67 bits of it are left."""


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


class History:
    """What is known of the orders of a period before it is clear in which visits they were placed.

    Args:
        paid: the orders of the period, as the repository gives them.
        before: what their persons had paid before.
        seen: the visits of these persons; empty when they are among everyone's.
        everyone: the visits of all persons in the period, for `markov` alone.
        group_by: source, medium or campaign.
    """

    def __init__(self, paid: Iterable[str], before: Iterable[str], seen: Iterable[str], everyone: Iterable[str], group_by: str) -> None:
        self.orders = orders_of(paid)
        self._before = orders_of(before)
        self._everyone = visits_of(everyone, group_by)
        self._seen = visits_of(seen, group_by) or self._everyone
        self._group_by = group_by

    def unseen(self) -> set[str]:
        """Visits in which orders were placed and that are not among those of their persons."""
        by_person = {person: {visit.session for visit in several} for person, several in self._seen.items()}
        every = (*self.orders, *self._before)
        return {order.session for order in every if order.session and order.session not in by_person.get(order.person, ())}

    def paths(self, unseen: Mapping[str, Glimpse]) -> Mapping[str, Sequence[Visit]]:
        """The path of each order, by the order's id."""
        own = {name: visit_of(glimpse, self._group_by) for name, glimpse in unseen.items()}
        return paths((*self.orders, *self._before), self._seen, own)

    def lost(self, since: datetime | None) -> list[Sequence[Visit]]:
        """The paths of all who were seen since then and bought nothing in the period."""
        buyers = {order.person for order in self.orders}
        others = (several for person, several in self._everyone.items() if person not in buyers)
        paths = ([visit for visit in several if since is None or visit.began >= since] for several in others)
        return [path for path in paths if path]


def orders_of(pages: Iterable[str]) -> list[Order]:
    """Paid orders as the repository gives them."""
    return [
        Order(id_, person, subject_of(session_id=session or ""), _time(paid_at), None if net is None else Decimal(net))
        for page in pages
        for id_, session, paid_at, net, person in orjson.loads(page)
    ]


def _time(text: str) -> datetime:
    return datetime.fromisoformat(f"{text}+00:00")


def visit_of(glimpse: Glimpse, group_by: str) -> Visit:
    """A visit under the name by which it is grouped: its source, medium or campaign."""
    if glimpse.source is None:
        return Visit(glimpse.started_at, glimpse.session, DIRECT, direct=True)
    return Visit(glimpse.started_at, glimpse.session, getattr(glimpse, group_by) or NOT_SET, direct=False)


def visits_of(pages: Iterable[str], group_by: str) -> Mapping[str, list[Visit]]:
    """Visits by person, oldest first.

    Args:
        pages: rows as the repository gives them: person, visit, and what one subject's part in it says of the visit, as in `Glimpse`.
        group_by: source, medium or campaign.
    """
    parts: dict[tuple[str, str], Glimpse] = {}
    for page in pages:
        for person, session, began, external_at, external_id, source, medium, campaign in orjson.loads(page):
            led_at = _time(external_at) if external_at else None
            seen = Glimpse(session, "", _time(began), led_at, external_id, source, medium, campaign)
            other = parts.get((person, session))
            parts[person, session] = seen if other is None else earliest((other, seen))
    visits: dict[str, list[Visit]] = defaultdict(list)
    for (person, _), seen in parts.items():
        visits[person].append(visit_of(seen, group_by))
    for several in visits.values():
        several.sort()
    return visits


def first_touch(path: Sequence[Visit], _paid_at: datetime) -> Sequence[int]:
    """All to the first visit. Source: Google Analytics, "First interaction" (support.google.com/analytics/answer/1662518)."""
    return [int(place == 0) for place in range(len(path))]


def last_touch(path: Sequence[Visit], _paid_at: datetime) -> Sequence[int]:
    """All to the last visit. Source: Google Analytics, "Last interaction" (support.google.com/analytics/answer/1662518)."""
    return [int(place == len(path) - 1) for place in range(len(path))]


def last_non_direct(path: Sequence[Visit], _paid_at: datetime) -> Sequence[int]:
    """All to the last visit that something led to; to the last one when nothing led to any.

    Source: Google Analytics, "Last non-direct click" (support.google.com/analytics/answer/1662518).
    """
    chosen = max((place for place, visit in enumerate(path) if not visit.direct), default=len(path) - 1)
    return [int(place == chosen) for place in range(len(path))]


def linear(path: Sequence[Visit], _paid_at: datetime) -> Sequence[int]:
    """The same to each visit. Source: Google Analytics, "Linear" (support.google.com/analytics/answer/1662518)."""
    return [1] * len(path)


def position_based(path: Sequence[Visit], _paid_at: datetime) -> Sequence[int]:
    """40 % to the first visit, 40 % to the last, 20 % to those between in equal parts; halves where there are two.

    Source: Google Analytics, "Position based" (support.google.com/analytics/answer/1662518).
    """
    inner = len(path) - 2
    if inner < 1:
        return [1] * len(path)
    return [2 * inner, *[1] * inner, 2 * inner]


def time_decay(path: Sequence[Visit], paid_at: datetime) -> Sequence[int]:
    """Half as much to a visit 7 days earlier: 2^(-age / 7 days).

    Source: Google Analytics, "Time decay" with its half-life of 7 days (support.google.com/analytics/answer/1662518).
    """
    return [int(2.0 ** (_DECAY_BITS - (paid_at - visit.began) / _HALF_LIFE)) for visit in path]


MODELS: Final[Mapping[str, Callable[[Sequence[Visit], datetime], Sequence[int]]]] = {
    model.__name__: model for model in (first_touch, last_touch, last_non_direct, linear, position_based, time_decay)
}
"""In what proportion the visits of a path, which has at least one, are owed its order."""


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
    model: str, orders: Sequence[Order], paths: Mapping[str, Sequence[Visit]], lost: Iterable[Sequence[Visit]], books: Ledger
) -> Mapping[str, Share]:
    """What is owed to each name; the amounts add up to those of the orders.

    Args:
        model: one of `MODELS`, or `markov`.
        orders: the orders, each with an exchange rate.
        paths: by order.
        lost: the paths of persons who bought nothing, for `markov` alone.
        books: empty, to add it up in.
    """
    if model == MARKOV:
        names = [_names(paths[order.purchase_id]) for order in orders]
        effects = removal_effects(names, [_names(sorted(path)) for path in lost])
        common = lcm(*(effect.denominator for effect in effects.values()))
        weights = tuple((name, int(effect * common)) for name, effect in effects.items() if effect)
        if weights:
            books.add(MARKOV, weights, sum((order.net or Decimal(0) for order in orders), Decimal(0)), len(orders))
        return books.shares()
    weigh = MODELS[model]
    by_path: dict[Sequence[tuple[str, bool]], Weights] = {}
    for order in orders:
        path = paths[order.purchase_id]
        if model == time_decay.__name__:
            weights = _by_name(path, weigh(path, order.paid_at))
        else:
            # All other models go by the names alone, and many orders share them.
            key = tuple((visit.name, visit.direct) for visit in path)
            weights = by_path.get(key) or by_path.setdefault(key, _by_name(path, weigh(path, order.paid_at) if path else ()))
        books.add(order.purchase_id, weights, order.net or Decimal(0), 1)
    return books.shares()


def _names(path: Sequence[Visit]) -> tuple[str, ...]:
    return tuple(visit.name for visit in path) or (NONE,)


def _by_name(path: Sequence[Visit], weights: Sequence[int]) -> Weights:
    """What the names of a path weigh, without those that weigh nothing."""
    sums: dict[str, int] = defaultdict(int)
    for visit, weight in zip(path, weights, strict=True):
        if weight:
            sums[visit.name] += weight
    return tuple(sums.items()) or ((NONE, 1),)
