"""Which sources the revenue of orders is owed to: pure, and the same whatever order the visits and orders are given in.

The path of an order is the visits of its person that began since the paid order before, at most 90 days back before it was paid,
the visit in which it was bought among them. That one alone is the path where nothing began since: somebody buys twice in one visit.
Visits that are on no order's path are on lost paths, each of which ends within 90 days of its first visit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import Any, Final, NamedTuple

import orjson

from services.journeys.markov import Steps, removal_effects, steps_of
from services.journeys.rules import DIRECT, SessionFacts
from services.journeys.shares import WHOLE, Share, Splitter, Weights, parts_of

LOOKBACK: Final = timedelta(days=90)
NONE: Final = "(none)"
"""Stands for an order without a known visit."""
NOT_SET: Final = "(not set)"
"""Stands for what a visit from outside does not say, such as the campaign of a search."""
MARKOV: Final = "markov"
GROUPS: Final = ("source", "medium", "campaign")
"""By which shares are grouped."""
ORDER: Final = "order:"
"""Begins the `ending` of a path that an order ended."""

_HALF_LIFE: Final = timedelta(days=7)
_DECAY_BITS: Final = 80
"""The weight of a visit at the time of the order is 2 to the power of this: 90 days before, 67 bits of it are left."""


class Visit(NamedTuple):
    """One visit on a path."""

    began: datetime
    session: str
    source: str | None
    """None: nothing led to it."""
    medium: str = ""
    campaign: str = ""

    def name(self, group_by: str) -> str:
        """What it is grouped under: its source, medium or campaign."""
        if self.source is None:
            return DIRECT
        return (self.source, self.medium, self.campaign)[GROUPS.index(group_by)] or NOT_SET


class Order(NamedTuple):
    """A paid order."""

    purchase_id: str
    session: str
    """The visit in which it was placed; empty when it is not known."""
    paid_at: datetime
    net: Decimal | None
    """Paid less refunded in the base currency; None without an exchange rate."""


class Path(NamedTuple):
    """The visits that led to an order, or to none."""

    owner: str
    """Whose they are: the subject of a person, or of somebody that identity does not know."""
    ending: str
    """Unique among all paths of the owner: `order:` and the order's id, or the session of the last visit."""
    ended_at: datetime
    """When the order was paid, or the last visit began."""
    net: Decimal | None
    """What the order brought in the base currency; None for no order, or one without an exchange rate."""
    visits: tuple[Visit, ...]
    """Oldest first."""

    @property
    def bought(self) -> bool:
        """True for the path of an order."""
        return self.ending.startswith(ORDER)

    def dumps(self) -> str:
        """As JSON; the owner is not in it."""
        visits = [(visit.began.isoformat(), visit.source, visit.medium, visit.campaign) for visit in self.visits]
        net = None if self.net is None else f"{self.net:f}"
        return orjson.dumps((self.ending, self.ended_at.isoformat(), net, visits)).decode()

    @classmethod
    def loads(cls, text: str) -> Path:
        """A path as `dumps` wrote it, without owner and sessions."""
        ending, ended_at, net, visits = orjson.loads(text)
        read = tuple(Visit(datetime.fromisoformat(began), "", *names) for began, *names in visits)
        return cls("", ending, datetime.fromisoformat(ended_at), None if net is None else Decimal(net), read)


def visit_of(session_facts: SessionFacts) -> Visit:
    """A visit as a path shows it."""
    if session_facts.source is None:
        return Visit(session_facts.started_at, session_facts.session, None)
    return Visit(
        session_facts.started_at, session_facts.session, session_facts.source, session_facts.medium or "", session_facts.campaign or ""
    )


def paths_of(owner: str, orders: Iterable[Order], visits: Iterable[Visit], own: Mapping[str, Visit]) -> Iterator[Path]:
    """All paths of one person.

    Args:
        owner: the person's subject.
        orders: all of the person's paid orders.
        visits: all of the person's visits, each once.
        own: by session, visits of whomever in which orders were placed.
    """
    ordered = sorted(visits)
    began = [visit.began for visit in ordered]
    known = {visit.session: visit for visit in ordered}
    ended = 0  # so many visits began before the last order was paid
    before: datetime | None = None
    for order in sorted(orders, key=lambda each: (each.paid_at, each.purchase_id)):
        first = max(ended, bisect_left(began, order.paid_at - LOOKBACK))
        yield from _lost(owner, ordered[ended:first])
        ended = bisect_right(began, order.paid_at)
        path = ordered[first:ended]
        bought_in = known.get(order.session) or own.get(order.session)
        if bought_in is not None and order.paid_at - LOOKBACK <= bought_in.began <= order.paid_at:
            if order.session not in known and (before is None or bought_in.began > before):
                insort(path, bought_in)
            path = path or [bought_in]
        before = order.paid_at
        yield Path(owner, f"{ORDER}{order.purchase_id}", order.paid_at, order.net, tuple(path))
    yield from _lost(owner, ordered[ended:])


def _lost(owner: str, visits: Sequence[Visit]) -> Iterator[Path]:
    """Cuts visits that led to no order, oldest first, into paths of at most 90 days."""
    start = 0
    while start < len(visits):
        end = bisect_right(visits, visits[start].began + LOOKBACK, start, key=lambda visit: visit.began)
        last = visits[end - 1]
        yield Path(owner, last.session, last.began, None, tuple(visits[start:end]))
        start = end


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
    chosen = max((place for place, visit in enumerate(path) if visit.source is not None), default=len(path) - 1)
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
EVERY_MODEL: Final = (*MODELS, MARKOV)


class Totals:
    """What a model makes of some paths. Totals of the same model and group add up, so that those of a year are those of its days.

    Args:
        model: one of `EVERY_MODEL`.
        group_by: one of `GROUPS`.
        splitter: splits what an order brought.
    """

    def __init__(self, model: str, group_by: str, splitter: Splitter) -> None:
        self._model = model
        self._group_by = group_by
        self._splitter = splitter
        self.orders = 0
        """Orders with an exchange rate."""
        self.unrated = 0
        """Orders without one, which are left out of all else."""
        self._net = Decimal(0)
        self._amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._parts: defaultdict[str, int] = defaultdict(int)
        """Of orders, of which each has `WHOLE`."""
        self._steps: Steps = Counter()
        """Of the chain; `MARKOV` alone counts them."""

    def add(self, path: Path, times: int = 1) -> None:
        """Adds a path, or with -1 takes it away again."""
        if path.bought and path.net is None:
            self.unrated += times
        elif self._model == MARKOV:
            names = tuple(visit.name(self._group_by) for visit in path.visits) or (NONE,)
            for step in steps_of(names, bought=path.bought):
                self._steps[step] += times
        if path.net is None:
            return
        self.orders += times
        self._net += path.net * times
        if self._model == MARKOV:
            return
        weights = self._weights(path)
        for name, amount in self._splitter.split(path.net, weights, path.ending.removeprefix(ORDER)).items():
            self._amounts[name] += amount * times
        for name, part in parts_of(weights):
            self._parts[name] += part * times

    def merge(self, dumped: str) -> None:
        """Adds what `dumps` wrote."""
        read: Mapping[str, Any] = orjson.loads(dumped)
        self.orders += read["orders"]
        self.unrated += read["unrated"]
        self._net += Decimal(read["net"])
        for name, amount, parts in read["shares"]:
            self._amounts[name] += Decimal(amount)
            self._parts[name] += int(parts)
        for state, to, count in read["steps"]:
            self._steps[state, to] += count

    def dumps(self) -> str:
        """As JSON. What came to nothing is not in it."""
        shares = [(name, f"{amount:f}", str(self._parts[name])) for name, amount in self._amounts.items() if amount or self._parts[name]]
        steps = [(*step, count) for step, count in self._steps.items() if count]
        read = {"orders": self.orders, "unrated": self.unrated, "net": f"{self._net:f}", "shares": shares, "steps": steps}
        return orjson.dumps(read).decode()

    def shares(self) -> Mapping[str, Share]:
        """What is owed to each name; the amounts add up to what the orders brought."""
        if self._model != MARKOV:
            return {name: Share(amount, Fraction(self._parts[name], WHOLE)) for name, amount in self._amounts.items()}
        effects = {name: effect for name, effect in removal_effects(self._steps).items() if effect}
        if not (self.orders and effects):
            return {}
        common = lcm(*(effect.denominator for effect in effects.values()))
        weights = tuple((name, int(effect * common)) for name, effect in effects.items())
        amounts = self._splitter.split(self._net, weights, MARKOV)
        return {name: Share(amounts[name], self.orders * Fraction(part, WHOLE)) for name, part in parts_of(weights)}

    def _weights(self, path: Path) -> Weights:
        """What the names of a path weigh, without those that weigh nothing."""
        sums: dict[str, int] = defaultdict(int)
        if path.visits:
            for visit, weight in zip(path.visits, MODELS[self._model](path.visits, path.ended_at), strict=True):
                if weight:
                    sums[visit.name(self._group_by)] += weight
        return tuple(sums.items()) or ((NONE, 1),)
