"""A generated shop, and its figures computed by DuckDB from what was sent: independent of the service's own code."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import duckdb
from google.protobuf.message import Message
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged, UserChanged
from pmp.ingestion.v1 import event_pb2
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import EXCLUSION_STAFF, EXCLUSION_TEST

from kit.rules import DECIMALS
from tests.services import course_oracle, order_oracle

FIRST = datetime(2026, 3, 20, tzinfo=UTC)
"""Europe/Berlin sets its clocks on 29 March."""
DAYS = 18
SOURCES = [
    *(("", "", ""), ("google", "cpc", "spring"), ("google", "organic", ""), ("newsletter", "email", "Frühling"), ("partner", "", "")),
    ("fabrikam", "referral", "ambassadors"),
]
CURRENCIES = {"EUR": Decimal("0.92"), "JPY": Decimal("149.3"), "KWD": Decimal("0.307"), "USD": Decimal(1), "XOF": None}
"""Units of each for one of the base currency, USD; None where no rate is known."""
TYPES = ["page_view"] * 6 + ["scroll", "lead_capture", "course_enrolled", "course_completed", "view_item", "add_to_cart"]
COURSES = {"product-0": ["python", "pmp"], "product-1": ["pmp", "scrum", "python"]}
"""The courses that products give access to; product-2 is itself a course."""

EXCLUSIONS = ({"tests": EXCLUSION_TEST}, {"staff": EXCLUSION_STAFF}, {"tests": EXCLUSION_TEST, "staff": EXCLUSION_STAFF})
"""Why excluded orders are."""


@dataclass
class Shop:
    """What was sent."""

    name: str = ""
    """Its ids begin with it."""
    first: datetime = FIRST
    days: int = DAYS
    """How long from `first` there are events."""
    included: frozenset[str] = frozenset()
    """Why orders are excluded that count nevertheless."""
    batches: list[list[Message]] = field(default_factory=list[list[Message]])
    """Messages of topics, in the order in which they are published."""
    events: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    orders: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    entries: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    lines: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    line_courses: list[tuple[Any, ...]] = field(default_factory=list[tuple[Any, ...]])
    """A row for each course of a line, with the number of its courses."""
    persons: dict[str, str] = field(default_factory=dict[str, str])
    """The person that each identifier leads to in the end."""
    registrations: list[int] = field(default_factory=list[int])
    registered: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])
    """Users, and when they registered."""
    coupons: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Orders and the coupons used for them."""
    erased: set[str] = field(default_factory=set[str])
    """The identifiers of persons who were erased in the end."""

    def add(self, other: Shop) -> None:
        """Adds what was sent of another shop, except its messages."""
        self.events += other.events
        self.orders += other.orders
        self.entries += other.entries
        self.lines += other.lines
        self.coupons += other.coupons
        self.line_courses += other.line_courses
        self.persons |= other.persons
        self.registrations += other.registrations
        self.registered += other.registered

    def identifiers(self, user: str) -> list[str]:
        """Returns the identifiers of a person."""
        return sorted(identifier for identifier, person in self.persons.items() if person == f"user:{user}")

    def erase(self, identifiers: Sequence[str], pseudonym: str) -> None:
        """Erases a person, after which nothing is sent of it any more."""
        self.erased |= set(identifiers)
        self.persons |= dict.fromkeys(identifiers, pseudonym)


def generated(
    seed: int, visitors: int = 60, *, name: str = "", first: datetime = FIRST, days: int = DAYS, included: frozenset[str] = frozenset()
) -> Shop:
    """A shop with late, repeated and anonymous events, bots, orders in several currencies, refunds, a merge and an unmerge.

    Args:
        seed: whatever it is, the same messages are sent.
        visitors: how many.
        name: ids begin with it.
        first: the first day.
        days: how many.
        included: which orders count although they are excluded: `staff`, `tests`.
    """
    shop, rng = Shop(name, first, days, included), random.Random(seed)  # noqa: S311 (a test is to be repeatable)
    users = [f"{name}u{number}" for number in range(visitors // 3)]
    timely: list[Message] = []
    late: list[list[Message]] = []
    for number in range(visitors):
        user = users[number % len(users)] if number < visitors // 2 else ""
        for session in _sessions(shop, rng, number):
            is_known = bool(user) and rng.random() < 0.5
            for messages in _events(shop, rng, session, user if is_known else ""):
                if rng.random() < 0.15:
                    late.append(messages)
                else:
                    timely += messages
            if is_known:
                shop.persons[f"session:{session[0]}"] = f"user:{user}"
    rng.shuffle(late)
    links = [_link(shop, each, person.removeprefix("user:")) for each, person in shop.persons.items()]
    shop.persons |= {f"user:{user}": f"user:{user}" for user in users}
    registered = [_user(shop, rng, user) for user in users]
    early, changed = _orders(shop, rng, users, visitors)
    merges = [_merge(users[1], users[0]), _merge(users[3], users[2])]
    shop.batches = [
        [*timely[: len(timely) // 2], *registered, *early],
        [*links, *timely[len(timely) // 2 :], *merges],
        [*changed, *(message for messages in late for message in messages)],
    ]
    shop.batches.append([_merge(users[3], users[2], undone=True)])
    merged, into = (f"user:{user}" for user in (users[1], users[0]))
    shop.persons = {each: into if person == merged else person for each, person in shop.persons.items()}
    return shop


def _sessions(shop: Shop, rng: random.Random, number: int) -> list[tuple[str, float]]:
    """Ids of a visitor's sessions, each with the hours until its start, some of them around midnight."""
    starts = [
        rng.uniform(0, shop.days * 24) if rng.random() < 0.7 else rng.randrange(shop.days) * 24 + rng.uniform(22, 23.9)
        for _ in range(1 + number % 4)
    ]
    return [(f"{shop.name}s{number}-{index}", start) for index, start in enumerate(starts)]


def _events(shop: Shop, rng: random.Random, session: tuple[str, float], user: str) -> list[list[Message]]:
    """The events of a session, each with its repetition, if it has one."""
    session_id, hours = session
    published: list[list[Message]] = []
    at = shop.first + timedelta(hours=hours)
    is_bot, is_anonymous, is_daily, is_of_server = (rng.random() < share for share in (0.08, 0.08, 0.1, 0.05))
    source = rng.choice(SOURCES)
    logged_in = user if rng.random() < 0.7 else ""
    for number in range(rng.randint(1, 9)):
        at += timedelta(seconds=rng.choice([rng.randint(1, 400), 1799, 1801, 2400, 7200]))
        stated = source if number == 0 else rng.choice([("", "", "")] * 5 + SOURCES)
        page = (
            f"/page-{int(rng.paretovariate(1)) % 12}"
            if rng.random() < 0.7
            else rng.choice(["/courses/python/", "/course/pmp", "/product/a"])
        )
        course = {"courses": "python", "course": "pmp"}.get(page.split("/")[1], "")
        stored = event_pb2.EventStored(
            event=event_pb2.Event(
                id=str(UUID(int=rng.getrandbits(128))),
                event_type=rng.choice(TYPES),
                session_id="" if is_anonymous or is_daily or is_of_server else session_id,
                user_id=f"{shop.name}u5" if is_of_server else "" if is_anonymous or is_daily or number < 1 else logged_in,
                page_url=f"https://shop.example{page}?fbclid=1",
            ),
            enrichment=event_pb2.Enrichment(
                is_bot=is_bot,
                channel=event_pb2.CHANNEL_CAMPAIGN if stated[0] else event_pb2.CHANNEL_INTERNAL,
                traffic_source=stated[0],
                traffic_medium=stated[1],
                campaign=stated[2],
                visitor="" if is_anonymous else f"v-{session_id}",
                course=course,
                video=rng.choice(["", "", "", "v1", "v2"]) if stated[0] else "",
                device=rng.choice(["mobile", "desktop"]),
            ),
            scope="site",
        )
        stored.key = stored.event.id
        stored.event.metadata.update({"course_name": course.upper()} if course else {})
        stored.event.timestamp.FromDatetime(at)
        published.append([stored])
        if not is_anonymous and rng.random() < 0.1:
            repeated = event_pb2.EventStored()
            repeated.CopyFrom(stored)
            repeated.is_update, repeated.enrichment.device = True, "tablet"
            repeated.event.user_id = f"{shop.name}u5" if is_daily else stored.event.user_id
            published[-1].append(repeated)
            stored = repeated
        if not is_bot:
            shop.events.append(_event_row(stored))
    return published


def _event_row(stored: event_pb2.EventStored) -> tuple[Any, ...]:
    event, found = stored.event, stored.enrichment
    user = f"user:{event.user_id}" if event.user_id else None
    carrier = f"session:{event.session_id}" if event.session_id else None
    if not carrier and found.visitor and not event.user_id:
        carrier = f"visitor:{found.visitor}"
    path = event.page_url.removeprefix("https://shop.example").partition("?")[0].rstrip("/")
    stated = (found.traffic_source or None, found.traffic_medium or "(none)", found.campaign)
    return (
        stored.key,
        carrier,
        user,
        event.timestamp.ToMicroseconds(),
        event.event_type,
        path,
        found.course,
        *stated,
        found.device,
        found.video,
    )


def _orders(shop: Shop, rng: random.Random, users: Sequence[str], visitors: int) -> tuple[list[Message], list[Message]]:
    """Orders as they are published first, and again after refunds and corrections."""
    first: list[Message] = []
    again: list[Message] = []
    for number in range(visitors):
        currency = rng.choice([*CURRENCIES])
        subject = f"user:{rng.choice(users)}" if rng.random() < 0.7 else f"email:{number % 9:064x}"
        sold = shop.first + timedelta(hours=rng.uniform(-48, shop.days * 24))
        session_id = ""
        if number % 2:
            _, carrier, _, at, *_ = rng.choice([row for row in shop.events if row[1] and row[1].startswith("session:")])
            session_id = carrier.removeprefix("session:") if number % 9 else "unknown"
            sold = datetime.fromtimestamp(0, UTC) + timedelta(microseconds=at, minutes=rng.uniform(-200, 200))
        change = change_pb2.PurchaseChanged(
            purchase_id=f"{shop.name}p{number}", currency=currency, base_currency="USD", subject=subject, session_id=session_id
        )
        change.timestamp.FromDatetime(sold)
        source = rng.choice(SOURCES)
        change.utm_attribution.source, change.utm_attribution.medium, change.utm_attribution.campaign = source
        prices = [_rounded(Decimal(rng.randint(1, 30000)) / 7, currency) for _ in range(rng.randint(1, 3))]
        for index, price in enumerate(prices):
            product = f"product-{(number + index) % 5}"
            line = change.lines.add(product_id=product, product_name=product.upper(), quantity=1 + index, amount=f"{price}")
            line.course_ids.extend(COURSES.get(product, []))
            line.product_type = "course" if product == "product-2" else "other"
        order_oracle.break_down(change, number, _rounded, CURRENCIES[currency])
        if number % 10 == 3:
            first.append(change)  # never paid
            continue
        change.sold_at.FromDatetime(sold)
        change.excluded = number % 10 == 7
        reasons = EXCLUSIONS[number % 3] if change.excluded else {}
        change.exclusions.extend(reasons.values())
        kinds = [(change_pb2.ENTRY_KIND_SALE, sum(prices, Decimal(0)), sold)]
        if number % 3 == 0:
            kinds.append((change_pb2.ENTRY_KIND_PARTIAL_REFUND, -prices[0], sold + timedelta(days=rng.uniform(0, 6))))
        if number % 7 == 0:
            kinds.append((change_pb2.ENTRY_KIND_CORRECTION, -_rounded(prices[-1] / 2, currency), sold + timedelta(days=3)))
        for kind, amount, at in kinds:
            _book(change, kind, amount, at)
            copy = change_pb2.PurchaseChanged()
            copy.CopyFrom(change)
            if number % 7 == 0 and len(change.entries) == 1:
                order_oracle.break_down(copy, number + 1, _rounded, CURRENCIES[currency])
            (again if len(change.entries) > 1 else first).append(copy)
        if reasons.keys() <= shop.included:
            _order_rows(shop, change, source)
    return first, again


def _book(change: change_pb2.PurchaseChanged, kind: change_pb2.EntryKind.ValueType, amount: Decimal, at: datetime) -> None:
    rate = CURRENCIES[change.currency]
    base = "" if rate is None else f"{(amount / rate).quantize(Decimal('0.01'), ROUND_HALF_UP)}"
    change.entries.add(kind=kind, amount=f"{amount}", base_amount=base).timestamp.FromDatetime(at)


def _order_rows(shop: Shop, change: change_pb2.PurchaseChanged, source: tuple[str, str, str]) -> None:
    sold = change.sold_at.ToMicroseconds()
    stated = (source[0], source[1] or "(none)", source[2]) if source[0] else (None, None, None)
    details = order_oracle.details_of(change)
    shop.orders.append((change.purchase_id, change.subject, f"session:{change.session_id}", sold, change.currency, *stated, *details))
    shop.coupons += [(change.purchase_id, code) for code in change.coupon_codes]
    for entry in change.entries:
        name = change_pb2.EntryKind.Name(entry.kind).removeprefix("ENTRY_KIND_")
        base = Decimal(entry.base_amount) if entry.base_amount else None
        shop.entries.append((change.purchase_id, name, entry.timestamp.ToMicroseconds(), Decimal(entry.amount), base))
    for number, line in enumerate(change.lines):
        shop.lines.append((change.purchase_id, number, line.product_id, line.quantity, Decimal(line.amount)))
        courses = [*line.course_ids] or ([line.product_id] if line.product_type == "course" else [])
        shop.line_courses += [(change.purchase_id, number, course, len(courses)) for course in courses]


def _rounded(amount: Decimal, currency: str) -> Decimal:
    return amount.quantize(Decimal(1).scaleb(-DECIMALS.get(currency, 2)), ROUND_HALF_UP)


def _link(shop: Shop, identifier: str, user: str) -> IdentityChanged:
    changed = IdentityChanged(alias=AliasChanged(subject=identifier, user_id=user))
    changed.alias.linked_at.FromDatetime(shop.first)
    return changed


def _merge(merged: str, into: str, *, undone: bool = False) -> IdentityChanged:
    return IdentityChanged(merge=MergeChanged(user_id=into, merged_user_id=merged, undone=undone))


def _user(shop: Shop, rng: random.Random, user: str) -> IdentityChanged:
    at = shop.first + timedelta(hours=rng.uniform(0, shop.days * 24))
    changed = IdentityChanged(user=UserChanged(user_id=user))
    changed.user.registration_date.FromDatetime(at)
    shop.registrations.append(changed.user.registration_date.ToMicroseconds())
    shop.registered.append((f"user:{user}", shop.registrations[-1]))
    return changed


class Oracle:
    """Computes figures from all that was sent.

    Args:
        shop: what was sent.
        zone: IANA name of the time zone in which days are cut.
    """

    def __init__(self, shop: Shop, zone: str) -> None:
        self._database = duckdb.connect()
        self._load("events", "key, carrier, user_, ts, type, page, course, source, medium, campaign, device, video", shop.events)
        self._load("reported", f"id, subject, carrier, ts, currency, source, medium, campaign, {order_oracle.DETAILS[0]}", shop.orders)
        self._load("coupons", "id, coupon", shop.coupons)
        self._load("registered", "subject, ts", shop.registered)
        self._load("entries", "id, kind, ts, amount, base", shop.entries)
        self._load("lines", "id, number, product, quantity, amount", shop.lines)
        self._load("line_courses", "id, number, course, count", shop.line_courses)
        self._load("persons", "subject, person", [*shop.persons.items()])
        self._load("registrations", "ts", [(ts,) for ts in shop.registrations])
        self._load("erased", "subject", [(identifier,) for identifier in shop.erased])
        self._database.execute(f"CREATE MACRO day(ts) AS CAST(timezone('{zone}', to_timestamp(ts / 1000000)) AS DATE)")
        self._database.execute(_SESSIONS)
        self._database.execute(course_oracle.TABLES)
        self._database.execute(_ERASURE)
        self._database.execute(_VISITED)
        self._database.execute(order_oracle.TABLES)
        self._zone = ZoneInfo(zone)

    def _load(self, table: str, columns: str, rows: Sequence[tuple[Any, ...]]) -> None:
        names = columns.split(", ")
        types = {
            **dict.fromkeys(("ts", "quantity", "number", "count"), "BIGINT"),
            **dict.fromkeys(("amount", "base", *order_oracle.DETAILS[1]), "DECIMAL(19,4)"),
        }
        typed = ", ".join(f"{name} {types.get(name, 'VARCHAR')}" for name in names)
        self._database.execute(f"CREATE TABLE {table} ({typed})")
        values = ", ".join(f"UNNEST(CAST(? AS {types.get(name, 'VARCHAR')}[]))" for name in names)
        for first in range(0, len(rows), _ROWS_AT_ONCE):
            columns_ = [list(column) for column in zip(*rows[first : first + _ROWS_AT_ONCE], strict=True)]
            self._database.execute(f"INSERT INTO {table} SELECT {values}", columns_)

    def figures(self, since: str, until: str) -> Mapping[str, float | None]:
        """The figures of a period."""
        (row,) = self._rows(_FIGURES, since, until)
        return row

    def unrated(self, since: str, until: str) -> int:
        """The number of entries of a period that are in no amount of the base currency."""
        [row] = self._rows("SELECT COUNT(*) AS unrated FROM entries WHERE base IS NULL AND day(ts) BETWEEN $since AND $until", since, until)
        return row["unrated"]

    def series(self, since: str, until: str) -> Sequence[Mapping[str, Any]]:
        """The figures of each day of a period, or of each hour or month of it."""
        length = (date.fromisoformat(until) - date.fromisoformat(since)).days + 1
        if length > 400:
            return [{**row, "hour": ""} for row in self._rows(course_oracle.BY_MONTH, since, until)]
        if length > 2:
            return [{**row, "hour": ""} for row in self._rows(_SERIES, since, until)]
        return self._by_hour(date.fromisoformat(since), date.fromisoformat(until))

    def content(self, since: str, until: str) -> Sequence[Mapping[str, Any]]:
        """What led to courses, and the orders and amounts of them."""
        return self._rows(course_oracle.CONTENT, since, until)

    def course_trend(self, course: str, since: str, until: str) -> Sequence[Mapping[str, Any]]:
        """The figures of a course on each day of a period."""
        first, last = date.fromisoformat(since), date.fromisoformat(until)
        days = [(first + timedelta(days=number)).isoformat() for number in range((last - first).days + 1)]
        rows = [(day, self.report("courses", "course", day, day).get(course, {})) for day in days]
        return [{"day": day, **{name: row.get(name, 0.0) for name in course_oracle.TREND}} for day, row in rows]

    def _by_hour(self, first: date, last: date) -> Sequence[Mapping[str, Any]]:
        """The figures of each hour: the zones of the tests are a whole number of quarters of an hour from UTC."""
        at = datetime.combine(first, datetime.min.time(), self._zone).astimezone(UTC)
        end = datetime.combine(last + timedelta(days=1), datetime.min.time(), self._zone).astimezone(UTC)
        found: list[Mapping[str, Any]] = []
        while at < end:
            bounds = {"begin": int(at.timestamp() * 1e6), "end": int((at + timedelta(hours=1)).timestamp() * 1e6)}
            cursor = self._database.execute(course_oracle.HOUR, bounds)
            names = [column[0] for column in cursor.description or ()]
            local = at.astimezone(self._zone)
            values = {name: _plain(value) for name, value in zip(names, cursor.fetchall()[0], strict=True)}
            found.append({"day": local.date().isoformat(), "hour": local.isoformat(), "visitors": 0.0, **values})
            at += timedelta(hours=1)
        return found

    def report(self, report: str, group: str, since: str, until: str) -> Mapping[Any, Mapping[str, Any]]:
        """The rows of a report, by group, as `keyed` returns them."""
        return order_oracle.keyed(self._rows(REPORTS[report, group].replace("$group", group), since, until), group)

    def _rows(self, query: str, since: str, until: str) -> list[dict[str, Any]]:
        found = self._database.execute(query, {"since": since, "until": until})
        names = [column[0] for column in found.description or ()]
        return [{name: _plain(value) for name, value in zip(names, row, strict=True)} for row in found.fetchall()]


def _plain(value: Any) -> Any:
    """Numbers as JSON has them, days as text."""
    if isinstance(value, date):
        return value.isoformat()
    return float(value) if isinstance(value, int | Decimal) else value


_ROWS_AT_ONCE = 100_000
_SESSIONS = """
CREATE TABLE visits AS
WITH runs AS (
    SELECT *, SUM(begins) OVER (PARTITION BY carrier ORDER BY ts, key) AS run FROM (
        SELECT *, CAST(COALESCE(ts - LAG(ts) OVER (PARTITION BY carrier ORDER BY ts, key) > 1800000000, TRUE) AS INT) AS begins
        FROM events WHERE carrier IS NOT NULL
    )
), stated AS (
    SELECT *,
        CASE WHEN source IS NOT NULL THEN concat(source, '|', medium, '|', campaign) END AS said,
        LAST_VALUE(CASE WHEN source IS NOT NULL THEN concat(source, '|', medium, '|', campaign) END IGNORE NULLS)
            OVER before AS said_before,
        COUNT(*) FILTER (type = 'page_view') OVER before AS views_before
    FROM runs
    WINDOW before AS (PARTITION BY carrier, run ORDER BY ts, key ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING)
), parts AS (
    SELECT *, SUM(CAST(said IS NOT NULL AND (said <> said_before OR said_before IS NULL AND views_before > 0) AS INT))
        OVER (PARTITION BY carrier, run ORDER BY ts, key) AS part
    FROM stated
)
SELECT *, carrier || '/' || run || '/' || COALESCE(part, 0) AS visit FROM parts;

CREATE TABLE sessions AS
WITH grouped AS (
    SELECT visit, MIN(carrier) AS carrier, MIN(ts) AS began, MAX(ts) AS ended, COUNT(*) FILTER (type = 'page_view') AS views,
        FIRST(source ORDER BY ts, key) FILTER (source IS NOT NULL) AS source,
        FIRST(medium ORDER BY ts, key) FILTER (source IS NOT NULL) AS medium,
        FIRST(campaign ORDER BY ts, key) FILTER (source IS NOT NULL) AS campaign,
        FIRST(user_ ORDER BY ts, key) FILTER (user_ IS NOT NULL) AS user_,
        FIRST(device ORDER BY ts, key) AS device,
        FIRST(page ORDER BY ts, key) FILTER (type = 'page_view') AS landing_page,
        FIRST(video ORDER BY ts, key) FILTER (video <> '') AS video
    FROM visits GROUP BY visit
)
SELECT grouped.* EXCLUDE (source, medium, campaign),
    COALESCE(source, '(direct)') AS source, COALESCE(medium, '(none)') AS medium, COALESCE(campaign, '') AS campaign,
    COALESCE(person, user_, carrier) AS visitor
FROM grouped LEFT JOIN persons ON persons.subject = COALESCE(user_, carrier);

CREATE TABLE orders AS
WITH found AS (
    SELECT id, arg_max(ROW(sessions.source, sessions.medium, sessions.campaign), began) FILTER (began <= ts) AS last,
        arg_min(ROW(sessions.source, sessions.medium, sessions.campaign), began) AS first
    FROM reported JOIN sessions USING (carrier) GROUP BY id
), chosen AS (SELECT id, COALESCE(last, first) AS origin FROM found)
SELECT reported.* EXCLUDE (source, medium, campaign),
    COALESCE(source, origin[1], '(unknown)') AS source, COALESCE(medium, origin[2], '(none)') AS medium,
    COALESCE(campaign, origin[3], '') AS campaign
FROM reported LEFT JOIN chosen USING (id);
"""
_ERASURE = """
CREATE TABLE of_erased AS
SELECT key, visit FROM visits JOIN sessions USING (visit) WHERE sessions.carrier IN (FROM erased) OR sessions.user_ IN (FROM erased)
UNION SELECT key, NULL FROM events WHERE carrier IS NULL AND user_ IN (FROM erased);

CREATE MACRO other(word) AS CASE word WHEN '' THEN '' ELSE '(other)' END;
CREATE MACRO listed(word) AS CASE word WHEN 'fabrikam' THEN '(other)' ELSE word END;

CREATE MACRO path(page) AS CASE WHEN page LIKE '/product/%' THEN '/product/(other)' ELSE '(other)' END;

UPDATE events SET page = path(page), course = other(course) WHERE key IN (SELECT key FROM of_erased);
UPDATE visits SET page = path(page), course = other(course) WHERE key IN (SELECT key FROM of_erased);
UPDATE sessions SET landing_page = path(landing_page) WHERE landing_page IS NOT NULL AND visit IN (SELECT visit FROM of_erased);
UPDATE sessions SET video = '(other)' WHERE video IS NOT NULL AND visit IN (SELECT visit FROM of_erased);
UPDATE bought SET landing_page = path(landing_page) WHERE landing_page IS NOT NULL
    AND id IN (SELECT id FROM orders WHERE subject IN (FROM erased));
UPDATE bought SET video = '(other)' WHERE video IS NOT NULL AND id IN (SELECT id FROM orders WHERE subject IN (FROM erased));
UPDATE sessions SET source = listed(source), campaign = other(campaign) WHERE visit IN (SELECT visit FROM of_erased);
UPDATE orders SET source = listed(source), campaign = other(campaign) WHERE subject IN (FROM erased);
"""
"""What is left of persons who were erased: all media of the shop are common words, and all its sources but one."""
_VISITED = """
CREATE TABLE visited AS SELECT visits.* EXCLUDE (source, medium, campaign, device, video), sessions.* EXCLUDE (visit, carrier, user_)
FROM visits JOIN sessions USING (visit);

CREATE TABLE sold AS SELECT orders.*, COALESCE(person, orders.subject) AS customer FROM orders LEFT JOIN persons USING (subject);
"""
_FIGURES = """
WITH of_events AS (
    SELECT COUNT(*) FILTER (type = 'page_view') AS page_views, COUNT(*) FILTER (type = 'lead_capture') AS leads,
        COUNT(*) FILTER (type = 'course_enrolled') AS enrolments, COUNT(*) FILTER (type = 'course_completed') AS completions
    FROM events WHERE day(ts) BETWEEN $since AND $until
), of_sessions AS (
    SELECT COUNT(*) AS sessions, AVG(CAST(views <= 1 AS INT)) AS bounce_rate, AVG((ended - began) // 1000000) AS session_seconds
    FROM sessions WHERE day(began) BETWEEN $since AND $until
), of_visitors AS (
    SELECT COUNT(DISTINCT visitor) AS visitors FROM visited WHERE day(ts) BETWEEN $since AND $until
), of_registrations AS (
    SELECT COUNT(*) AS registrations FROM registrations WHERE day(ts) BETWEEN $since AND $until
), of_entries AS (
    SELECT COALESCE(SUM(base) FILTER (kind = 'SALE'), 0) AS gross_revenue,
        COALESCE(-SUM(base) FILTER (kind = 'PARTIAL_REFUND'), 0) AS refunds,
        COALESCE(SUM(base) FILTER (kind = 'CORRECTION'), 0) AS corrections,
        COALESCE(SUM(base), 0) AS net_revenue
    FROM entries WHERE day(ts) BETWEEN $since AND $until
), of_orders AS (
    SELECT COUNT(*) AS orders, COUNT(DISTINCT customer) AS customers, COALESCE(SUM(base_discounts), 0) AS discounts,
        COALESCE(SUM(base_taxes), 0) AS taxes, COALESCE(SUM(base_shipping), 0) AS shipping,
        COUNT(DISTINCT customer) FILTER (first >= CAST($since AS DATE)) AS new_customers
    FROM sold JOIN (SELECT customer, MIN(day(ts)) AS first FROM sold GROUP BY customer) USING (customer)
    WHERE day(ts) BETWEEN $since AND $until
)
SELECT visitors, sessions, page_views, bounce_rate, session_seconds, leads, registrations, enrolments, completions, orders, gross_revenue,
    discounts, taxes, shipping, refunds, corrections, net_revenue, CAST(gross_revenue AS DOUBLE) / NULLIF(orders, 0) AS average_order_value,
    orders / NULLIF(sessions, 0) AS conversion_rate, CAST(net_revenue AS DOUBLE) / NULLIF(visitors, 0) AS revenue_per_visitor,
    customers, new_customers, customers - new_customers AS returning_customers
FROM of_events, of_sessions, of_visitors, of_registrations, of_entries, of_orders
"""
_SERIES = """
SELECT day, COALESCE(visitors, 0) AS visitors, COALESCE(sessions, 0) AS sessions, COALESCE(page_views, 0) AS page_views,
    COALESCE(orders, 0) AS orders, COALESCE(net_revenue, 0) AS net_revenue
FROM (SELECT CAST(UNNEST(generate_series(CAST($since AS DATE), CAST($until AS DATE), INTERVAL 1 DAY)) AS DATE) AS day)
LEFT JOIN (SELECT day(ts) AS day, COUNT(DISTINCT visitor) AS visitors FROM visited GROUP BY 1) USING (day)
LEFT JOIN (SELECT day(began) AS day, COUNT(*) AS sessions FROM sessions GROUP BY 1) USING (day)
LEFT JOIN (SELECT day(ts) AS day, COUNT(*) AS page_views FROM events WHERE type = 'page_view' GROUP BY 1) USING (day)
LEFT JOIN (SELECT day(ts) AS day, COUNT(*) AS orders FROM orders GROUP BY 1) USING (day)
LEFT JOIN (SELECT day(ts) AS day, SUM(base) AS net_revenue FROM entries GROUP BY 1) USING (day)
ORDER BY day
"""
_ACQUISITION = """
WITH v AS (
    SELECT $group, COUNT(DISTINCT visitor) AS visitors, COUNT(*) FILTER (type = 'page_view') AS page_views,
        COUNT(*) FILTER (type = 'lead_capture') AS leads, COUNT(*) FILTER (type = 'course_enrolled') AS enrolments
    FROM visited WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
), s AS (
    SELECT $group, COUNT(*) AS sessions, AVG(CAST(views <= 1 AS INT)) AS bounce_rate, AVG((ended - began) // 1000000) AS session_seconds
    FROM sessions WHERE day(began) BETWEEN $since AND $until GROUP BY 1
), o AS (
    SELECT $group, COUNT(*) AS orders FROM orders WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
), e AS (
    SELECT $group, SUM(base) AS net FROM entries JOIN orders USING (id) WHERE day(entries.ts) BETWEEN $since AND $until GROUP BY 1
)
SELECT $group, COALESCE(visitors, 0) AS visitors, COALESCE(sessions, 0) AS sessions, COALESCE(page_views, 0) AS page_views, bounce_rate,
    session_seconds, COALESCE(leads, 0) AS leads, COALESCE(enrolments, 0) AS enrolments, COALESCE(orders, 0) AS orders,
    COALESCE(net, 0) AS net_revenue, CAST(COALESCE(orders, 0) AS DOUBLE) / sessions AS conversion_rate
FROM v FULL JOIN s USING ($group) FULL JOIN o USING ($group) FULL JOIN e USING ($group) WHERE $group <> ''
"""
_OF_SESSIONS = """
SELECT $group, COALESCE(sessions, 0) AS sessions, COALESCE(page_views, 0) AS page_views, bounce_rate, session_seconds,
    COALESCE(leads, 0) AS leads, COALESCE(enrolments, 0) AS enrolments
FROM (
    SELECT $group, COUNT(*) FILTER (type = 'page_view') AS page_views, COUNT(*) FILTER (type = 'lead_capture') AS leads,
        COUNT(*) FILTER (type = 'course_enrolled') AS enrolments
    FROM visited WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
) FULL JOIN (
    SELECT $group, COUNT(*) AS sessions, AVG(CAST(views <= 1 AS INT)) AS bounce_rate, AVG((ended - began) // 1000000) AS session_seconds
    FROM sessions WHERE day(began) BETWEEN $since AND $until GROUP BY 1
) USING ($group)
"""
_OF_LANDING = """
SELECT landing_page, COUNT(*) AS sessions, AVG(CAST(views <= 1 AS INT)) AS bounce_rate, AVG((ended - began) // 1000000) AS session_seconds
FROM sessions WHERE day(began) BETWEEN $since AND $until AND landing_page IS NOT NULL GROUP BY 1
"""
_REVENUE = """
WITH o AS (
    SELECT $group, COUNT(DISTINCT id) AS orders, SUM(quantity) AS quantity
    FROM (SELECT *, day(ts) AS day, strftime(day(ts), '%Y-%m') AS month FROM orders) JOIN lines USING (id)
    WHERE day BETWEEN $since AND $until GROUP BY 1
), d AS (
    SELECT $group, SUM($prefixdiscounts) AS discounts, SUM($prefixtaxes) AS taxes, SUM($prefixshipping) AS shipping
    FROM (SELECT *, day(ts) AS day, strftime(day(ts), '%Y-%m') AS month FROM orders)
    WHERE day BETWEEN $since AND $until GROUP BY 1
), e AS (
    SELECT $group, SUM(value) FILTER (kind = 'SALE') AS gross, -SUM(value) FILTER (kind = 'PARTIAL_REFUND') AS refunds,
        SUM(value) FILTER (kind = 'CORRECTION') AS corrections, SUM(value) AS net
    FROM (
        SELECT kind, entries.$amount AS value, currency, country, day(entries.ts) AS day, strftime(day(entries.ts), '%Y-%m') AS month
        FROM entries JOIN orders USING (id)
    ) WHERE day BETWEEN $since AND $until GROUP BY 1
)
SELECT $group, COALESCE(orders, 0) AS orders, COALESCE(gross, 0) AS gross_revenue, COALESCE(discounts, 0) AS discounts,
    COALESCE(taxes, 0) AS taxes, COALESCE(shipping, 0) AS shipping, COALESCE(refunds, 0) AS refunds,
    COALESCE(corrections, 0) AS corrections, COALESCE(net, 0) AS net_revenue, COALESCE(quantity, 0) AS quantity
FROM o FULL JOIN d USING ($group) FULL JOIN e USING ($group)
"""
REPORTS = {
    **course_oracle.REPORTS,
    ("acquisition", "source"): _ACQUISITION,
    ("acquisition", "campaign"): _ACQUISITION,
    ("acquisition", "medium"): _ACQUISITION.replace("COALESCE(visitors, 0) AS visitors, ", ""),
    ("acquisition", "device"): _OF_SESSIONS,
    ("acquisition", "landing_page"): _OF_LANDING,
    ("revenue", "day"): _REVENUE.replace("$amount", "base").replace("$prefix", "base_"),
    ("revenue", "month"): _REVENUE.replace("$amount", "base").replace("$prefix", "base_"),
    ("revenue", "currency"): _REVENUE.replace("$amount", "amount").replace("$prefix", ""),
    ("revenue", "country"): _REVENUE.replace("$amount", "base").replace("$prefix", "base_"),
    **order_oracle.REPORTS,
    ("content", "page"): """
        SELECT page, COUNT(*) AS page_views FROM events WHERE type = 'page_view' AND day(ts) BETWEEN $since AND $until GROUP BY 1
    """,
    ("content", "course"): """
        SELECT events.course, COUNT(*) FILTER (events.type = 'page_view') AS page_views, COUNT(DISTINCT visitor) AS visitors,
            COUNT(*) FILTER (events.type = 'lead_capture') AS leads, COUNT(*) FILTER (events.type = 'course_enrolled') AS enrolments
        FROM events LEFT JOIN visited USING (key)
        WHERE events.course <> '' AND events.type <> 'scroll' AND day(events.ts) BETWEEN $since AND $until GROUP BY 1
    """,
    ("products", "product"): """
        WITH sales AS (SELECT id, amount AS paid, base FROM entries WHERE kind = 'SALE')
        SELECT product, upper(product) AS title, COUNT(DISTINCT id) AS orders, SUM(quantity) AS quantity,
            COALESCE(SUM(CAST(amount AS DOUBLE) * base / paid), 0) AS revenue
        FROM lines JOIN orders USING (id) LEFT JOIN sales USING (id) WHERE day(ts) BETWEEN $since AND $until GROUP BY 1
    """,
    ("customers", "customer"): """
        SELECT customer, COUNT(*) AS orders, SUM(net) AS lifetime_value, MIN(day(ts)) AS first_order, MAX(day(ts)) AS last_order,
            CASE WHEN FIRST(source ORDER BY ts) <> '(unknown)' AND MIN(ts) < ANY_VALUE(began) THEN FIRST(source ORDER BY ts)
                ELSE COALESCE(ANY_VALUE(came_from), FIRST(source ORDER BY ts)) END AS first_source
        FROM sold JOIN (SELECT id, COALESCE(SUM(base), 0) AS net FROM entries GROUP BY 1) USING (id)
        LEFT JOIN (SELECT visitor AS customer, MIN(began) AS began, arg_min(source, began) AS came_from FROM sessions
            WHERE visit NOT IN (SELECT visit FROM of_erased WHERE visit IS NOT NULL) GROUP BY 1)
            USING (customer)
        GROUP BY 1 HAVING COUNT(*) FILTER (day(ts) BETWEEN $since AND $until) > 0
    """,
}
"""The rows of reports, by report and group."""
