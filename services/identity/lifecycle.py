"""How far a person has come with the shop: derived from orders, campaigns and whether there is an address, without a database."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """The part of an order that decides the lifecycle stage of its buyer."""

    net: Decimal
    """Paid less refunded in the base currency."""
    paid: bool
    """It was paid, whatever was refunded later."""
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
    paid_orders: int
    """Orders that were paid, whatever was refunded later."""


def lifecycle_stage(*, is_lead: bool, orders: Iterable[Order], campaigns: Iterable[Campaign]) -> LifecycleStage:
    """Returns the stage of a person. It does not depend on the order in which the facts arrived.

    Args:
        is_lead: the person has left its e-mail address.
        orders: those that count in figures.
        campaigns: seen in any session of the person, or stated by a registration.
    """
    counted = list(orders)
    first = min(campaigns, key=lambda campaign: (campaign.at, sorted(campaign.utm.items())), default=None)
    value = sum((order.net for order in counted), Decimal(0))
    paid = sum(order.paid for order in counted)
    return LifecycleStage(_user_type(counted, is_lead=is_lead), value, first.utm if first else None, paid)


def _user_type(orders: Sequence[Order], *, is_lead: bool) -> str:
    """Returns the type: a paid membership makes a subscriber, any paid order a customer, and an address a lead. Refunds do not count."""
    if any(order.paid and order.membership for order in orders):
        return "subscriber"
    if any(order.paid for order in orders):
        return "customer"
    return "lead" if is_lead else "prospect"
