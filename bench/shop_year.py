"""A generated shop of two years, as the topics that analytics follows state it: the same messages in every run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from random import Random
from typing import Final, NamedTuple

from google.protobuf.message import Message
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged
from pmp.ingestion.v1 import event_pb2
from pmp.log.v1 import log_pb2
from pmp.purchases.v1 import change_pb2

from kit.log.streams import START, Delivery

LAST: Final = date(2026, 11, 15)
"""Its last day: within a month, so that no period ends with one."""
DAYS: Final = 730
_EVENTS_OF_SESSION: Final = 5
"""On average."""
_PAGES, _COURSES, _CAMPAIGNS = 300, 40, 40
_KNOWN: Final = 0.3
"""Share of the sessions whose visitor logs in."""
_SESSIONS_OF_USER: Final = 4
"""Of those who log in, on average; a few come far more often than the others."""
_CAMPAIGN_SHARE, _ORDER_SHARE, _REFUND_SHARE = 0.6, 0.01, 0.05
_SOURCES: Final = ("google", "facebook", "newsletter", "bing", "youtube", "linkedin", "partner", "instagram")
_MEDIA: Final = ("cpc", "cpc", "email", "organic", "video", "social", "affiliate", "social")
_PRICES: Final = ("24.50", "49.99", "99.00", "199.00")
_DAY: Final = 86_400


class Messages(NamedTuple):
    """What happened within a while, by topic."""

    events: Sequence[Delivery]
    identity: Sequence[Delivery]
    purchases: Sequence[Delivery]


@dataclass(slots=True)
class Counts:
    """What a shop had, to compare answers with."""

    events: int = 0
    views: int = 0
    sessions: int = 0
    orders: int = 0


@dataclass(slots=True)
class ShopYear:
    """A shop.

    Args:
        events: about how many it has.
    """

    events: int
    counts: Counts = field(default_factory=Counts)
    """What was yielded so far."""

    def messages(self, at_once: int) -> Iterator[Messages]:
        """Yields all messages in the order of time, with so many events at once."""
        chance = Random(self.events)  # noqa: S311 (the same shop in every run)
        sessions = max(DAYS, self.events // _EVENTS_OF_SESSION)
        users = max(1, int(sessions * _KNOWN) // _SESSIONS_OF_USER)
        seen: list[Delivery] = []
        linked: list[Delivery] = []
        bought: list[Delivery] = []
        for number in range(DAYS):
            midnight = datetime.combine(LAST, datetime.min.time(), UTC) - timedelta(days=DAYS - 1 - number)
            of_day: list[tuple[float, event_pb2.EventStored]] = []
            for _ in range(sessions * (number + 1) // DAYS - sessions * number // DAYS):
                session = _Session(f"{self.counts.sessions:08x}-{chance.getrandbits(64):016x}", chance, users)
                self.counts.sessions += 1
                of_day += session.events(midnight)
                linked += [_delivery(each) for each in session.links(midnight)]
                bought += [_delivery(each) for each in session.orders(midnight, self.counts)]
            seen += [_delivery(event) for _, event in sorted(of_day, key=lambda each: each[0])]
            self.counts.events += len(of_day)
            self.counts.views += sum(event.event.event_type == "page_view" for _, event in of_day)
            while len(seen) >= at_once:
                yield Messages(seen[:at_once], linked, bought)
                seen, linked, bought = seen[at_once:], [], []
        yield Messages(seen, linked, bought)


class _Session:
    def __init__(self, id_: str, chance: Random, users: int) -> None:
        self._id = id_
        self._chance = chance
        self._user = f"u{int(users * chance.random() ** 2)}" if chance.random() < _KNOWN else ""
        self._started = chance.random() * _DAY
        self._campaign = chance.randrange(_CAMPAIGNS) if chance.random() < _CAMPAIGN_SHARE else None

    def events(self, midnight: datetime) -> Iterator[tuple[float, event_pb2.EventStored]]:
        """Yields its events with their times."""
        at, chance = self._started, self._chance
        device = chance.choice(("mobile", "mobile", "desktop", "tablet"))
        for number in range(chance.randint(1, 2 * _EVENTS_OF_SESSION - 1)):
            page = int(_PAGES * chance.random() ** 3)
            stored = event_pb2.EventStored(
                event=event_pb2.Event(
                    id=f"{self._id}-{number}",
                    event_type="page_view" if chance.random() < 0.9 else chance.choice(("scroll", "lead_capture", "course_enrolled")),  # noqa: PLR2004
                    session_id=self._id,
                    user_id=self._user,
                    page_url=f"https://shop.example/{'courses/course' if page < _COURSES else 'blog/page'}-{page}/",
                ),
                enrichment=event_pb2.Enrichment(
                    channel=event_pb2.CHANNEL_INTERNAL if number else event_pb2.CHANNEL_DIRECT,
                    visitor=self._user or self._id,
                    session=self._id,
                    course=f"course-{page}" if page < _COURSES else "",
                    device=device,
                ),
                scope="track",
                key=f"{self._id}-{number}",
            )
            if not number and self._campaign is not None:
                stored.enrichment.channel = event_pb2.CHANNEL_CAMPAIGN
                stored.enrichment.traffic_source = _SOURCES[self._campaign % len(_SOURCES)]
                stored.enrichment.traffic_medium = _MEDIA[self._campaign % len(_MEDIA)]
                stored.enrichment.campaign = f"campaign {self._campaign}"
            stored.event.timestamp.FromDatetime(midnight + timedelta(seconds=at))
            yield at, stored
            at += chance.uniform(5, 240)

    def links(self, midnight: datetime) -> Iterator[IdentityChanged]:
        """Yields the link of its id to its user."""
        if self._user:
            changed = IdentityChanged(alias=AliasChanged(subject=f"session:{self._id}", user_id=self._user))
            changed.alias.linked_at.FromDatetime(midnight + timedelta(seconds=self._started))
            yield changed

    def orders(self, midnight: datetime, counts: Counts) -> Iterator[change_pb2.PurchaseChanged]:
        """Yields the order that was bought in it, if any."""
        chance = self._chance
        if chance.random() >= _ORDER_SHARE:
            return
        sold, price = midnight + timedelta(seconds=self._started + 60), chance.choice(_PRICES)
        change = change_pb2.PurchaseChanged(
            purchase_id=f"p{counts.orders}",
            subject=f"user:{self._user}" if self._user else f"email:{chance.getrandbits(256):064x}",
            session_id=self._id,
            currency="USD",
            base_currency="USD",
        )
        counts.orders += 1
        change.timestamp.FromDatetime(sold)
        change.sold_at.FromDatetime(sold)
        product = chance.randrange(_COURSES)
        change.lines.add(product_id=f"{product}", product_name=f"Course {product}", quantity=1, amount=price)
        entry = change.entries.add(kind=change_pb2.ENTRY_KIND_SALE, amount=price, base_amount=price)
        entry.timestamp.FromDatetime(sold)
        if chance.random() < _REFUND_SHARE:
            entry = change.entries.add(kind=change_pb2.ENTRY_KIND_REFUND, amount=f"-{price}", base_amount=f"-{price}")
            entry.timestamp.FromDatetime(sold + timedelta(days=3))
        yield change


def _delivery(message: Message) -> Delivery:
    return Delivery("", 0, START, 0, 0, log_pb2.Record(payload=message.SerializeToString()))
