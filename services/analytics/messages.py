"""Maps messages of the topics to facts."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1 import event_pb2
from pmp.purchases.v1 import change_pb2

from kit.idempotency import is_browsers
from kit.people.identifiers import identifier_of
from kit.referrers import campaign_name, source_name
from kit.rules import event_name
from services.analytics.breakdown import Breakdown
from services.analytics.days import MICROSECONDS
from services.analytics.funnel import CHECKOUT, PRODUCT_VIEW
from services.analytics.orders import CORRECTION, REFUND, SALE, STAFF, TESTS, UNIT, Entry, Line, Order
from services.analytics.sessions import COMPLETION, ENROLMENT, LEAD, OTHER, VIEW, Event, Session, user_of

KINDS: Final = {
    VIEW: "page_view pageview screen_view",
    LEAD: """
        lead lead_capture lead_magnet_download generate_lead newsletter newsletter_signup newsletter_subscribe email_signup email_subscribe
    """,
    ENROLMENT: "enroll enrolled enrollment enrolment course_enroll course_enrolled course_enrollment",
    COMPLETION: "course_complete course_completed",
    PRODUCT_VIEW: "product_view product_page view_product view_item course_view course_page view_course",
    CHECKOUT: """
        cart cart_view view_cart add_to_cart begin_checkout checkout checkout_start checkout_started initiate_checkout
        shipping_details payment_details add_shipping_info add_payment_info purchase
    """,
}
"""The types of events of each kind."""
_KIND_OF: Final = {event_type: kind for kind, types in KINDS.items() for event_type in types.split()}
_OUTSIDE: Final = frozenset(
    {
        event_pb2.CHANNEL_CAMPAIGN,
        event_pb2.CHANNEL_SEARCH,
        event_pb2.CHANNEL_SOCIAL,
        event_pb2.CHANNEL_REFERRAL,
        event_pb2.CHANNEL_EMAIL,
    }
)
"""Channels that state where a session came from."""
_UNNAMED: Final = "(not set)"
"""Source of a campaign that has a medium or a name only."""
_ENTRY_KINDS: Final = {
    change_pb2.ENTRY_KIND_SALE: SALE,
    change_pb2.ENTRY_KIND_REFUND: REFUND,
    change_pb2.ENTRY_KIND_PARTIAL_REFUND: REFUND,
    change_pb2.ENTRY_KIND_CHARGEBACK: REFUND,
}
_EXCLUSIONS: Final = {change_pb2.EXCLUSION_TEST: TESTS, change_pb2.EXCLUSION_STAFF: STAFF}
_TITLED: Final = frozenset({ENROLMENT, COMPLETION})
_COURSE: Final = "course"
"""Type of a product that is itself a course."""
_LONGEST: Final = 255
_SESSION: Final = "session:"
_VISITOR: Final = "visitor:"
_SINGLE: Final = "event:"


class Seen(NamedTuple):
    """An event with the id under which its session is found."""

    carrier: str
    """`session:` and the client's session id, or `visitor:` and the visitor of a day; `event:` and the key for an event of the
    shop's server about a user; empty for one without a person."""
    event: Event


def seen(stored: event_pb2.EventStored) -> Seen:
    """Returns what analytics keeps of an event."""
    event, found = stored.event, stored.enrichment
    key = stored.key or event.id
    session_id, user_id, visitor = event.session_id, event.user_id, found.visitor
    trusted = not session_id and stored.scope != "track" and not is_browsers(key)
    subject = identifier_of(user_id=user_id, email_hash=stored.email_hash if trusted else b"")
    carrier = identifier_of(session_id=session_id)
    if not carrier and visitor:
        carrier = single(key) if user_id else f"{_VISITOR}{visitor}"
    is_outside = found.channel in _OUTSIDE
    return Seen(
        carrier,
        Event(
            at=micros(event.timestamp),
            key=key,
            kind=_kind(event.event_type),
            subject=subject,
            page=page_of(event.page_url),
            course=found.course[:_LONGEST].strip(),
            source=(found.traffic_source[:_LONGEST] or _UNNAMED) if is_outside else "",
            medium=found.traffic_medium[:_LONGEST] if is_outside else "",
            campaign=found.campaign[:_LONGEST] if is_outside else "",
            device=found.device,
            video=found.video[:_LONGEST].strip(),
        ),
    )


def titles_of(stored: event_pb2.EventStored, event: Event) -> dict[str, str]:
    """Returns the title of the course that an enrolment or a completion states, by course."""
    if event.kind not in _TITLED or event.course in ("", OTHER):
        return {}
    title = stored.event.metadata.fields["course_name"].string_value if "course_name" in stored.event.metadata.fields else ""
    return {event.course: title[:_LONGEST]} if title else {}


def single(key: str) -> str:
    """Returns the carrier of an event of the shop's server about a user."""
    return f"{_SINGLE}{key}"


def is_session(carrier: str) -> bool:
    """True for an id under which sessions are found, false for that of a single event."""
    return carrier.startswith((_SESSION, _VISITOR))


def may_move(carrier: str) -> bool:
    """True if a repetition of an event may put it under another id: it has no session of its client."""
    return not carrier.startswith(_SESSION)


class SeenOrder(NamedTuple):
    """An order with whose it is."""

    purchase_id: str
    subject: str
    carrier: str
    """`session:` and the client's session id; empty if it is not known."""
    order: Order
    visitor: str = ""
    """For whom the session counts in which it was bought; empty if that is unknown."""

    def bought_in(self, sessions: Sequence[Session]) -> SeenOrder:
        """Returns it with the session in which it was bought, out of those of its carrier, oldest first."""
        session = self.order.session(sessions)
        if session is None:
            return self
        return self._replace(order=self.order.bought_in(session), visitor=user_of(session) or self.carrier)


def seen_order(change: change_pb2.PurchaseChanged) -> SeenOrder:
    """Returns what analytics keeps of an order."""
    utm = change.utm_attribution
    subject, carrier = change.subject or f"purchase:{change.purchase_id}", identifier_of(session_id=change.session_id)
    source, medium, campaign = source_name(utm.source), campaign_name(utm.medium).lower(), campaign_name(utm.campaign)
    sold_at = micros(change.sold_at) if change.HasField("sold_at") else None
    order = Order(
        currency=change.currency,
        sold_at=sold_at,
        is_stated=bool(source or medium or campaign),
        source=source[:_LONGEST],
        medium=medium[:_LONGEST],
        campaign=campaign[:_LONGEST],
        lines=tuple(_line(line) for line in change.lines),
        entries=tuple(_entry(entry, sold_at) for entry in change.entries),
        breakdown=_breakdown(change),
        excluded=_exclusions(change),
    )
    return SeenOrder(change.purchase_id, subject, carrier, order)


def minor(amount: str) -> int:
    """Converts an amount to an integer of ten-thousandths."""
    return int(Decimal(amount or 0) * UNIT)


def micros(time: Timestamp) -> int:
    """Converts a time to microseconds since 1970."""
    return time.seconds * MICROSECONDS + time.nanos // 1000


@lru_cache(8192)
def page_of(url: str) -> str:
    """Returns the path of a page's URL, by which pages are counted; empty if it has none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return ""
    if not (parts.netloc or parts.path):
        return ""
    return (parts.path.rstrip("/") or "/")[:_LONGEST].strip()


@lru_cache(1024)
def _kind(event_type: str) -> str:
    return _KIND_OF.get(event_name(event_type), "")


def _exclusions(change: change_pb2.PurchaseChanged) -> tuple[str, ...]:
    """Returns why an order is excluded; one of an earlier version may be either."""
    if not change.excluded:
        return ()
    return tuple(reason for exclusion, reason in _EXCLUSIONS.items() if exclusion in change.exclusions) or (*_EXCLUSIONS.values(),)


def _breakdown(change: change_pb2.PurchaseChanged) -> Breakdown:
    return Breakdown(
        total=minor(change.amount),
        discounts=minor(change.discount_total),
        taxes=minor(change.tax_total),
        shipping=minor(change.shipping_total),
        base_discounts=minor(change.base_discount_total),
        base_taxes=minor(change.base_tax_total),
        base_shipping=minor(change.base_shipping_total),
        country=change.country,
        coupons=tuple(sorted({code[:_LONGEST].strip() for code in change.coupon_codes} - {""})),
        referral=campaign_name(change.referral_code).lower(),
    )


def _line(line: change_pb2.PurchasedLine) -> Line:
    courses = line.course_ids or ([line.product_id] if line.product_type == _COURSE else [])
    return Line(line.product_id, line.product_name, line.quantity, minor(line.amount), list(courses))


def _entry(entry: change_pb2.LedgerEntry, sold_at: int | None) -> Entry:
    kind = _ENTRY_KINDS.get(entry.kind, CORRECTION)
    at = sold_at if kind == SALE and sold_at is not None else micros(entry.timestamp)
    return Entry(kind, at, minor(entry.amount), minor(entry.base_amount) if entry.base_amount else None)
