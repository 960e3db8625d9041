"""What of an order is a course's, how far a visitor got, and the hours of a day."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from zoneinfo import ZoneInfo

import pytest

from services.analytics.counts import IN_CHECKOUT, PURCHASED, VIEWED, VISITORS
from services.analytics.course_sales import Sold, parts_of, pieces_of
from services.analytics.days import Calendar, Period, period_of
from services.analytics.funnel import CHECKOUT, PRODUCT_VIEW, is_product_page, steps_of
from services.analytics.messages import KINDS
from services.analytics.series import grain_of
from services.journeys.rules import INTENT, STAGE_OF


def amounts(lines: Sequence[Sold], entries: Sequence[tuple[int, int | None]], paid: int) -> dict[tuple[str, int], tuple[int, int | None]]:
    return {(part.course, part.entry): (part.amount, part.base) for part in parts_of(lines, entries, paid)}


def test_a_line_counts_for_its_courses_in_equal_parts() -> None:
    lines = [Sold(["a", "b", "c"], 2, 100), Sold(["a"], 1, 50), Sold([], 1, 7)]
    assert amounts(lines, [(157, 314)], 157) == {("a", 0): (83, 167), ("b", 0): (34, 66), ("c", 0): (33, 67)}
    assert pieces_of(lines) == {"a": 3, "b": 2, "c": 2}


def test_a_refund_counts_for_a_course_as_its_lines_count_in_what_was_paid() -> None:
    lines = [Sold(["a"], 1, 100)]
    assert amounts(lines, [(200, 20), (-50, -5)], 200) == {("a", 0): (100, 10), ("a", 1): (-25, -2)}
    discounted = [Sold(["a"], 1, 100), Sold([], 1, -20)]
    assert amounts(discounted, [(80, None), (-80, None)], 80) == {("a", 0): (100, None), ("a", 1): (-100, None)}


def test_an_order_that_cost_nothing_has_no_amounts() -> None:
    assert amounts([Sold(["a"], 1, 0)], [], 0) == {}


@pytest.mark.parametrize("seed", range(20))
def test_parts_add_up_over_courses_and_over_entries(seed: int) -> None:
    rng = Random(seed)  # noqa: S311 (nothing secret)
    names = [f"c{number}" for number in range(7)]
    lines = [Sold(rng.sample(names, rng.randint(1, 5)), 1, rng.randrange(1, 1_000_000)) for _ in range(rng.randint(1, 6))]
    paid = sum(line.amount for line in lines)
    entries: list[tuple[int, int]] = [(paid, rng.randrange(paid))]
    for _ in range(rng.randint(0, 4)):
        left, base_left = (sum(each[side] for each in entries) for side in (0, 1))
        entries.append((-rng.randrange(left), -rng.randrange(base_left)))
    parts = [*parts_of(lines, entries, paid)]
    for position, entry in enumerate(entries):
        of_entry = [part for part in parts if part.entry == position]
        assert (sum(part.amount for part in of_entry), sum(part.base or 0 for part in of_entry)) == entry
    left, base_left = (sum(each[side] for each in entries) for side in (0, 1))
    for course in {part.course for part in parts}:
        of_course = [part for part in parts if part.course == course]
        share = of_course[0].amount
        assert abs(sum(part.base or 0 for part in of_course) - share * base_left / paid) <= 1
        assert abs(sum(part.amount for part in of_course) - share * left / paid) <= 1


def test_steps_have_what_is_lost_before_them() -> None:
    first, viewed, checkout, purchased = steps_of({VISITORS: 8, VIEWED: 4, IN_CHECKOUT: 1})
    assert (first.people, first.drop_off, first.share) == (8, 0, 1)
    assert (viewed.drop_off, viewed.share, viewed.share_of_visitors) == (4, 0.5, 0.5)
    assert (checkout.name, checkout.drop_off, checkout.share, checkout.share_of_visitors) == (IN_CHECKOUT, 3, 0.25, 0.125)
    assert (purchased.name, purchased.people, purchased.number, purchased.share) == (PURCHASED, 0, 4, 0)
    assert [each.share for each in steps_of({})] == [None] * 4


def test_a_checkout_is_what_journeys_takes_for_an_intent_to_buy() -> None:
    assert {*KINDS[CHECKOUT].split()} == {action for action, stage in STAGE_OF.items() if stage == INTENT}
    assert {*KINDS[PRODUCT_VIEW].split()} < STAGE_OF.keys()


def test_the_page_of_a_product_is_known_by_its_path() -> None:
    assert [page for page in ("/product/a", "/en/Products/a/b", "/product", "/products/", "/production/a") if is_product_page(page)] == [
        "/product/a",
        "/en/Products/a/b",
    ]


@pytest.mark.parametrize(
    ("zone", "day", "first", "last", "count"),
    [
        ("Europe/Berlin", "2026-03-28", "2026-03-28T00:00:00+01:00", "2026-03-28T23:00:00+01:00", 24),
        ("Europe/Berlin", "2026-03-29", "2026-03-29T00:00:00+01:00", "2026-03-29T23:00:00+02:00", 23),
        ("Europe/Berlin", "2026-10-25", "2026-10-25T00:00:00+02:00", "2026-10-25T23:00:00+01:00", 25),
        ("Asia/Kathmandu", "2026-10-25", "2026-10-25T00:00:00+05:45", "2026-10-25T23:00:00+05:45", 24),
        ("America/Santiago", "2026-09-06", "2026-09-06T01:00:00-03:00", "2026-09-06T23:00:00-03:00", 23),
        ("America/Santiago", "2026-04-04", "2026-04-04T00:00:00-03:00", "2026-04-04T23:00:00-04:00", 25),
    ],
)
def test_a_day_has_its_hours_also_when_clocks_are_set(zone: str, day: str, first: str, last: str, count: int) -> None:
    hours = [each.isoformat() for each in Calendar(ZoneInfo(zone)).hours(period_of(day, day, 0)).values()]
    assert (hours[0], hours[-1], len(hours), len({*hours})) == (first, last, count, count)


@pytest.mark.parametrize(("days", "grain"), [(1, "hour"), (2, "hour"), (3, "day"), (400, "day"), (401, "month"), (3660, "month")])
def test_the_grain_fits_the_length_of_a_period(days: int, grain: str) -> None:
    assert grain_of(Period(1000, 1000 + days - 1)) == grain


def test_a_period_has_its_months_cut_at_its_ends() -> None:
    period = period_of("2025-12-30", "2026-02-02", 0)
    months = period.months()
    assert [len(month.days()) for month in months] == [2, 31, 2]
    assert [day for month in months for day in month.days()] == [*period.days()]
