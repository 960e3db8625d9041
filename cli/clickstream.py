"""The clickstream of a real shop as the requests that WordPress would send, and their expected outcome, for `pmp demo`."""

from __future__ import annotations

import csv
import gzip
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import islice, pairwise
from pathlib import Path
from typing import Any, Final

CSV: Final = Path(__file__).parent / "data" / "shop-clickstream.csv.gz"
"""The clickstream; see data/README.md for its source."""
IDS: Final = uuid.UUID("6f0b6c3e-6d7c-5d8f-9c0a-2f5b7f3f1f0e")
"""Namespace of the events' ids: the id of a row is the UUIDv5 of its number, from 1."""
BATCH: Final = 100
"""Largest number of events in a batch."""
BAD_SINGLE_EVERY: Final = 100
"""After the first of this many single events, a malformed one is sent."""
BAD_IN_BATCH_EVERY: Final = 10
"""The first of this many batches contains a malformed event."""
REPEAT_EVERY: Final = 25
"""One of this many single events, batches and orders is sent twice, as after a lost answer."""
PRICE: Final = 199.0
"""Price of an order in USD."""
PAGES: Final = frozenset(
    {
        *("home", "catalog", "search", "filter_results", "promo_page", "account_page", "review_page", "compare"),
        *("cart", "shipping_details", "payment_details", "error_page"),
    }
)
"""Rows that do no more than show a page: they are sent as `page_view`."""
IDLE_SECONDS: Final = 1800
"""After as many seconds without an event, the next one begins another session."""
ORDERS: Final = 100_000
"""The order number of a row is this plus the row number."""

Row = dict[str, str]
Event = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the gateway."""

    events: tuple[Event, ...]
    """A single event, or those of a batch."""
    is_batch: bool
    """Whether it is sent as a batch."""
    malformed: frozenset[int] = frozenset()
    """Indexes of the events that break a rule."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Expected outcome of requests that are answered once each."""

    accepted: int
    """Accepted events, repetitions included."""
    rejected: int
    """Rejected events."""
    distinct: int
    """Distinct accepted events."""


def read_rows(limit: int | None = None) -> list[Row]:
    """The first rows of the clickstream, or all of them."""
    with gzip.open(CSV, "rt", encoding="utf-8", newline="") as file:
        return list(islice(csv.DictReader(file), limit))


def event_id(row_number: int) -> str:
    """The event id of a row, the same in every run."""
    return str(uuid.uuid5(IDS, str(row_number)))


def timestamp(row: Row) -> str:
    """The time of a row in RFC 3339."""
    return f"{row['timestamp'].replace(' ', 'T')}Z"


def wordpress_id(row: Row) -> int:
    """The WordPress user of a row: `user_0000` is 1."""
    return int(row["user_id"].removeprefix("user_")) + 1


def event_type(row: Row) -> str:
    """The type of the event as which a row is sent."""
    return "page_view" if row["event"] in PAGES else row["event"]


def event(row_number: int, row: Row) -> Event:
    """A row as the plugin would report it."""
    page: Event = {
        "id": event_id(row_number),
        "timestamp": timestamp(row),
        "event_type": event_type(row),
        "user_id": str(wordpress_id(row)),
        "session_id": row["session_id"],
        "page_url": f"https://shop.example/{row['event'].replace('_', '-')}",
        "platform": row["platform"],
        "metadata": {"user_cohort": row["user_cohort"], "user_lifecycle": row["user_lifecycle"]},
    }
    if row["acquisition_channel"] != "direct":
        page["utm_parameters"] = {"source": row["acquisition_channel"]}
    return page


def registrations(rows: Iterable[Row]) -> list[Event]:
    """The users of the rows as WordPress registers them: each in its first session."""
    first: dict[int, Row] = {}
    for row in rows:
        user = wordpress_id(row)
        if user not in first or row["timestamp"] < first[user]["timestamp"]:
            first[user] = row
    return [
        {
            "wordpress_id": user,
            "email": f"{row['user_id']}@shop.example",
            "registration_date": timestamp(row),
            "session_id": row["session_id"],
            "timestamp": timestamp(row),
        }
        for user, row in sorted(first.items())
    ]


def purchases(rows: Iterable[Row]) -> list[Event]:
    """The orders of the rows as WooCommerce reports them: a course of 199 USD each, some of them reported twice."""
    orders: list[Event] = []
    for number, row in enumerate(rows, start=1):
        if row["event"] == "purchase":
            order: Event = {
                "id": str(uuid.uuid5(IDS, f"purchase {number}")),
                "timestamp": timestamp(row),
                "user_id": str(wordpress_id(row)),
                "session_id": row["session_id"],
                "order_id": str(ORDERS + number),
                "product_id": "pmp-course",
                "product_name": "PMP exam preparation",
                "product_type": "course",
                "amount": PRICE,
                "currency": "USD",
                "payment_method": "card",
                "payment_status": "completed",
                "source": "plugin",
            }
            orders.append(order)
            if len(orders) % REPEAT_EVERY == 0:
                orders.append({**order, "id": f"{order['id']}.again", "source": "page"})
    return orders


def funnel(rows: Sequence[Row], steps: Sequence[str]) -> list[int]:
    """Number of users who reached each step, with rows ordered by time and, at the same time, by event id."""
    seen: dict[str, list[tuple[str, str, str]]] = defaultdict(list)
    for number, row in enumerate(rows, start=1):
        if (name := event_type(row)) in steps:
            seen[row["user_id"]].append((row["timestamp"], event_id(number), name))
    reached = [0] * len(steps)
    for events in seen.values():
        depth = 0
        for _, _, name in sorted(events):
            if depth < len(steps) and name == steps[depth]:
                reached[depth] += 1
                depth += 1
    return reached


def requests(rows: Iterable[Row]) -> Iterator[Request]:
    """The requests of WordPress: purchases and a visitor's first event immediately, the others from its queue in batches.

    Some of them are malformed and some are sent twice, always the same ones.
    """
    visitors: set[str] = set()
    queue: list[Event] = []
    singles = batches = 0
    for number, row in enumerate(rows, start=1):
        page = event(number, row)
        if row["event"] == "purchase" or row["user_id"] not in visitors:
            visitors.add(row["user_id"])
            yield from _single(page, singles)
            singles += 1
            continue
        queue.append(page)
        if len(queue) == _room(batches):
            yield from _batch(queue, batches)
            queue = []
            batches += 1
    if queue:
        yield from _batch(queue, batches)


def outcome(sent: Iterable[Request]) -> Outcome:
    """The expected outcome of the requests."""
    accepted = rejected = 0
    ids: set[str] = set()
    for request in sent:
        good = [page["id"] for index, page in enumerate(request.events) if index not in request.malformed]
        accepted += len(good)
        rejected += len(request.malformed)
        ids.update(good)
    return Outcome(accepted, rejected, len(ids))


def count_types(rows: Iterable[Row]) -> Counter[str]:
    """Number of rows of each event type."""
    return Counter(map(event_type, rows))


def count_sessions(rows: Iterable[Row]) -> int:
    """Number of sessions: 30 minutes without an event begin another one."""
    times: dict[str, list[datetime]] = defaultdict(list)
    for row in rows:
        times[row["session_id"]].append(datetime.fromisoformat(timestamp(row)))
    gaps = (after - before for each in times.values() for before, after in pairwise(sorted(each)))
    return len(times) + sum(gap.total_seconds() > IDLE_SECONDS for gap in gaps)


def _room(batch: int) -> int:
    """Number of rows in a batch, which may have to leave room for a malformed event."""
    return BATCH - 1 if batch % BAD_IN_BATCH_EVERY == 0 else BATCH


def _single(page: Event, number: int) -> Iterator[Request]:
    request = Request((page,), is_batch=False)
    yield request
    if number % REPEAT_EVERY == 0:
        yield request
    if number % BAD_SINGLE_EVERY == 0:
        yield Request((_malformed(page, number // BAD_SINGLE_EVERY),), is_batch=False, malformed=frozenset({0}))


def _batch(pages: list[Event], number: int) -> Iterator[Request]:
    request = Request(tuple(pages), is_batch=True)
    if number % BAD_IN_BATCH_EVERY == 0:
        middle = len(pages) // 2
        bad = _malformed(pages[middle], number // BAD_IN_BATCH_EVERY)
        request = Request((*pages[:middle], bad, *pages[middle:]), is_batch=True, malformed=frozenset({middle}))
    yield request
    if number % REPEAT_EVERY == 0:
        yield request


def _malformed(page: Event, number: int) -> Event:
    """A copy that breaks one of the rules, in rotation."""
    broken: tuple[Event, ...] = (
        {"timestamp": None},
        {"event_type": ""},
        {"platform": "with a space"},
        {"timestamp": "2999-01-01T00:00:00Z"},
        {"session_id": "with a space"},
    )
    return {**page, "id": f"{page['id']}.malformed", **broken[number % len(broken)]}
