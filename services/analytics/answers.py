"""Maps periods and figures to what rpcs answer, and requests to periods."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Final, Protocol

from pmp.analytics.v1 import analytics_pb2 as pb

from kit.errors import InvalidRequest, Violation
from services.analytics.days import Calendar, Period, iso, period_of
from services.analytics.figures import MONEY, Definition, Number, Summary
from services.analytics.orders import STAFF, TESTS

_INCLUDED: Final = (STAFF, TESTS)
_COMPARISONS: Final = ("previous", "year", "none")


class OfPeriod(Protocol):
    """What requests for a period have in common, beside `from`, which is a keyword of Python."""

    to: str


def period_asked(request: OfPeriod, calendar: Calendar) -> Period:
    """Returns the period of a request.

    Raises:
        InvalidRequest: it has none.
    """
    today = datetime.now(UTC).astimezone(calendar.zone).date().toordinal()
    return period_of(getattr(request, "from"), request.to, today)


def compared_with(comparison: str, period: Period) -> Period | None:
    """Returns the period of comparison; None for none.

    Raises:
        InvalidRequest: there is no such comparison.
    """
    if comparison in ("", "previous"):
        return period.previous()
    if comparison not in _COMPARISONS:
        raise InvalidRequest([Violation("compare", f"compare is one of {', '.join(_COMPARISONS)}")])
    return period.year_before() if comparison == "year" else None


def included(text: str) -> frozenset[str]:
    """Returns which excluded orders a request includes.

    Raises:
        InvalidRequest: it asks for something else.
    """
    asked = frozenset(each.strip() for each in text.split(",")) - {""}
    if "bots" in asked:
        raise InvalidRequest([Violation("include", "bots can not be included: of their events nothing is kept")])
    if asked - {*_INCLUDED}:
        raise InvalidRequest([Violation("include", f"include is one or several of {', '.join(_INCLUDED)}, separated by commas")])
    return asked


def shown(period: Period) -> pb.Period:
    """Returns a period as it is answered."""
    return pb.Period(**{"from": iso(period.first), "to": iso(period.last)})


def figures(
    definitions: Iterable[Definition], now: Summary, before: Summary | None, currency: str, *, explain: bool
) -> Sequence[pb.Figure]:
    """Returns figures of a period beside those of another one.

    Args:
        definitions: the figures.
        now: what they are computed from.
        before: the same of the other period; None without one.
        currency: the shop's currency.
        explain: adds definitions and numbers of facts.
    """
    return [
        pb.Figure(
            key=each.key,
            value=number(each.value(now)),
            compared=None if before is None else number(each.value(before)),
            unit=unit_of(each.unit, currency),
            definition=each.text if explain else "",
            facts=each.facts(now) if explain else 0,
        )
        for each in definitions
    ]


def unit_of(unit: str, currency: str) -> str:
    """Returns a unit as it is answered: the shop's currency for amounts in it."""
    return currency if unit == MONEY else unit


def number(value: Number) -> float | None:
    """Converts a number to what JSON has, a whole one to an integer."""
    if value is None:
        return None
    return int(value) if value == int(value) else float(value)
