"""The visits of the last five minutes, counted in slices of a few seconds: the memory is that of the distinct names, not of the events."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

from pmp.ingestion.v1.event_pb2 import Channel, EventStored

from kit.rules import without_query

MINUTES: Final = 5
"""How long a visitor is here after an event."""
_SLICE_SECONDS: Final = 5
"""What happened may count this much longer."""
_SLICES: Final = MINUTES * 60 // _SLICE_SECONDS
_SLICES_PER_MINUTE: Final = 60 // _SLICE_SECONDS
_PAGE_VIEW: Final = "page_view"
_DIRECT: Final = "direct"


@dataclass(slots=True)
class _Slice:
    """What happened within some seconds."""

    visitors: set[str] = field(default_factory=set[str])
    pages: Counter[str] = field(default_factory=Counter[str])
    sources: Counter[str] = field(default_factory=Counter[str])


class Visits:
    """The visits of the last five minutes."""

    def __init__(self) -> None:
        self._slices: dict[int, _Slice] = {}
        self._last_seen: dict[str, int] = {}
        """The slice of a visitor's last event."""

    def add(self, event: EventStored, now: float) -> None:
        """Adds an event, unless it is a crawler's, known already, or too old.

        Args:
            event: the event.
            now: seconds since 1970.
        """
        # A client's clock may be ahead.
        seconds = min(event.event.timestamp.seconds, event.received_at.seconds)
        number = seconds // _SLICE_SECONDS
        if event.enrichment.is_bot or event.is_update or number < self._newest(now) - _SLICES:
            return
        into = self._slices.setdefault(number, _Slice())
        if visitor := event.enrichment.visitor:
            into.visitors.add(visitor)
            self._last_seen[visitor] = max(number, self._last_seen.get(visitor, 0))
        if event.event.event_type == _PAGE_VIEW:
            into.pages[without_query(event.event.page_url)] += 1
            if source := _source(event):
                into.sources[source] += 1

    def expire(self, now: float) -> None:
        """Removes what is older than five minutes."""
        oldest = self._newest(now) - _SLICES
        for number in [each for each in self._slices if each < oldest]:
            for visitor in self._slices.pop(number).visitors:
                if self._last_seen.get(visitor) == number:
                    del self._last_seen[visitor]

    @property
    def visitors(self) -> int:
        """Number of distinct visitors."""
        return len(self._last_seen)

    def page_views_per_minute(self, now: float) -> int:
        """Number of page views in the last minute."""
        oldest = self._newest(now) - _SLICES_PER_MINUTE
        return sum(each.pages.total() for number, each in self._slices.items() if number >= oldest)

    @property
    def pages(self) -> Counter[str]:
        """Page views by page."""
        return _total(each.pages for each in self._slices.values())

    @property
    def sources(self) -> Counter[str]:
        """Pages that were reached from outside of the shop, by source."""
        return _total(each.sources for each in self._slices.values())

    @staticmethod
    def _newest(now: float) -> int:
        return int(now) // _SLICE_SECONDS


def _total(counters: Iterable[Counter[str]]) -> Counter[str]:
    total: Counter[str] = Counter()
    for each in counters:
        total.update(each)
    return total


def _source(event: EventStored) -> str:
    """The source from which a page was reached; empty when it was reached from within the shop."""
    match event.enrichment.channel:
        case Channel.CHANNEL_INTERNAL | Channel.CHANNEL_UNSPECIFIED:
            return ""
        case Channel.CHANNEL_DIRECT:
            return _DIRECT
        case _:
            return event.enrichment.traffic_source
