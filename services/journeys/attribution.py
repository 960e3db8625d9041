"""Attributes the revenue of orders to the sources of sessions: pure, and independent of the order of its input.

The path of an order is the sessions of its person that began since the previous paid order, at most 90 days before it was paid,
including the session in which it was placed. If none began since, as when a person buys twice in one session, the path is that session
alone. Sessions on no order's path are on lost paths, each of which spans at most 90 days.
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
"""Stands for an order without a known session."""
NOT_SET: Final = "(not set)"
"""Stands for what an external session lacks, such as the campaign of a search."""
MARKOV: Final = "markov"
GROUPS: Final = ("source", "medium", "campaign")
"""What shares can be grouped by."""
ORDER: Final = "order:"
"""Prefix of the `ending` of a path that an order ended."""

_HALF_LIFE: Final = timedelta(days=7)
_DECAY_BITS: Final = 80
"""The weight of a session at the time of the order is 2 to the power of this; 67 bits of it remain 90 days before."""


class BrowserSession(NamedTuple):
    """One session on a path."""

    began: datetime
    identifier: str
    source: str | None
    """None for a direct session."""
    medium: str = ""
    campaign: str = ""

    def name(self, group_by: str) -> str:
        """Returns the name it is grouped under: its source, medium or campaign."""
        if self.source is None:
            return DIRECT
        return (self.source, self.medium, self.campaign)[GROUPS.index(group_by)] or NOT_SET


class Order(NamedTuple):
    """A paid order."""

    purchase_id: str
    session: str
    """The session in which it was placed; empty if unknown."""
    paid_at: datetime
    net: Decimal | None
    """Paid less refunded in the base currency; None without an exchange rate."""


class Path(NamedTuple):
    """The sessions that led to an order, or to none."""

    owner: str
    """The identifier of the person, or one that identity does not know."""
    ending: str
    """Unique among all paths of the owner: `order:` and the order's id, or the last session."""
    ended_at: datetime
    """When the order was paid, or the last session began."""
    net: Decimal | None
    """Revenue of the order in the base currency; None without an order or an exchange rate."""
    sessions: tuple[BrowserSession, ...]
    """Oldest first."""

    @property
    def bought(self) -> bool:
        """True for the path of an order."""
        return self.ending.startswith(ORDER)

    def dumps(self) -> str:
        """Serialises the path as JSON, without its owner."""
        sessions = [(session.began.isoformat(), session.source, session.medium, session.campaign) for session in self.sessions]
        net = None if self.net is None else f"{self.net:f}"
        return orjson.dumps((self.ending, self.ended_at.isoformat(), net, sessions)).decode()

    @classmethod
    def loads(cls, text: str) -> Path:
        """Parses a path that `dumps` wrote; it has neither owner nor the identifiers of sessions."""
        ending, ended_at, net, sessions = orjson.loads(text)
        read = tuple(BrowserSession(datetime.fromisoformat(began), "", *names) for began, *names in sessions)
        return cls("", ending, datetime.fromisoformat(ended_at), None if net is None else Decimal(net), read)


def browser_session_of(session_facts: SessionFacts) -> BrowserSession:
    """Returns a session as a path has it."""
    session = BrowserSession(session_facts.started_at, session_facts.session, session_facts.source)
    if session.source is None:
        return session
    return session._replace(medium=session_facts.medium or "", campaign=session_facts.campaign or "")


def paths_of(
    owner: str, orders: Iterable[Order], sessions: Iterable[BrowserSession], placed_in: Mapping[str, BrowserSession]
) -> Iterator[Path]:
    """Yields all paths of one person.

    Args:
        owner: the person's identifier.
        orders: all of the person's paid orders.
        sessions: all of the person's sessions, each once.
        placed_in: sessions of any person in which the orders were placed, by their identifiers.
    """
    ordered = sorted(sessions)
    began = [session.began for session in ordered]
    known = {session.identifier: session for session in ordered}
    ended = 0  # the number of sessions that began before the last order was paid
    before: datetime | None = None
    for order in sorted(orders, key=lambda each: (each.paid_at, each.purchase_id)):
        first = max(ended, bisect_left(began, order.paid_at - LOOKBACK))
        yield from _lost(owner, ordered[ended:first])
        ended = bisect_right(began, order.paid_at)
        path = ordered[first:ended]
        bought_in = known.get(order.session) or placed_in.get(order.session)
        if bought_in is not None and order.paid_at - LOOKBACK <= bought_in.began <= order.paid_at:
            if order.session not in known and (before is None or bought_in.began > before):
                insort(path, bought_in)
            path = path or [bought_in]
        before = order.paid_at
        yield Path(owner, f"{ORDER}{order.purchase_id}", order.paid_at, order.net, tuple(path))
    yield from _lost(owner, ordered[ended:])


def _lost(owner: str, sessions: Sequence[BrowserSession]) -> Iterator[Path]:
    """Cuts sessions that led to no order, oldest first, into paths of at most 90 days."""
    start = 0
    while start < len(sessions):
        end = bisect_right(sessions, sessions[start].began + LOOKBACK, start, key=lambda session: session.began)
        last = sessions[end - 1]
        yield Path(owner, last.identifier, last.began, None, tuple(sessions[start:end]))
        start = end


def first_touch(path: Sequence[BrowserSession], _paid_at: datetime) -> Sequence[int]:
    """All to the first session. Source: Google Analytics, "First interaction" (support.google.com/analytics/answer/1662518)."""
    return [int(index == 0) for index in range(len(path))]


def last_touch(path: Sequence[BrowserSession], _paid_at: datetime) -> Sequence[int]:
    """All to the last session. Source: Google Analytics, "Last interaction" (support.google.com/analytics/answer/1662518)."""
    return [int(index == len(path) - 1) for index in range(len(path))]


def last_non_direct(path: Sequence[BrowserSession], _paid_at: datetime) -> Sequence[int]:
    """All to the last session that is not direct; to the last one if all are direct.

    Source: Google Analytics, "Last non-direct click" (support.google.com/analytics/answer/1662518).
    """
    chosen = max((index for index, session in enumerate(path) if session.source is not None), default=len(path) - 1)
    return [int(index == chosen) for index in range(len(path))]


def linear(path: Sequence[BrowserSession], _paid_at: datetime) -> Sequence[int]:
    """The same to each session. Source: Google Analytics, "Linear" (support.google.com/analytics/answer/1662518)."""
    return [1] * len(path)


def position_based(path: Sequence[BrowserSession], _paid_at: datetime) -> Sequence[int]:
    """40 % to the first session, 40 % to the last, 20 % in equal parts to those between; halves if there are two.

    Source: Google Analytics, "Position based" (support.google.com/analytics/answer/1662518).
    """
    inner = len(path) - 2
    if inner < 1:
        return [1] * len(path)
    return [2 * inner, *[1] * inner, 2 * inner]


def time_decay(path: Sequence[BrowserSession], paid_at: datetime) -> Sequence[int]:
    """Half as much to a session 7 days earlier: 2^(-age / 7 days).

    Source: Google Analytics, "Time decay" with its half-life of 7 days (support.google.com/analytics/answer/1662518).
    """
    return [int(2.0 ** (_DECAY_BITS - (paid_at - session.began) / _HALF_LIFE)) for session in path]


MODELS: Final[Mapping[str, Callable[[Sequence[BrowserSession], datetime], Sequence[int]]]] = {
    model.__name__: model for model in (first_touch, last_touch, last_non_direct, linear, position_based, time_decay)
}
"""The weights of the sessions of a path, which has at least one, by model."""
EVERY_MODEL: Final = (*MODELS, MARKOV)


class Totals:
    """Totals of a model over some paths. Those of the same model and group are additive: a year's are the sum of its days'.

    Args:
        model: one of `EVERY_MODEL`.
        group_by: one of `GROUPS`.
        splitter: splits the revenue of an order.
    """

    def __init__(self, model: str, group_by: str, splitter: Splitter) -> None:
        self._model = model
        self._group_by = group_by
        self._splitter = splitter
        self.orders = 0
        """Orders with an exchange rate."""
        self.unrated = 0
        """Orders without one, which count in no other figure."""
        self._net = Decimal(0)
        self._amounts: defaultdict[str, Decimal] = defaultdict(Decimal)
        self._parts: defaultdict[str, int] = defaultdict(int)
        """Parts of orders; each order has `WHOLE`."""
        self._steps: Steps = Counter()
        """Transitions of the chain; only `MARKOV` counts them."""

    def add(self, path: Path, times: int = 1) -> None:
        """Adds a path, or with -1 subtracts it."""
        if path.bought and path.net is None:
            self.unrated += times
        elif self._model == MARKOV:
            names = tuple(session.name(self._group_by) for session in path.sessions) or (NONE,)
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
        """Adds totals that `dumps` wrote."""
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
        """Serialises the totals as JSON, without those that are zero."""
        shares = [(name, f"{amount:f}", str(self._parts[name])) for name, amount in self._amounts.items() if amount or self._parts[name]]
        steps = [(*step, count) for step, count in self._steps.items() if count]
        read = {"orders": self.orders, "unrated": self.unrated, "net": f"{self._net:f}", "shares": shares, "steps": steps}
        return orjson.dumps(read).decode()

    def shares(self) -> Mapping[str, Share]:
        """Returns the share of each name; the amounts add up to the orders' revenue."""
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
        """Returns the weights of a path's names, without those that are zero."""
        sums: dict[str, int] = defaultdict(int)
        if path.sessions:
            for session, weight in zip(path.sessions, MODELS[self._model](path.sessions, path.ended_at), strict=True):
                if weight:
                    sums[session.name(self._group_by)] += weight
        return tuple(sums.items()) or ((NONE, 1),)
