"""The funnel of visitors: its steps, and which events show them. Pure.

Steps are audiences, each within the one before: whoever reaches a step is in all earlier ones on the same day. So the people of each step
are exact for any period, and never more than those of the step before.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from typing import Final, NamedTuple

from services.analytics.counts import IN_CHECKOUT, PURCHASED, VIEWED, VISITORS

PRODUCT_VIEW: Final = "product"
"""The kind of an event by which a course or a product was viewed, other than a page view."""
CHECKOUT: Final = "checkout"
"""The kind of an event that shows a filled cart, or a checkout that was begun."""
STEPS: Final = {
    VISITORS: "Visitors, as the figure `visitors` counts them.",
    VIEWED: "Those who viewed a course or a product: a page view about a course, of a page `/product/...`, or an event such as"
    " `view_item`; or who went further.",
    IN_CHECKOUT: "Those with an event such as `add_to_cart` or `begin_checkout`; or who bought.",
    PURCHASED: "Those who bought in one of these sessions: an order with the id of the session, paid then or later.",
}
"""The steps in order, by audience, with their definitions."""
_NEXT: Final = (VIEWED, IN_CHECKOUT, PURCHASED)
_PRODUCT_PAGE: Final = re.compile(r"/products?/[^/]", re.IGNORECASE)


class Step(NamedTuple):
    """How many people reached a step."""

    name: str
    number: int
    """1 for the first step."""
    people: int
    drop_off: int
    """People who reached the step before and not this one."""
    share: Fraction | None
    """Of the people of the step before; None of nobody."""
    share_of_visitors: Fraction | None


def reached(steps: int) -> Sequence[str]:
    """Returns the audiences of the first so many steps after the visit itself."""
    return _NEXT[:steps]


def steps_of(members: Mapping[str, int]) -> Sequence[Step]:
    """Returns the steps, from the numbers of members of their audiences."""
    counts = [members.get(name, 0) for name in STEPS]
    before = [counts[0], *counts[:-1]]
    return [
        Step(name, number, count, earlier - count, _share(count, earlier), _share(count, counts[0]))
        for number, (name, count, earlier) in enumerate(zip(STEPS, counts, before, strict=True), start=1)
    ]


@lru_cache(8192)
def is_product_page(page: str) -> bool:
    """True for the path of a product's page."""
    return _PRODUCT_PAGE.search(page) is not None


def _share(part: int, whole: int) -> Fraction | None:
    return Fraction(part, whole) if whole else None
