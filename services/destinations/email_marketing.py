"""What tools for e-mail marketing are sent: decisions about messages that do not depend on the tool."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from hashlib import sha256
from typing import Final, Literal, TypeAlias

from pmp.gdpr.v1.change_pb2 import GdprChanged
from pmp.identity.v1.change_pb2 import IdentityChanged
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import ConversionRecorded, JourneyChanged
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1.change_pb2 import PurchaseChanged, PurchasedLine

from kit.people.identifiers import identifier_of
from kit.rules import event_name
from kit.times import moment
from services.destinations.kind import Message, Wanted

PROFILE: Final = "profile"
"""Name of deliveries that bring the tool's record of a person up to date."""
CONSENT: Final = "consent"
"""Name of deliveries that subscribe or unsubscribe a person, by the choice that is in force when they are sent."""
LINK: Final = "link"
"""Name of deliveries that do as `CONSENT` does, since a choice that a visitor made became that of a person."""
REGISTRATION: Final = "registration"
ENROLMENT: Final = "enrolment"
VIEW: Final = "view"
CART: Final = "cart"
CHECKOUT: Final = "checkout"

ProfileField: TypeAlias = Literal[
    "first_name", "last_name", "user_type", "lifetime_value", "currency", "utm_source", "utm_medium", "utm_campaign"
]
"""What a field of the tool can be filled with, where the shop decides which it has."""

STAGES: Final = ("prospect", "lead", "customer", "subscriber")
"""The lifecycle stages of a person, as `User.user_type` has them."""

LATE: Final = timedelta(days=1)
"""What is sent later than this, after an outage or by a replay, must not start automations."""

UNKNOWN_TIME: Final = datetime.max.replace(tzinfo=UTC)
"""When somebody unsubscribed of whom the tool does not say when: no choice is newer."""
LONG_AGO: Final = datetime.min.replace(tzinfo=UTC)
"""When somebody unsubscribed so long ago that every choice is newer."""

_CENT: Final = Decimal("0.01")
_LANGUAGE: Final = re.compile(r"([A-Za-z]{2})(?:[-_]([A-Za-z]{2}))?$")
_VISITOR: Final = ("session:", "anonymous:")
_REVERSED: Final = {change_pb2.PAYMENT_STATUS_FAILED, change_pb2.PAYMENT_STATUS_REFUNDED, change_pb2.PAYMENT_STATUS_CHARGED_BACK}
_CONVERSIONS: Final = {
    REGISTRATION: ("signup", "sign_up", "registration"),
    ENROLMENT: ("enrollment", "enrolment", "course_enrollment"),
}
_STEPS: Final = {
    VIEW: {"product_view", "product_page", "view_product", "view_item", "course_view", "course_page", "view_course"},
    CART: {"add_to_cart"},
    CHECKOUT: {"begin_checkout", "checkout", "checkout_start", "checkout_started", "initiate_checkout"},
}


def wanted_profile(change: IdentityChanged) -> Sequence[Wanted]:
    """Returns the delivery of a user that has an e-mail address, or of a visitor that became a known person."""
    user, link = change.user, change.alias
    if user.email_hash:
        at = user.updated_at if user.HasField("updated_at") else user.created_at
        account = str(user.wordpress_id) if user.wordpress_id else ""
        return [Wanted(PROFILE, "", moment(at), identifier_of(user_id=account, email_hash=user.email_hash))]
    if link.subject.startswith(_VISITOR) and not link.withdrawn:
        return [Wanted(LINK, "", moment(link.linked_at), identifier_of(user_id=link.user_id), needs_consent=False)]
    return []


def wanted_consent(change: GdprChanged) -> Sequence[Wanted]:
    """Returns the delivery of a choice about marketing e-mails. It needs no consent: a denial has to reach the tool as well."""
    if not change.consent.HasField("marketing_emails"):
        return []
    subject, choice = change.consent.subject, change.consent.marketing_emails
    # A choice is published again with each change of another one, and must not subscribe again who left the tool's list since.
    key = sha256(f"{subject} {choice.granted} {choice.decided_at.ToNanoseconds()}".encode()).hexdigest()
    return [Wanted(CONSENT, f"{CONSENT}:{key}", moment(choice.decided_at), subject, needs_consent=False)]


def wanted_conversion(conversion: ConversionRecorded) -> Sequence[Wanted]:
    """Returns the delivery of a registration, or of an enrolment in a course that is named."""
    kind = event_name(conversion.conversion_type)
    name = next((name for name, kinds in _CONVERSIONS.items() if kind in kinds), "")
    if not name or (name == ENROLMENT and not enrolled_course(conversion)):
        return []
    order_by = identifier_of(user_id=conversion.user_id) or conversion.subject
    return [Wanted(name, f"{name}:{conversion.id}", moment(conversion.timestamp), order_by)]


def wanted_step(stored: EventStored, step: str) -> Sequence[Wanted]:
    """Returns the delivery of a step of shopping, one for each event; none of a view of nobody who is known."""
    user = identifier_of(user_id=stored.event.user_id)
    if step == VIEW and not user:
        return []
    order_by = user or identifier_of(session_id=stored.event.session_id)
    return [Wanted(step, f"{step}:{event_key(stored)}", moment(stored.event.timestamp), order_by)]


def enrolled_course(conversion: ConversionRecorded) -> str:
    """Returns the course of an enrolment; empty if its metadata name none."""
    return _text(dict(conversion.metadata).get("course_id"))


def order_of_deliveries(purchase: PurchaseChanged) -> str:
    """Returns what the deliveries of an order are ordered by: its buyer."""
    return identifier_of(user_id=purchase.user_id, email_hash=purchase.email_hash) or purchase.subject


def counts(purchase: PurchaseChanged) -> bool:
    """Whether an order was sold, and is neither a test nor one of the staff."""
    return purchase.HasField("sold_at") and not purchase.excluded


def is_history(purchase: PurchaseChanged) -> bool:
    """Whether all that happened to an order is history, its refunds included."""
    return purchase.historical and all(entry.historical for entry in purchase.entries)


def is_reversed(purchase: PurchaseChanged) -> bool:
    """Whether all of an order's money was returned, or never arrived."""
    return purchase.payment_status in _REVERSED


def changed_at(purchase: PurchaseChanged) -> datetime:
    """Returns when money was last booked for a sold order."""
    return max([moment(purchase.sold_at), *(moment(entry.timestamp) for entry in purchase.entries)])


def product_lines(purchase: PurchaseChanged) -> Sequence[PurchasedLine]:
    """Returns the lines of an order that are products: not discounts or gift cards that are lines of their own."""
    return [line for line in purchase.lines if line.product_id and Decimal(line.amount or 0) >= 0]


def courses(purchase: PurchaseChanged) -> Sequence[str]:
    """Returns the courses that an order gives access to, sorted."""
    found = {course for line in purchase.lines for course in line.course_ids}
    found |= {line.product_id for line in purchase.lines if line.product_type == "course" and not line.course_ids}
    return sorted(found)


def stage_of_buyer(purchase: PurchaseChanged, profile: User) -> str:
    """Returns the stage of a buyer: identity may not have read the order yet from which the stage follows."""
    if is_reversed(purchase) or profile.user_type == "subscriber":
        return profile.user_type
    return "subscriber" if any(line.product_type == "membership" for line in purchase.lines) else "customer"


def stage_and_courses(message: Message, profile: User) -> tuple[str, Mapping[str, bool]]:
    """Returns the stage of a person, and the courses that a message says it has, or has no more."""
    if isinstance(message, PurchaseChanged):
        return stage_of_buyer(message, profile), dict.fromkeys(courses(message), not is_reversed(message))
    course = enrolled_course(message.conversion) if isinstance(message, JourneyChanged) else ""
    return profile.user_type, {course: True} if course else {}


def shopping_step(stored: EventStored) -> str:
    """Returns `view`, `cart` or `checkout` for an event that is one; empty for others, and for those of crawlers."""
    if stored.enrichment.is_bot:
        return ""
    kind = event_name(stored.event.event_type)
    return next((step for step, kinds in _STEPS.items() if kind in kinds), "")


def product_of(stored: EventStored) -> str:
    """Returns the product that an event is about; empty if its metadata name none."""
    return _text(dict(stored.event.metadata).get("product_id"))


def event_key(stored: EventStored) -> str:
    """Returns the idempotency key of an event."""
    return stored.key or stored.event.id


def remaining_total(purchase: PurchaseChanged) -> Decimal:
    """Returns what remains of an order's total after refunds."""
    return Decimal(purchase.amount or 0) - Decimal(purchase.refunded_amount or 0)


def unit_price(line: PurchasedLine) -> float:
    """Returns the price of one piece of a line."""
    return float((Decimal(line.amount or 0) / max(line.quantity, 1)).quantize(_CENT))


def profile_fields(profile: User) -> Mapping[ProfileField, str]:
    """Returns what a person's profile fills fields of the tool with; empty for what is not known."""
    utm = profile.utm_attribution
    return {
        "first_name": profile.first_name,
        "last_name": profile.last_name,
        "user_type": profile.user_type,
        "lifetime_value": f"{Decimal(repr(profile.lifetime_value)).quantize(_CENT)}",
        "currency": profile.currency,
        "utm_source": utm.source,
        "utm_medium": utm.medium,
        "utm_campaign": utm.campaign,
    }


def is_late(due: datetime, now: datetime) -> bool:
    """Whether what was to be sent then is sent too late to start an automation."""
    return now - due > LATE


def language(profile: User) -> str:
    """Returns the language that a person prefers, such as `de` or `de-AT`; empty if none is known."""
    found = _LANGUAGE.match(_text(dict(profile.preferences).get("language")))
    return "-".join(filter(None, [found[1].lower(), (found[2] or "").upper()])) if found else ""


def _text(value: object) -> str:
    """Returns an id of metadata as text: JSON has numbers, too."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value)[:100] if isinstance(value, str | int) else ""
