"""What an order counts as, by the dates of its sale, its refunds and its corrections: pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import orjson

from kit.people.subjects.words import MEDIA, SOURCES, listed
from services.analytics.breakdown import Breakdown, Credit, count_breakdown
from services.analytics.counts import (
    AFFILIATE,
    CAMPAIGN,
    COUNTRY,
    COUPON,
    COURSE,
    CUSTOMERS,
    HOUR,
    LANDING,
    MEDIUM,
    PRODUCT,
    SITE,
    SOURCE,
    VIDEO,
    Content,
    Counts,
    Revenue,
)
from services.analytics.course_sales import Sold, parts_of, pieces_of
from services.analytics.funnel import reached
from services.analytics.sessions import DIRECT, NO_MEDIUM, OTHER, Session, landing_of, origin_of, other_page, video_of

UNIT: Final = 10_000
"""Amounts are integers of this fraction of a currency's unit: no currency has more than four decimals."""
SALE: Final = "sale"
REFUND: Final = "refund"
CORRECTION: Final = "correction"
TESTS: Final = "tests"
"""Test orders."""
STAFF: Final = "staff"
"""Orders of the shop's staff."""
UNKNOWN: Final = "(unknown)"
"""Source of an order that was reported without a campaign, and whose session is unknown; country of one without a billing address."""
WHOLE: Final = 10_000
"""The rate of a commission that would be the whole amount."""


_SOURCES: Final = SOURCES | {DIRECT}
_MEDIA: Final = MEDIA | {NO_MEDIUM}


class Line(NamedTuple):
    """A line of an order."""

    product: str
    title: str
    quantity: int
    amount: int
    courses: Sequence[str]
    """The courses that it gives access to."""


class Entry(NamedTuple):
    """A ledger entry; its amounts are signed."""

    kind: str
    at: int
    """Microseconds since 1970."""
    amount: int
    base: int | None
    """In the base currency; None without an exchange rate."""


class Order(NamedTuple):
    """What analytics keeps of an order."""

    currency: str
    sold_at: int | None
    """Microseconds since 1970; None for an order that was never paid."""
    is_stated: bool
    """Whether it was reported with a campaign; otherwise its source is that of its session."""
    source: str
    medium: str
    campaign: str
    lines: tuple[Line, ...]
    entries: tuple[Entry, ...]
    breakdown: Breakdown = Breakdown()
    credit: Credit | None = None
    """The affiliate to whom it is credited, and the rate of the day of the sale; None for none."""
    landing: str = ""
    """Landing page of the session in which it was bought; empty if that is unknown."""
    video: str = ""
    """The video that led to that session."""
    visited_at: int | None = None
    """When that session was last active at or before the sale; None if it is unknown."""
    excluded: tuple[str, ...] = ()
    """Why it is excluded from figures, TESTS or STAFF; empty if it counts."""

    def dumps(self) -> str:
        """Serialises it."""
        lines, entries = [[*line] for line in self.lines], [[*entry] for entry in self.entries]
        visit = (self.landing, self.video, self.visited_at)
        return orjson.dumps(
            [*self[:6], lines, entries, [*self.breakdown], self.credit and [*self.credit], *visit, [*self.excluded]]
        ).decode()

    @classmethod
    def loads(cls, text: str) -> Order:
        """Parses what `dumps` returned."""
        currency, sold_at, is_stated, source, medium, campaign, lines, entries, breakdown, credit, *visit = orjson.loads(text)
        own = tuple(Line(*each) for each in lines), tuple(Entry(*each) for each in entries)
        *others, coupons, referral = breakdown
        known = Breakdown._make([*others, tuple(coupons), referral])
        landing, video, visited_at, *excluded = visit
        reasons = tuple(each for reasons in excluded for each in reasons)  # orders of earlier versions have no such list
        credited = credit and Credit(*credit)
        return cls(currency, sold_at, is_stated, source, medium, campaign, *own, known, credited, landing, video, visited_at, reasons)

    def session(self, sessions: Sequence[Session]) -> Session | None:
        """Returns the session in which it was bought, out of those under its session id, oldest first; None if it is unknown."""
        if self.sold_at is None or not sessions:
            return None
        begun = [session for session in sessions if session[0].at <= self.sold_at]
        return begun[-1] if begun else sessions[0]

    def bought_in(self, session: Session) -> Order:
        """Returns it with what led to the session in which it was bought."""
        visited_at = max((event.at for event in session if event.at <= (self.sold_at or 0)), default=session[0].at)
        found = self._replace(landing=landing_of(session), video=video_of(session), visited_at=visited_at)
        if self.is_stated:
            return found
        source, medium, campaign = origin_of(session)
        return found._replace(source=source, medium=medium, campaign=campaign)

    def anonymous(self) -> Order:
        """Returns it as it counts after the erasure of its buyer: of its campaign, only common words are left, of its coupons none."""
        return self._replace(
            source=self.source and (listed(self.source, _SOURCES) or OTHER),
            medium=self.medium and (listed(self.medium, _MEDIA) or OTHER),
            campaign=self.campaign and OTHER,
            breakdown=self.breakdown.anonymous(),
            credit=self.credit and self.credit.anonymous(),
            landing=other_page(self.landing),
            video=self.video and OTHER,
        )

    @property
    def net(self) -> int:
        """Sales less refunds, with corrections, in the base currency; entries without a rate are left out."""
        return sum(entry.base or 0 for entry in self.entries)

    def dimensions(self) -> list[tuple[str, str]]:
        """Returns the values of dimensions under which it counts as a whole."""
        found = [
            (SITE, ""),
            (SOURCE, self.source or UNKNOWN),
            (MEDIUM, self.medium or NO_MEDIUM),
            (COUNTRY, self.breakdown.country or UNKNOWN),
        ]
        if self.campaign:
            found.append((CAMPAIGN, self.campaign))
        if self.credit:
            found.append((AFFILIATE, self.credit.affiliate))
        return [*found, *((COUPON, coupon) for coupon in self.breakdown.coupons)]

    def commissions(self) -> Iterable[tuple[Entry, int]]:
        """Yields each entry with the commission it brings, or takes back, in ten-thousandths of the base currency.

        Their sum is the commission on what remains of the order, rounded once: a full refund takes all of it back.
        """
        total, rate = self.breakdown.total, self.credit.rate if self.credit else 0
        balance = before = 0
        for entry in self.entries:
            balance += entry.base or 0
            after = converted(balance, self.breakdown.commissionable * rate, total * WHOLE) if total else 0
            yield entry, after - before
            before = after


def count_order(counts: Counts, order: Order, subject: str, visitor: str = "", times: int = 1) -> None:
    """Adds an order to counts, or with -1 subtracts it: its sale on its day, each refund and correction on its own.

    Args:
        counts: what is added to.
        order: the order.
        subject: the customer.
        visitor: for whom the session counts in which it was bought; empty if that is unknown.
        times: 1 or -1.
    """
    dimensions = order.dimensions()
    for entry, commission in order.commissions():
        day = counts.calendar.day(entry.at)
        counts.spending_of(subject, day).net += (entry.base or 0) * times
        _count_entry(counts.revenue_of(HOUR, "", counts.calendar.hour(entry.at), order.currency), entry, times)
        for dimension, value in dimensions:
            _count_entry(counts.revenue_of(dimension, value, day, order.currency), entry, times)
        if order.credit:
            counts.revenue_of(AFFILIATE, order.credit.affiliate, day, order.currency).base_commissions += commission * times
    if order.sold_at is None:
        return
    day = counts.calendar.day(order.sold_at)
    pieces = sum(line.quantity for line in order.lines)
    for dimension, value in dimensions:
        sold = counts.revenue_of(dimension, value, day, order.currency)
        sold.orders += times
        sold.quantity += pieces * times
        count_breakdown(sold, order.breakdown, times)
    counts.spending_of(subject, day).orders += times
    counts.revenue_of(HOUR, "", counts.calendar.hour(order.sold_at), order.currency).orders += times
    _count_lines(counts, order, day, times)
    _count_courses(counts, order, day, times)
    counts.add_presence((CUSTOMERS, subject, day), times)
    if visitor and order.visited_at is not None:
        for name in reached(3):
            counts.add_presence((name, visitor, counts.calendar.day(order.visited_at)), times)


def _count_courses(counts: Counts, order: Order, day: int, times: int) -> None:
    """Adds the courses of an order, and what led to them."""
    lines = [Sold(line.courses, line.quantity, line.amount) for line in order.lines if line.courses]
    led_by = [(SOURCE, order.source or UNKNOWN), (CAMPAIGN, order.campaign), (LANDING, order.landing), (VIDEO, order.video)]
    known = [(dimension, value) for dimension, value in led_by if value]
    for course, pieces in pieces_of(lines).items():
        figures = counts.revenue_of(COURSE, course, day, order.currency)
        figures.orders += times
        figures.quantity += pieces * times
        for dimension, value in known:
            counts.content_of(dimension, value, day, course).orders += times
    paid = sum(entry.amount for entry in order.entries if entry.kind == SALE)
    for part in parts_of(lines, [(entry.amount, entry.base) for entry in order.entries], paid):
        entry = order.entries[part.entry]._replace(amount=part.amount, base=part.base)
        booked_on = counts.calendar.day(entry.at)
        _count_entry(counts.revenue_of(COURSE, part.course, booked_on, order.currency), entry, times)
        for dimension, value in known:
            _count_base(counts.content_of(dimension, value, booked_on, part.course), entry, times)


def _count_entry(figures: Revenue, entry: Entry, times: int) -> None:
    figures.entries += times
    figures.unrated += times * (entry.base is None)
    if entry.kind == SALE:
        figures.gross += entry.amount * times
    elif entry.kind == REFUND:
        figures.refunds -= entry.amount * times
    else:
        figures.corrections += entry.amount * times
    _count_base(figures, entry, times)


def _count_base(figures: Revenue | Content, entry: Entry, times: int) -> None:
    base = (entry.base or 0) * times
    if entry.kind == SALE:
        figures.base_gross += base
    elif entry.kind == REFUND:
        figures.base_refunds -= base
    else:
        figures.base_corrections += base


def _count_lines(counts: Counts, order: Order, day: int, times: int) -> None:
    sales = [entry for entry in order.entries if entry.kind == SALE]
    paid = sum(entry.amount for entry in sales)
    rated = paid and all(entry.base is not None for entry in sales)
    base = sum(entry.base or 0 for entry in sales)
    for product, lines in _by_product(order.lines):
        figures = counts.revenue_of(PRODUCT, product, day, order.currency)
        amount = sum(line.amount for line in lines)
        figures.orders += times
        figures.quantity += sum(line.quantity for line in lines) * times
        figures.gross += amount * times
        if rated:
            figures.base_gross += converted(amount, base, paid) * times
        else:
            figures.unrated += times


def converted(amount: int, base: int, paid: int) -> int:
    """Converts an amount at the rate at which `paid` is `base`; halves are rounded away from zero."""
    product = abs(amount * base)
    rounded = (2 * product + abs(paid)) // (2 * abs(paid))
    return rounded if (amount < 0) == ((base < 0) != (paid < 0)) else -rounded


def _by_product(lines: Iterable[Line]) -> Iterable[tuple[str, list[Line]]]:
    found: dict[str, list[Line]] = {}
    for line in lines:
        found.setdefault(line.product, []).append(line)
    return found.items()
