"""Maps what the mesh knows to the resources of Klaviyo's API: documents of JSON:API."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import ConversionRecorded
from pmp.purchases.v1.change_pb2 import PurchaseChanged

from kit.times import moment
from services.destinations.email_marketing import (
    CART,
    CHECKOUT,
    ENROLMENT,
    REGISTRATION,
    VIEW,
    courses,
    enrolled_course,
    language,
    product_lines,
    product_of,
)
from services.destinations.refunds import Refund

PLACED: Final = "placed_order"
REFUNDED: Final = "refunded_order"
CANCELLED: Final = "cancelled_order"

_METRICS: Final = {
    PLACED: "Placed Order",
    REFUNDED: "Refunded Order",
    CANCELLED: "Cancelled Order",
    REGISTRATION: "Registered",
    ENROLMENT: "Enrolled in Course",
    VIEW: "Viewed Product",
    CART: "Added to Cart",
    CHECKOUT: "Started Checkout",
}
"""The names of metrics, by the deliveries that are events."""

_LINE_METRIC: Final = "Ordered Product"
_MOST_LINES: Final = 999
"""The events of one request are at most 1000, of which one is the order itself."""


class Happening(NamedTuple):
    """An event of a profile."""

    metric: str
    unique_id: str
    """Klaviyo records the first event of a profile and a metric with it."""
    time: datetime
    properties: Mapping[str, Any]
    value: Decimal | None = None
    currency: str = ""


def profile(person: User, stage: str, has_course: Mapping[str, bool]) -> dict[str, Any]:
    """Returns a profile to create or update; what is empty stays as it is.

    Args:
        person: as identity knows it.
        stage: its lifecycle stage.
        has_course: ids of courses, and whether the person has each.
    """
    utm = person.utm_attribution
    properties = {
        "stage": stage,
        "lifetime_value": person.lifetime_value if person.currency else None,
        "currency": person.currency,
        "utm_source": utm.source,
        "utm_medium": utm.medium,
        "utm_campaign": utm.campaign,
    }
    attributes = {"first_name": person.first_name, "last_name": person.last_name, "locale": language(person)}
    known = {name: value for name, value in properties.items() if value not in {"", None}}
    known |= {f"course:{course}": has for course, has in has_course.items()}
    named = {name: value for name, value in attributes.items() if value}
    return _document("profile", {"email": person.email, **named, "properties": known})


def subscription(email: str, list_id: str) -> dict[str, Any]:
    """Returns the job that subscribes a profile to marketing e-mails, and to the list if there is one."""
    consent = {"email": {"marketing": {"consent": "SUBSCRIBED"}}}
    job = _document("profile-subscription-bulk-create-job", {"profiles": {"data": [_profile_of(email, subscriptions=consent)]}})
    if list_id:
        job["data"]["relationships"] = {"list": {"data": {"type": "list", "id": list_id}}}
    return job


def unsubscription(email: str) -> dict[str, Any]:
    """Returns the job that unsubscribes a profile from all marketing e-mails."""
    consent = {"email": {"marketing": {"consent": "UNSUBSCRIBED"}}}
    return _document("profile-subscription-bulk-delete-job", {"profiles": {"data": [_profile_of(email, subscriptions=consent)]}})


def readdressed(profile_id: str, email: str) -> dict[str, Any]:
    """Returns a profile with another address."""
    return {"data": {"type": "profile", "id": profile_id, "attributes": {"email": email}}}


def deletion(email: str) -> dict[str, Any]:
    """Returns the job that deletes all profiles with an address for good."""
    return _document("data-privacy-deletion-job", {"profile": {"data": _profile_of(email)}})


def event(email: str, happened: Happening, *, is_late: bool) -> dict[str, Any]:
    """Returns an event; with `is_late`, one that starts no flow."""
    attributes = {**_attributes(happened), "backfill": is_late, "profile": {"data": _profile_of(email)}}
    return _document("event", attributes)


def events(email: str, happened: Sequence[Happening], *, is_late: bool) -> dict[str, Any]:
    """Returns the job that records several events of a profile; with `is_late`, they start no flow."""
    data = [{"type": "event", "attributes": _attributes(each)} for each in happened]
    attributes = {"backfill": is_late, "profile": {"data": _profile_of(email)}, "events": {"data": data}}
    return _document("event-bulk-create-job", {"events-bulk-create": {"data": [{"type": "event-bulk-create", "attributes": attributes}]}})


def placed(purchase: PurchaseChanged) -> Sequence[Happening]:
    """Returns the events of a sale: the order, and each of its lines."""
    sold_at, number = moment(purchase.sold_at), purchase.purchase_id
    lines = [
        {
            "ProductID": line.product_id,
            "ProductName": line.product_name,
            "ProductType": line.product_type,
            "Quantity": max(line.quantity, 1),
            "RowTotal": float(line.amount or 0),
        }
        for line in product_lines(purchase)[:_MOST_LINES]
    ]
    order = {**_order(purchase), "Items": lines, "DiscountCodes": list(purchase.coupon_codes), "Courses": list(courses(purchase))}
    return [
        Happening(_METRICS[PLACED], number, sold_at, order, Decimal(purchase.amount or 0), purchase.currency),
        *(
            Happening(
                _LINE_METRIC,
                f"{number}:{index}",
                sold_at,
                {"OrderId": purchase.order_id, **line},
                Decimal(str(line["RowTotal"])),
                purchase.currency,
            )
            for index, line in enumerate(lines)
        ),
    ]


def name_of_refund(refund: Refund) -> str:
    """Returns the name of the delivery of money that went back."""
    return CANCELLED if refund.is_cancellation else REFUNDED


def refunded(purchase: PurchaseChanged, refund: Refund) -> Happening:
    """Returns the event of money that went back."""
    metric, number, at = _METRICS[name_of_refund(refund)], f"{purchase.purchase_id}:{refund.number}", moment(refund.entry.timestamp)
    return Happening(metric, number, at, _order(purchase), -Decimal(refund.entry.amount), purchase.currency)


def conversion(name: str, message: ConversionRecorded) -> Happening:
    """Returns the event of a registration or an enrolment."""
    course = enrolled_course(message)
    return Happening(_METRICS[name], message.id, moment(message.timestamp), {"CourseID": course} if course else {})


def shopping(name: str, stored: EventStored, key: str) -> Happening:
    """Returns the event of a step of shopping, given its idempotency key."""
    properties = {"ProductID": product_of(stored), "CourseID": stored.enrichment.course, "URL": stored.event.page_url}
    return Happening(_METRICS[name], key, moment(stored.event.timestamp), {name: value for name, value in properties.items() if value})


def _order(purchase: PurchaseChanged) -> dict[str, Any]:
    return {"OrderId": purchase.order_id}


def _attributes(happened: Happening) -> dict[str, Any]:
    found: dict[str, Any] = {
        "metric": {"data": {"type": "metric", "attributes": {"name": happened.metric}}},
        "unique_id": happened.unique_id,
        "time": happened.time.isoformat(),
        "properties": dict(happened.properties),
    }
    if happened.value is not None:
        found |= {"value": float(happened.value), "value_currency": happened.currency}
    return found


def _profile_of(email: str, **attributes: Any) -> dict[str, Any]:
    return {"type": "profile", "attributes": {"email": email, **attributes}}


def _document(resource: str, attributes: Mapping[str, Any]) -> dict[str, Any]:
    return {"data": {"type": resource, "attributes": dict(attributes)}}
