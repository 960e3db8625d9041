"""What an event tells beyond its fields."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.json_format import ParseDict
from pmp.ingestion.v1 import event_pb2 as pb

from services.ingestion.enrichment import Enricher, Traffic, course_of, currency_of, traffic

SHOP = frozenset({"shop.example", "www.shop.example"})
PAGE = "https://shop.example/courses/pmp-prep"


def came(referrer: str = "", page: str = PAGE, **utm: str) -> Traffic:
    return traffic(page, referrer, pb.UtmParameters(**utm), SHOP)


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("", Traffic(pb.CHANNEL_DIRECT)),
        ("https://www.google.co.uk/search?q=pmp", Traffic(pb.CHANNEL_SEARCH, "google", "search")),
        ("https://duckduckgo.com/", Traffic(pb.CHANNEL_SEARCH, "duckduckgo", "search")),
        ("https://mail.google.com/", Traffic(pb.CHANNEL_REFERRAL, "mail.google.com", "referral")),
        ("https://l.facebook.com/l.php", Traffic(pb.CHANNEL_SOCIAL, "facebook", "social")),
        ("https://t.co/abc", Traffic(pb.CHANNEL_SOCIAL, "x", "social")),
        ("https://www.blog.example/post", Traffic(pb.CHANNEL_REFERRAL, "blog.example", "referral")),
        ("https://www.shop.example/cart", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://checkout.stripe.com/pay", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://www.paypal.com/checkoutnow", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://[broken", Traffic(pb.CHANNEL_DIRECT)),
    ],
)
def test_the_referrer_tells_where_a_visit_came_from(referrer: str, expected: Traffic) -> None:
    assert came(referrer) == expected


def test_campaign_parameters_win_over_the_referrer() -> None:
    assert came("https://www.google.com/", source="news", medium="email") == Traffic(pb.CHANNEL_CAMPAIGN, "news", "email")
    assert came(page=f"{PAGE}?utm_source=ads&utm_campaign=may") == Traffic(pb.CHANNEL_CAMPAIGN, "ads", "", "may")
    assert came("https://www.google.com/", page=f"{PAGE}?gclid=1") == Traffic(pb.CHANNEL_CAMPAIGN, "google", "cpc")


@pytest.mark.parametrize(
    ("agent", "device", "os", "bot"),
    [
        (
            "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Safari/537.36",
            "desktop",
            "Windows",
            False,
        ),
        (
            "Mozilla/5.0 (iPad; CPU OS 16_0 like Mac OS X) AppleWebKit/605.1.15 Version/16.0 Mobile/15E148 Safari/604.1",
            "tablet",
            "iOS",
            False,
        ),
        (
            "Mozilla/5.0 (Linux; Android 14; Pixel 8) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Mobile Safari/537.36",
            "mobile",
            "Android",
            False,
        ),
        ("Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "desktop", "", True),
        ("", "", "", False),
    ],
)
def test_the_user_agent_tells_device_system_and_bots(agent: str, device: str, os: str, bot: bool) -> None:
    found = enriched({"user_agent": agent})
    assert (found.device, found.os, found.is_bot) == (device, os, bot)


def enriched(fields: dict[str, Any], when: datetime | None = None) -> pb.Enrichment:
    event = ParseDict(fields, pb.Event())
    event.timestamp.FromDatetime(when or datetime(2026, 11, 22, 12, tzinfo=UTC))
    return Enricher(SHOP, ZoneInfo("America/New_York"), lambda data: data[::-1]).enrich(event)


def test_the_visitor_is_the_user_then_the_session_then_a_hash_of_the_day() -> None:
    assert enriched({"user_id": "7", "session_id": "s"}).visitor == "7"
    assert enriched({"session_id": "s"}).visitor == "s"
    anonymous: dict[str, Any] = {"ip_address": "203.0.113.0", "user_agent": "x"}
    today = enriched(anonymous).visitor
    assert today == enriched(anonymous).session != ""
    # Midnight is the shop's: 03:00 UTC is still the day before in New York.
    assert enriched(anonymous, datetime(2026, 11, 23, 3, tzinfo=UTC)).visitor == today
    assert enriched(anonymous, datetime(2026, 11, 23, 6, tzinfo=UTC)).visitor != today
    assert enriched({}).visitor == ""


def test_the_course_is_in_the_metadata_or_in_the_address() -> None:
    assert enriched({"metadata": {"course_id": 12}, "page_url": PAGE}).course == "12"
    assert enriched({"page_url": PAGE}).course == "pmp-prep"
    assert course_of("https://shop.example/course/caf%C3%A9/lesson/1") == "café"
    assert course_of("https://shop.example/pricing") == ""


def test_a_currency_is_kept_only_if_there_is_one() -> None:
    assert [currency_of(code) for code in ("eur", "USD", "KWD", "XYZ", "", "euro")] == ["EUR", "USD", "KWD", "", "", ""]
