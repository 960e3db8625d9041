"""Who may be whom, who wins, and how far a person has come: decisions without a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, TypeVar

LARGEST_PERSON: Final = 20
"""Users that may be one person."""

_WORDPRESS_IDS: Final = 2**63
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True)
class Order:
    """What of an order bears on its buyer."""

    net: Decimal
    """Paid less refunded in the base currency."""
    paid: bool
    """It was paid, whatever was paid back later."""
    membership: bool


@dataclass(frozen=True, slots=True)
class Campaign:
    """A campaign, and when it was seen."""

    at: datetime
    utm: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class LifecycleStage:
    """How far a person has come with the shop."""

    user_type: str
    lifetime_value: Decimal
    utm_attribution: Mapping[str, Any] | None


def standing(*, lead: bool, orders: Iterable[Order], campaigns: Iterable[Campaign]) -> LifecycleStage:
    """What follows for a person from all that is known of it: the same in whatever order it became known.

    Args:
        lead: the person has left its e-mail address.
        orders: those that count in figures.
        campaigns: seen in any of its visits, or named with its registration.
    """
    known = list(orders)
    first = min(campaigns, key=lambda campaign: (campaign.at, sorted(campaign.utm.items())), default=None)
    value = sum((order.net for order in known), Decimal(0))
    return LifecycleStage(_user_type(known, lead=lead), value, first.utm if first else None)


def _user_type(orders: Sequence[Order], *, lead: bool) -> str:
    """A membership that was paid makes a subscriber, any paid order a customer, and an address a lead. Refunds take nothing of it back."""
    if any(order.paid and order.membership for order in orders):
        return "subscriber"
    if any(order.paid for order in orders):
        return "customer"
    return "lead" if lead else "prospect"


def wordpress_id(subject: str) -> int | None:
    """The WordPress user that a subject names; None when it names none that can be."""
    kind, _, digits = subject.partition(":")
    if kind != "wordpress" or not 0 < int(digits) < _WORDPRESS_IDS:
        return None
    return int(digits)


def merge_refusal(one: Mapping[str, int | None], other: Mapping[str, int | None]) -> str:
    """Why two persons may not become one; empty when they may.

    Args:
        one: users of a person, each with its WordPress id.
        other: those of the other.
    """
    if len(one) + len(other) > LARGEST_PERSON:
        return f"a person may not be more than {LARGEST_PERSON} users"
    if len({number for number in (*one.values(), *other.values()) if number is not None}) > 1:
        return "the users have different WordPress ids"
    return ""


def instant(at: datetime) -> int:
    """Microseconds since 1970, in which fields keep the time of their writing."""
    return (at - _EPOCH) // _MICROSECOND


def wins(times: Mapping[str, int], field: str, at: datetime) -> bool:
    """True when a value written at a time replaces what a field has: of two writers, the later wins."""
    return instant(at) >= times.get(field, instant(at))


def written(
    values: Mapping[str, _Value], times: Mapping[str, int], changes: Mapping[str, _Value | None], at: datetime
) -> tuple[dict[str, _Value], dict[str, int]]:
    """Preferences and the times of all fields after a change of some at a time. None takes one away."""
    after, after_times = dict(values), dict(times)
    for name, value in changes.items():
        field = f"preferences.{name}"
        if not wins(times, field, at):
            continue
        after_times[field] = instant(at)
        if value is None:
            after.pop(name, None)
        else:
            after[name] = value
    return after, after_times


def combined(users: Sequence[tuple[Mapping[str, _Value], Mapping[str, int]]]) -> dict[str, _Value]:
    """The preferences of a person: of each, what was written last with any of its users. The first user comes first."""
    last: dict[str, tuple[int, Mapping[str, _Value]]] = {}
    for values, times in users:
        for field, time in times.items():
            name = field.removeprefix("preferences.")
            if name != field and (name not in last or time > last[name][0]):
                last[name] = (time, values)
    return {name: values[name] for name, (_, values) in sorted(last.items()) if name in values}
