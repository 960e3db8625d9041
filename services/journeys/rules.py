"""Pure decisions about single touchpoints: their stage, the facts of their session, their amount."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from decimal import ROUND_HALF_UP, Decimal
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from kit.errors import Violation
from kit.rules import CURRENCIES, DECIMALS, event_name

AWARENESS: Final = "awareness"
INTEREST: Final = "interest"
CONSIDERATION: Final = "consideration"
INTENT: Final = "intent"
PURCHASE: Final = "purchase"
RETENTION: Final = "retention"
STAGES: Final = (AWARENESS, INTEREST, CONSIDERATION, INTENT, PURCHASE, RETENTION)
"""In the order in which a person reaches them."""

DIRECT: Final = "(direct)"
"""Source of a direct session, as web analytics name it."""

_ACTIONS: Final = {
    INTEREST: """
        lead lead_capture lead_magnet_download generate_lead newsletter newsletter_signup newsletter_subscribe
        email_signup email_subscribe subscribe sign_up signup register registration user_registration user_registered
    """,
    CONSIDERATION: """
        pricing pricing_view pricing_page view_pricing product_view product_page view_product view_item
        course_view course_page view_course compare
    """,
    INTENT: """
        cart cart_view view_cart add_to_cart begin_checkout checkout checkout_start checkout_started initiate_checkout
        shipping_details payment_details add_shipping_info add_payment_info purchase
    """,
    RETENTION: """
        enroll enrolled enrollment enrolment course_enroll course_enrolled course_enrollment course_start course_started
        course_progress course_complete course_completed lesson lesson_view lesson_start lesson_started lesson_complete
        lesson_completed quiz_start quiz_started quiz_complete quiz_completed certificate certificate_earned
    """,
}
STAGE_OF: Final = {action: stage for stage, actions in _ACTIONS.items() for action in actions.split()}
"""The stage that an action indicates."""
_CONSIDERED_PATH: Final = re.compile(r"/(pricing(?=/|$)|products?/|courses?/)")


@lru_cache(8192)
def stage_of(action: str, page_url: str) -> str:
    """Returns the stage that an action indicates, or else its page. Only a paid order indicates a purchase."""
    known = STAGE_OF.get(event_name(action))
    if known:
        return known
    return CONSIDERATION if _CONSIDERED_PATH.search(_path(page_url)) else AWARENESS


def _path(url: str) -> str:
    try:
        return urlsplit(url).path.lower()
    except ValueError:
        return ""


class SessionFacts(NamedTuple):
    """What one touchpoint, or the earliest of several, states about its session."""

    session: str
    """Its identifier, `session:` or `visitor:` and the id."""
    subject: str
    started_at: datetime
    external_at: datetime | None = None
    """Time of the touchpoint that states where the session came from; None without one."""
    external_id: str | None = None
    source: str | None = None
    """None for a direct session."""
    medium: str | None = None
    campaign: str | None = None


def earliest(several_session_facts: Iterable[SessionFacts]) -> SessionFacts:
    """Merges what several touchpoints state about one session, in any order: the first external one states where it came from.

    A payment provider that sends the buyer back, or a page of the shop itself, is not external.
    """
    several = list(several_session_facts)
    outside = [one for one in several if one.external_at is not None]
    first = min(outside, key=_stated_at) if outside else several[0]
    return first._replace(started_at=min(one.started_at for one in several))


def _stated_at(session_facts: SessionFacts) -> tuple[datetime, str]:
    assert session_facts.external_at is not None  # noqa: S101 (only such are compared)
    return session_facts.external_at, session_facts.external_id or ""


@lru_cache
def minor_unit(currency: str) -> Decimal:
    """Returns the smallest amount of a currency that is stored: 0.01 of USD, 1 of JPY; 0.0001 if it has none or a smaller one.

    Raises:
        ValueError: the currency is unknown.
    """
    if currency not in CURRENCIES:
        raise ValueError(currency)
    return Decimal(1).scaleb(-min(DECIMALS.get(currency, 4), 4))


def wrong_currency(field: str, currency: str) -> Violation | None:
    """Returns the violation of an unknown currency code."""
    try:
        minor_unit(currency)
    except ValueError:
        return Violation(field, f"{field} is no ISO 4217 code")
    return None


def amount(value: float, currency: str) -> Decimal:
    """Converts a number to an exact amount in the currency's minor units; halves are rounded away from zero."""
    return Decimal(str(value)).quantize(minor_unit(currency), ROUND_HALF_UP)
