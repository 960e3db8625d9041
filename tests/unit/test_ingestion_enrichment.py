"""The enrichment of an event."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from google.protobuf.json_format import ParseDict
from pmp.ingestion.v1 import event_pb2 as pb

from kit.scrubbing.parameters import CLICK_PARAMETERS
from services.ingestion.enrichment import Enricher, course_of, currency_of
from services.ingestion.traffic import CLICK_IDS, SiteHosts, Traffic, traffic

SHOP = frozenset({"shop.example", "www.shop.example", "b\u00fccher.example", "*.kurse.example"})
PAGE = "https://shop.example/courses/pmp-prep"


def came(referrer: str = "", page: str = PAGE, **utm: str) -> Traffic:
    return traffic(page, referrer, pb.UtmParameters(**utm), SiteHosts(SHOP))


@pytest.mark.parametrize(
    ("referrer", "expected"),
    [
        ("", Traffic(pb.CHANNEL_DIRECT)),
        ("https://www.google.co.uk/search?q=pmp", Traffic(pb.CHANNEL_SEARCH, "google", "search")),
        ("https://news.google.com/", Traffic(pb.CHANNEL_SEARCH, "google", "search")),
        ("https://duckduckgo.com/", Traffic(pb.CHANNEL_SEARCH, "duckduckgo", "search")),
        ("https://search.brave.com/", Traffic(pb.CHANNEL_SEARCH, "brave", "search")),
        ("https://WWW.BING.COM./search", Traffic(pb.CHANNEL_SEARCH, "bing", "search")),
        ("android-app://com.google.android.googlequicksearchbox/", Traffic(pb.CHANNEL_SEARCH, "google", "search")),
        ("https://mail.google.com/", Traffic(pb.CHANNEL_EMAIL, "gmail", "email")),
        ("android-app://com.google.android.gm/", Traffic(pb.CHANNEL_EMAIL, "gmail", "email")),
        ("https://outlook.office.com/mail/", Traffic(pb.CHANNEL_EMAIL, "outlook", "email")),
        ("https://www.orange.fr/webmail/inbox", Traffic(pb.CHANNEL_EMAIL, "orange-webmail", "email")),
        ("https://www.orange.fr/", Traffic(pb.CHANNEL_REFERRAL, "orange.fr", "referral")),
        ("https://sites.google.com/view/pmp", Traffic(pb.CHANNEL_REFERRAL, "sites.google.com", "referral")),
        ("https://groups.google.com/g/pmp", Traffic(pb.CHANNEL_REFERRAL, "groups.google.com", "referral")),
        ("https://docs.google.com/document", Traffic(pb.CHANNEL_REFERRAL, "docs.google.com", "referral")),
        ("https://brave.training.example/", Traffic(pb.CHANNEL_REFERRAL, "brave.training.example", "referral")),
        ("https://google.evil.example/", Traffic(pb.CHANNEL_REFERRAL, "google.evil.example", "referral")),
        ("https://notlinkedin.com/", Traffic(pb.CHANNEL_REFERRAL, "notlinkedin.com", "referral")),
        ("https://stripe.blog.example/", Traffic(pb.CHANNEL_REFERRAL, "stripe.blog.example", "referral")),
        ("https://l.facebook.com/l.php", Traffic(pb.CHANNEL_SOCIAL, "facebook", "social")),
        ("https://de.linkedin.com/subscription", Traffic(pb.CHANNEL_SOCIAL, "linkedin", "social")),
        ("android-app://com.linkedin.android/", Traffic(pb.CHANNEL_SOCIAL, "linkedin", "social")),
        ("https://t.co/abc", Traffic(pb.CHANNEL_SOCIAL, "x", "social")),
        ("https://www.blog.example/post", Traffic(pb.CHANNEL_REFERRAL, "blog.example", "referral")),
        ("https://www.shop.example/cart", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://shop.example./cart", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://xn--bcher-kva.example/", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://B\u00dcCHER.example/", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://lernen.kurse.example/", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://meinekurse.example/", Traffic(pb.CHANNEL_REFERRAL, "meinekurse.example", "referral")),
        ("https://checkout.stripe.com/pay", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://www.paypal.com/checkoutnow", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://pay.google.com/gp/p/ui/pay", Traffic(pb.CHANNEL_INTERNAL)),
        ("https://[broken", Traffic(pb.CHANNEL_DIRECT)),
    ],
)
def test_the_referrer_states_where_a_session_came_from(referrer: str, expected: Traffic) -> None:
    assert came(referrer) == expected


def test_campaign_parameters_win_over_the_referrer() -> None:
    assert came("https://www.google.com/", source="newsletter", medium="email") == Traffic(pb.CHANNEL_CAMPAIGN, "newsletter", "email")
    assert came(page=f"{PAGE}?utm_source=ads&utm_campaign=may") == Traffic(pb.CHANNEL_CAMPAIGN, "ads", "", "may")
    assert came("https://www.google.com/", page=f"{PAGE}?gclid=1") == Traffic(pb.CHANNEL_CAMPAIGN, "google", "cpc")


@pytest.mark.parametrize(
    ("parameter", "source", "medium"),
    [
        *((name, "google", "cpc") for name in ("gclid", "gbraid", "wbraid", "gad_source")),
        ("dclid", "google", "display"),
        ("msclkid", "bing", "cpc"),
        ("yclid", "yandex", "cpc"),
        ("ttclid", "tiktok", "cpc"),
        ("twclid", "x", "cpc"),
        ("li_fat_id", "linkedin", "cpc"),
        ("epik", "pinterest", "cpc"),
        ("rdt_cid", "reddit", "cpc"),
        ("ScCid", "snapchat", "cpc"),
        ("fbclid", "facebook", "social"),
    ],
)
def test_every_network_s_click_id_names_it(parameter: str, source: str, medium: str) -> None:
    assert came(page=f"{PAGE}?{parameter}=abc") == Traffic(pb.CHANNEL_CAMPAIGN, source, medium)


@pytest.mark.parametrize(
    ("referrer", "query", "expected"),
    [
        ("", "utm_campaign=spring&gclid=x", ("google", "cpc", "spring")),
        ("https://www.google.com/", "utm_campaign=spring", ("google", "search", "spring")),
        ("https://www.linkedin.com/", "utm_source=LinkedIn", ("linkedin", "social", "")),
        ("https://www.blog.example/", "utm_medium=partner", ("blog.example", "partner", "")),
        # A medium is the source's own or none: the mail that carries a network's click id is no advertisement.
        ("", "utm_source=newsletter&fbclid=x", ("newsletter", "", "")),
        ("", "utm_source=newsletter&utm_medium=email&gclid=x", ("newsletter", "email", "")),
    ],
)
def test_what_a_campaign_leaves_out_is_filled_in(referrer: str, query: str, expected: tuple[str, str, str]) -> None:
    assert came(referrer, f"{PAGE}?{query}") == Traffic(pb.CHANNEL_CAMPAIGN, *expected)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("utm_source=%20LinkedIn%20&utm_medium=Paid%20Social", ("linkedin", "paid social", "")),
        ("utm_source=www.linkedin.com&utm_medium=social", ("linkedin", "social", "")),
        ("utm_source=fb&utm_medium=paid", ("facebook", "paid", "")),
        ("utm_source=Partner.Example&utm_medium=referral", ("partner.example", "referral", "")),
        ("utm_source=newsletter&amp;utm_medium=email&amp;utm_campaign=May", ("newsletter", "email", "May")),
        ("UTM_SOURCE=newsletter&Utm_Medium=email", ("newsletter", "email", "")),
        ("utm_source={{site_source_name}}&utm_campaign=spring&fbclid=x", ("facebook", "social", "spring")),
        ("utm_campaign={campaignid}&utm_source=google&utm_medium=cpc", ("google", "cpc", "")),
        ("utm_source=%%SOURCE%%&utm_campaign=spring", ("", "", "spring")),
    ],
)
def test_a_campaign_is_read_as_it_was_meant(query: str, expected: tuple[str, str, str]) -> None:
    assert came(page=f"{PAGE}?{query}") == Traffic(pb.CHANNEL_CAMPAIGN, *expected)


@pytest.mark.parametrize("query", ["utm_source=%20", "utm_source={{site_source_name}}", "utm_source=&utm_medium=", "gclid="])
def test_a_parameter_that_says_nothing_is_no_campaign(query: str) -> None:
    assert came(page=f"{PAGE}?{query}") == Traffic(pb.CHANNEL_DIRECT)
    assert came("https://www.google.com/", f"{PAGE}?{query}") == Traffic(pb.CHANNEL_SEARCH, "google", "search")


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
def test_the_user_agent_gives_device_system_and_bots(agent: str, device: str, os: str, bot: bool) -> None:
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
    assert enriched({"metadata": {"course_id": 1234567}}).course == "1234567"
    assert enriched({"page_url": PAGE}).course == "pmp-prep"
    assert course_of("https://shop.example/course/caf%C3%A9/lesson/1") == "café"
    assert course_of("https://shop.example/pricing") == ""


def test_the_video_is_in_the_metadata_or_is_the_content_of_the_campaign() -> None:
    link = f"{PAGE}?utm_source=youtube&utm_content=dQw4w9WgXcQ"
    assert enriched({"page_url": link}).video == "dQw4w9WgXcQ"
    assert enriched({"page_url": link, "metadata": {"video_id": "other"}}).video == "other"
    assert enriched({"page_url": PAGE, "utm_parameters": {"source": "youtube", "content": "abc"}}).video == "abc"
    assert enriched({"page_url": f"{PAGE}?utm_content=abc"}).video == "", "without a campaign it is no campaign's content"


def test_a_currency_is_kept_only_if_there_is_one() -> None:
    assert [currency_of(code) for code in ("eur", "USD", "KWD", "XYZ", "", "euro")] == ["EUR", "USD", "KWD", "", "", ""]


def test_a_click_id_that_names_its_network_is_kept_in_addresses() -> None:
    assert set(CLICK_IDS) <= CLICK_PARAMETERS
