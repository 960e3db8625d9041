"""The figures of the moment, and how they are sent: all of them, or what has changed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import tzinfo
from typing import Any, Final

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from pmp.realtime.v1 import realtime_pb2 as pb

from services.realtime.messages import Live
from services.realtime.sales import Sale, Sales
from services.realtime.visits import Visits

_ROWS: Final = 10
"""Rows of a ranking."""
_FIGURES: Final = tuple(
    field.name
    for field in pb.StreamDashboardResponse.DESCRIPTOR.fields
    if field.has_presence and field.name not in ("at", "come_back_after")
)
"""The figures among the fields of a response."""


class Board:
    """The state from which the figures follow.

    Args:
        timezone: in which the shop's day begins.
    """

    def __init__(self, timezone: tzinfo) -> None:
        self.sales = Sales(timezone)
        self._visits = Visits()

    def add(self, messages: Iterable[Live], now: float) -> None:
        """Adds what was published; `now` in seconds since 1970."""
        for message in messages:
            match message.source:
                case EventStored() as event:
                    self._visits.add(event, now)
                case PurchaseChanged() as order:
                    self.sales.put([Sale.of(order)])

    def figures(self, now: float) -> pb.StreamDashboardResponse:
        """Returns all figures at a time, in seconds since 1970."""
        self._visits.expire(now)
        self.sales.expire(now)
        response = pb.StreamDashboardResponse(
            complete=True,
            visitors=self._visits.visitors,
            page_views_per_minute=self._visits.page_views_per_minute(now),
            orders_per_minute=self.sales.paid_in_last_minute(now),
            orders_today=self.sales.paid_today(now),
            revenue_today=pb.Revenue(
                amounts=[pb.CurrencyAmount(currency=currency, amount=amount) for currency, amount in self.sales.revenue(now).items()]
            ),
            top_pages=_ranking(self._visits.pages),
            top_sources=_ranking(self._visits.sources),
        )
        response.at.FromMilliseconds(int(now * 1000))
        return response


def changed(before: pb.StreamDashboardResponse, after: pb.StreamDashboardResponse) -> pb.StreamDashboardResponse | None:
    """Returns the figures that differ from earlier ones; None when none does."""
    names = [name for name in _FIGURES if getattr(before, name) != getattr(after, name)]
    if not names:
        return None
    delta = pb.StreamDashboardResponse(at=after.at)
    for name in names:
        value: Any = getattr(after, name)
        if isinstance(value, int):
            setattr(delta, name, value)
        else:
            getattr(delta, name).CopyFrom(value)
    return delta


def _ranking(counts: Counter[str]) -> pb.Ranking:
    # Equal counts in the order of their labels: a ranking must not change when nothing did.
    rows = sorted(counts.items(), key=lambda row: (-row[1], row[0]))[:_ROWS]
    return pb.Ranking(rows=[pb.Ranked(label=label, count=count) for label, count in rows])
