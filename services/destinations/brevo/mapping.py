"""Maps what the mesh knows to the resources of Brevo's API, version 3."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import ConversionRecorded
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from kit.times import moment
from services.destinations.brevo.options import BrevoOptions
from services.destinations.email_marketing import (
    CART,
    CHECKOUT,
    ENROLMENT,
    REGISTRATION,
    VIEW,
    changed_at,
    courses,
    enrolled_course,
    product_lines,
    product_of,
    profile_fields,
    remaining_total,
    unit_price,
)

PLACED: Final = "placed"
EVENTS: Final = {
    PLACED: "order_placed",
    REGISTRATION: "registered",
    ENROLMENT: "enrolled",
    VIEW: "product_viewed",
    CART: "added_to_cart",
    CHECKOUT: "checkout_started",
}
"""The names of events, by the deliveries that are one."""

_LINES_OF_EVENT: Final = 100
"""Most lines of an order in an event, which is limited in size."""
_STATUSES: Final = {
    change_pb2.PAYMENT_STATUS_COMPLETED: "completed",
    change_pb2.PAYMENT_STATUS_PENDING: "pending",
    change_pb2.PAYMENT_STATUS_FAILED: "cancelled",
    change_pb2.PAYMENT_STATUS_REFUNDED: "refunded",
    change_pb2.PAYMENT_STATUS_PARTIALLY_REFUNDED: "partially_refunded",
    change_pb2.PAYMENT_STATUS_CHARGED_BACK: "refunded",
}

Happening: TypeAlias = PurchaseChanged | ConversionRecorded | EventStored
"""What an event is made of."""


def attributes(profile: User, stage: str, options: BrevoOptions) -> dict[str, str | float]:
    """Returns the attributes of a contact; what is empty stays as it is.

    Args:
        profile: the person as identity knows it.
        stage: its lifecycle stage.
        options: which attributes there are.
    """
    values: dict[str, str | float] = {**profile_fields(profile), "user_type": stage, "lifetime_value": profile.lifetime_value}
    return {name: values[field] for name, field in options.attributes.items() if values[field] != ""}


def new_contact(email: str, values: Mapping[str, str | float], list_ids: list[int]) -> dict[str, Any]:
    """Returns a contact that is new at Brevo; if it was added meanwhile it is updated, and stays blocked if it is."""
    return {"email": email, "attributes": dict(values), "listIds": list_ids, "updateEnabled": True}


def changes(values: Mapping[str, str | float], joins: list[int], leaves: list[int], *, unblocks: bool) -> dict[str, Any]:
    """Returns what changes of a known contact: its attributes, the lists that it joins and leaves, and whether it is blocked no more."""
    found: dict[str, Any] = {"attributes": dict(values), "listIds": joins, "unlinkListIds": leaves}
    found = {name: value for name, value in found.items() if value}
    return found | {"emailBlacklisted": False} if unblocks else found


def event(name: str, email: str, happened: Happening) -> dict[str, Any]:
    """Returns an event of a contact, given the name of its delivery, one of `EVENTS`."""
    at, properties = _described(happened)
    known = {key: value for key, value in properties.items() if value not in ("", [])}
    return {"event_name": EVENTS[name], "event_date": _text(at), "identifiers": {"email_id": email}, "event_properties": known}


def order(purchase: PurchaseChanged, email: str) -> dict[str, Any]:
    """Returns the state of an order: its amount is what remains after refunds."""
    found: dict[str, Any] = {
        "id": purchase.order_id,
        "createdAt": _text(moment(purchase.timestamp)),
        "updatedAt": _text(changed_at(purchase)),
        "status": _STATUSES.get(purchase.payment_status, "pending"),
        "amount": float(remaining_total(purchase)),
        "identifiers": {"email_id": email},
        "products": [
            {"productId": line.product_id, "quantity": max(line.quantity, 1), "price": unit_price(line)} for line in product_lines(purchase)
        ],
    }
    return found | {"coupons": list(purchase.coupon_codes)} if purchase.coupon_codes else found


def is_sent(purchase: PurchaseChanged) -> bool:
    """Whether an order can be one at Brevo: it has products, and is in the shop's currency, since amounts there have none."""
    return bool(product_lines(purchase)) and purchase.currency == (purchase.base_currency or purchase.currency)


def _described(happened: Happening) -> tuple[datetime, Mapping[str, Any]]:
    match happened:
        case EventStored(event=stored, enrichment=enrichment):
            return moment(stored.timestamp), {"product": product_of(happened), "course": enrichment.course, "page": stored.page_url}
        case ConversionRecorded():
            return moment(happened.timestamp), {"course": enrolled_course(happened)}
        case PurchaseChanged():
            lines = [
                {"id": line.product_id, "name": line.product_name, "quantity": max(line.quantity, 1), "price": unit_price(line)}
                for line in product_lines(happened)[:_LINES_OF_EVENT]
            ]
            own = {"order_id": happened.order_id, "amount": float(Decimal(happened.amount or 0)), "currency": happened.currency}
            return moment(happened.sold_at), {**own, "courses": list(courses(happened)), "items": lines}


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
