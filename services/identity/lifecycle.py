"""How far a person has come with the shop: derived from orders, campaigns and what else was seen of it, without a database."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any


@dataclass(frozen=True, slots=True)
class Order:
    """The part of an order that decides the lifecycle stage of its buyer."""

    net: Decimal
    """Paid less refunded in the base currency; 0 when there is no rate."""
    currency: str
    """ISO 4217; empty for an order that was stored before it was kept."""
    net_in_currency: Decimal
    """Paid less refunded in that currency."""
    paid: bool
    """It was paid, whatever was refunded later."""
    membership: bool
    sold_at: datetime | None
    """When it was first paid; None if it never was."""


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
    """In the base currency: orders without a rate are not in it."""
    lifetime_values: Mapping[str, Decimal]
    """By the currencies of the orders: all of them are in it, each in one."""
    utm_attribution: Mapping[str, Any] | None
    paid_orders: int
    """Orders that were paid, whatever was refunded later."""
    last_active_at: datetime
    """When the person last visited the shop, logged in, registered or bought; when it became known if it did none of this."""


def lifecycle_stage(
    *, is_lead: bool, orders: Iterable[Order], campaigns: Iterable[Campaign], active_at: Iterable[datetime], known_at: datetime
) -> LifecycleStage:
    """Returns the stage of a person. It does not depend on the order in which the facts arrived.

    Args:
        is_lead: the person has left its e-mail address.
        orders: those that count in figures.
        campaigns: seen in any session of the person, or stated by a registration.
        active_at: when the person visited, logged in or registered.
        known_at: when the person became known to the mesh.
    """
    counted = list(orders)
    values: dict[str, Decimal] = defaultdict(Decimal)
    for order in counted:
        if order.paid and order.currency:
            values[order.currency] += order.net_in_currency
    first = min(campaigns, key=lambda campaign: (campaign.at, sorted(campaign.utm.items())), default=None)
    value = sum((order.net for order in counted), Decimal(0))
    paid = sum(order.paid for order in counted)
    last = max([*active_at, *(order.sold_at for order in counted if order.sold_at)], default=known_at)
    return LifecycleStage(_user_type(counted, is_lead=is_lead), value, values, first.utm if first else None, paid, last)


def _user_type(orders: Sequence[Order], *, is_lead: bool) -> str:
    """Returns the type: a paid membership makes a subscriber, any paid order a customer, and an address a lead. Refunds do not count."""
    if any(order.paid and order.membership for order in orders):
        return "subscriber"
    if any(order.paid for order in orders):
        return "customer"
    return "lead" if is_lead else "prospect"
