"""Maps what the mesh knows to the resources of Mailchimp's Marketing API 3.0."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import ConversionRecorded
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged, PurchasedLine

from kit.times import moment
from services.destinations.email_marketing import (
    ENROLMENT,
    REGISTRATION,
    STAGES,
    UNKNOWN_TIME,
    VIEW,
    changed_at,
    enrolled_course,
    language,
    product_lines,
    product_of,
    profile_fields,
    remaining_total,
    unit_price,
)
from services.destinations.kind import Outcome, Result
from services.destinations.mailchimp.options import MailchimpOptions

ABANDONED_CART: Final = "abandoned_cart"
EVENTS: Final = {REGISTRATION: "registered", ENROLMENT: "enrolled", VIEW: "viewed_product", ABANDONED_CART: "abandoned_cart"}
"""The names of custom events, by the deliveries that are one."""

_PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,50}")
_TITLE: Final = re.compile(r"[A-Za-z ]{1,60}")
_BUSY: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}
_GONE: Final = {
    "Forgotten Email Not Subscribed": "the person was deleted there for good",
    "Member In Compliance State": "the person has to subscribe by itself",
}
_FINANCIAL_STATUSES: Final = {
    change_pb2.PAYMENT_STATUS_COMPLETED: "paid",
    change_pb2.PAYMENT_STATUS_PENDING: "pending",
    change_pb2.PAYMENT_STATUS_FAILED: "cancelled",
    change_pb2.PAYMENT_STATUS_REFUNDED: "refunded",
    change_pb2.PAYMENT_STATUS_PARTIALLY_REFUNDED: "partially_refunded",
    change_pb2.PAYMENT_STATUS_CHARGED_BACK: "refunded",
}


def member_id(email: str) -> str:
    """Returns the id of the member, and of the customer, with an address: the MD5 of its lower case, as Mailchimp prescribes."""
    return hashlib.md5(email.lower().encode(), usedforsecurity=False).hexdigest()


def member(profile: User, options: MailchimpOptions) -> dict[str, Any]:
    """Returns a member. Only a new one gets a status, so that an update subscribes nobody again; what is empty stays as it is."""
    values = profile_fields(profile)
    found: dict[str, Any] = {
        "email_address": profile.email,
        "status_if_new": status_of_new(options),
        "merge_fields": {tag: values[field] for tag, field in options.merge_fields.items() if values[field]},
    }
    return found | {"language": code[:2]} if (code := language(profile)) else found


def status_of_new(options: MailchimpOptions) -> str:
    """Returns the status of a new member who consents to marketing e-mails."""
    return "pending" if options.double_opt_in else "subscribed"


def status_after(current: str, options: MailchimpOptions, *, is_choice: bool) -> str:
    """Returns the status that a member who consents gets; empty if it stays as it is.

    Who once unsubscribed, or was archived, is asked to confirm, and only on the person's own new choice.

    Args:
        current: the member's status at Mailchimp.
        options: of the destination.
        is_choice: it is the choice itself that is delivered.
    """
    if current == "transactional":
        return status_of_new(options)
    return "pending" if is_choice and current in {"unsubscribed", "archived"} else ""


def last_changed(member: Mapping[str, Any]) -> datetime:
    """Returns when a member last changed: Mailchimp does not say when it unsubscribed, which can't have been later."""
    try:
        at = datetime.fromisoformat(str(member.get("last_changed", "")))
    except ValueError:
        return UNKNOWN_TIME
    return at if at.tzinfo else at.replace(tzinfo=UTC)


def tags(stage: str, courses: Mapping[str, bool], *, is_late: bool) -> dict[str, Any]:
    """Returns the tags of a member: its stage, of which it has one only, and courses.

    Args:
        stage: one of `STAGES`.
        courses: ids of courses, and whether the person has each.
        is_late: no automation may start.
    """
    wanted = {f"stage:{each}": each == stage for each in STAGES} | {f"course:{course}"[:100]: has for course, has in courses.items()}
    statuses = [{"name": name, "status": "active" if has else "inactive"} for name, has in wanted.items()]
    return {"tags": statuses, "is_syncing": is_late}


def custom_event(name: str, message: EventStored | ConversionRecorded, *, is_late: bool) -> dict[str, Any]:
    """Returns a custom event.

    Args:
        name: the name of the delivery, of `EVENTS`.
        message: what happened.
        is_late: no automation may start.
    """
    if isinstance(message, EventStored):
        at, properties = message.event.timestamp, _properties(message)
    else:
        at, properties = message.timestamp, {"course": enrolled_course(message)}
    known = {key: value for key, value in properties.items() if value}
    return {"name": EVENTS[name], "properties": known, "occurred_at": moment(at).isoformat(timespec="seconds"), "is_syncing": is_late}


def _properties(stored: EventStored) -> Mapping[str, str]:
    return {"product": product_of(stored), "course": stored.enrichment.course, "page": stored.event.page_url}


def order_id(purchase: PurchaseChanged) -> str:
    """Returns the id of an order at Mailchimp: the shop's number if it can stand in a path."""
    return purchase.order_id if _PLAIN_ID.fullmatch(purchase.order_id) else purchase.purchase_id


def in_path(text: str) -> str:
    """Returns a text as one segment of a path."""
    return quote(text, safe="")


def product(line: PurchasedLine) -> dict[str, Any]:
    """Returns the product of a line, with the one variant that Mailchimp requires."""
    title = line.product_name or line.product_id
    variant = {"id": line.product_id, "title": title, "price": unit_price(line)}
    return {"id": line.product_id, "title": title, "type": line.product_type or "other", "variants": [variant]}


def order(purchase: PurchaseChanged, profile: User) -> dict[str, Any]:
    """Returns an order that is new at Mailchimp. Its customer's subscription is that of the member, which exists already."""
    customer = {
        "id": member_id(profile.email),
        "email_address": profile.email,
        "opt_in_status": False,
        "first_name": profile.first_name,
        "last_name": profile.last_name,
    }
    return {
        "id": order_id(purchase),
        "customer": customer,
        "processed_at_foreign": moment(purchase.timestamp).isoformat(timespec="seconds"),
        "lines": [_line(number, line) for number, line in enumerate(product_lines(purchase), 1)],
        **order_changes(purchase),
    }


def order_changes(purchase: PurchaseChanged) -> dict[str, Any]:
    """Returns what can change of an order: its total is what remains after refunds."""
    status = _FINANCIAL_STATUSES.get(purchase.payment_status, "pending")
    at = changed_at(purchase).isoformat(timespec="seconds")
    changes: dict[str, Any] = {
        "financial_status": status,
        "currency_code": purchase.currency,
        "order_total": float(remaining_total(purchase)),
        "updated_at_foreign": at,
    }
    totals = {"discount_total": purchase.discount_total, "tax_total": purchase.tax_total, "shipping_total": purchase.shipping_total}
    changes |= {name: float(Decimal(total)) for name, total in totals.items() if total}
    return changes | {"cancelled_at_foreign": at} if status == "cancelled" else changes


def is_outdated(purchase: PurchaseChanged, known: Mapping[str, Any]) -> bool:
    """Whether Mailchimp has a newer state of an order, as when a dead letter is sent again."""
    updated_at = known.get("updated_at_foreign")
    return bool(updated_at) and datetime.fromisoformat(updated_at) > changed_at(purchase)


def _line(number: int, line: PurchasedLine) -> dict[str, Any]:
    return {
        "id": str(number),
        "product_id": line.product_id,
        "product_variant_id": line.product_id,
        "quantity": max(line.quantity, 1),
        "price": unit_price(line),
    }


def store(options: MailchimpOptions, currency: str) -> dict[str, Any]:
    """Returns the store that orders belong to."""
    name = options.store_name
    return {"id": options.store_id, "list_id": options.list_id, "name": name, "currency_code": currency, "platform": "WooCommerce"}


def has_order_since(orders: Sequence[Mapping[str, Any]], since: datetime) -> bool:
    """Whether one of a customer's orders was placed at that time or later."""
    return any(datetime.fromisoformat(order["processed_at_foreign"]) >= since for order in orders if order.get("processed_at_foreign"))


def refusal(status: int, problem: Mapping[str, Any] | None) -> Result:
    """Returns the result of a request that was refused. Its detail is made of the problem's title alone: the rest may be personal.

    Args:
        status: of the answer.
        problem: its problem details; None if the answer holds none. At its busiest, Mailchimp refuses by a bare 403.
    """
    title = str((problem or {}).get("title", ""))
    detail = f"HTTP {status} {title}" if _TITLE.fullmatch(title) else f"HTTP {status}"
    is_bare = status == HTTPStatus.FORBIDDEN and problem is None
    if status in _BUSY or status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR or is_bare:
        return Result(Outcome.RETRY, detail)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Result(Outcome.UNAUTHORIZED, detail)
    if status == HTTPStatus.BAD_REQUEST and title in _GONE:
        return Result(Outcome.WITHHELD, _GONE[title])
    return Result(Outcome.REJECTED, detail)
