"""What an event tells beyond its fields: device, bot, where the visit came from, visitor, course, currency."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit
from zoneinfo import ZoneInfo

import crawleruseragents
import iso4217
from google.protobuf.struct_pb2 import Struct
from pmp.ingestion.v1 import event_pb2 as pb
from ua_parser import parse_os, parse_user_agent

Digest = Callable[[bytes], bytes]
"""Keyed hash that can't be turned back."""

_CURRENCIES: Final = frozenset(currency.code for currency in iso4217.Currency)
_COURSE: Final = re.compile(r"/courses?/([^/]+)")
_TABLET: Final = re.compile(r"iPad|Tablet|PlayBook|Silk(?!.*Mobile)|Android(?!.*Mobile)")
_MOBILE: Final = re.compile(r"Mobi|iPhone|iPod|Android|Windows Phone")

# Any label of a referrer's host, but for the last, that names one of these.
# fmt: off
_SEARCH: Final = frozenset({
    "google", "bing", "duckduckgo", "yahoo", "ecosia", "baidu", "yandex", "startpage", "qwant", "brave", "naver", "seznam", "kagi",
    "perplexity",
})
_SOCIAL: Final = frozenset({
    "facebook", "instagram", "linkedin", "lnkd", "twitter", "pinterest", "reddit", "youtube", "tiktok", "whatsapp", "telegram", "threads",
    "snapchat", "xing", "vk", "tumblr", "quora", "mastodon", "bsky",
})
# Buyers come back from these: they never brought one.
_PAYMENT: Final = frozenset({
    "paypal", "stripe", "klarna", "mollie", "adyen", "braintreegateway", "squareup", "authorize", "razorpay", "paddle", "amazonpay", "payu",
    "sofort", "worldpay", "cardinalcommerce", "2checkout", "afterpay", "affirm",
})
# fmt: on
_SOCIAL_HOSTS: Final = {"x.com": "x", "t.co": "x", "fb.com": "facebook", "youtu.be": "youtube", "t.me": "telegram", "wa.me": "whatsapp"}
_NOT_SEARCH: Final = frozenset({"mail", "accounts", "docs", "drive", "classroom", "calendar"})
_CLICK_IDS: Final = {"gclid": ("google", "cpc"), "msclkid": ("bing", "cpc"), "fbclid": ("facebook", "social"), "ttclid": ("tiktok", "cpc")}


class Traffic(NamedTuple):
    """How a visit found the site."""

    channel: pb.Channel.ValueType
    source: str = ""
    medium: str = ""
    campaign: str = ""


class _Agent(NamedTuple):
    device: str
    browser: str
    os: str
    is_bot: bool


class Enricher:
    """Finds out what an event tells.

    Args:
        site_hosts: host names of the shop itself.
        timezone: where the shop's day begins.
        digest: hash for visitors that are known by nothing but their network and browser.
    """

    def __init__(self, site_hosts: frozenset[str], timezone: ZoneInfo, digest: Digest) -> None:
        self._site_hosts = frozenset(host.lower() for host in site_hosts)
        self._timezone = timezone
        self._digest = digest

    def enrich(self, event: pb.Event) -> pb.Enrichment:
        """What is known about the event."""
        agent = _agent(event.user_agent)
        source = traffic(event.page_url, event.referrer, event.utm_parameters, self._site_hosts)
        visitor = self._visitor(event)
        return pb.Enrichment(
            device=agent.device,
            browser=agent.browser,
            os=agent.os,
            is_bot=agent.is_bot,
            channel=source.channel,
            traffic_source=source.source,
            traffic_medium=source.medium,
            campaign=source.campaign,
            visitor=visitor,
            session=event.session_id or visitor,
            course=(_text(event.metadata, "course_id") or _text(event.metadata, "course") or course_of(event.page_url))[:255],
            currency=currency_of(_text(event.metadata, "currency")),
        )

    def _visitor(self, event: pb.Event) -> str:
        if event.user_id or event.session_id:
            return event.user_id or event.session_id
        if not (event.ip_address or event.user_agent):
            return ""
        day = event.timestamp.ToDatetime(UTC).astimezone(self._timezone).date().isoformat()
        return "v-" + self._digest(f"{day}|{event.ip_address}|{event.user_agent}".encode()).hex()


def traffic(page_url: str, referrer: str, utm: pb.UtmParameters, site_hosts: frozenset[str]) -> Traffic:
    """How a visit found the site: campaign parameters win over click ids, these over the referrer."""
    query = _query(page_url)
    source = utm.source or query.get("utm_source", "")
    medium = utm.medium or query.get("utm_medium", "")
    campaign = utm.campaign or query.get("utm_campaign", "")
    if source or medium or campaign:
        return Traffic(pb.CHANNEL_CAMPAIGN, source, medium, campaign)
    for parameter, (network, kind) in _CLICK_IDS.items():
        if parameter in query:
            return Traffic(pb.CHANNEL_CAMPAIGN, network, kind)
    return _referral(_host(referrer), _host(page_url), site_hosts)


def course_of(page_url: str) -> str:
    """The course whose page this is, by its name in the address."""
    found = _COURSE.search(_path(page_url))
    return unquote(found[1]) if found else ""


def currency_of(code: str) -> str:
    """The ISO 4217 code, or empty when it is none."""
    return code.upper() if code.upper() in _CURRENCIES else ""


@lru_cache(4096)
def _referral(host: str, own: str, site_hosts: frozenset[str]) -> Traffic:
    if not host:
        return Traffic(pb.CHANNEL_DIRECT)
    bare = host.removeprefix("www.")
    labels = frozenset(bare.split(".")[:-1])
    if bare == own.removeprefix("www.") or host in site_hosts or bare in site_hosts or labels & _PAYMENT:
        return Traffic(pb.CHANNEL_INTERNAL)
    engine = next(iter(labels & _SEARCH), "")
    if engine and not labels & _NOT_SEARCH:
        return Traffic(pb.CHANNEL_SEARCH, engine, "search")
    social = _SOCIAL_HOSTS.get(bare) or next(iter(labels & _SOCIAL), "")
    if social:
        return Traffic(pb.CHANNEL_SOCIAL, social, "social")
    return Traffic(pb.CHANNEL_REFERRAL, bare, "referral")


@lru_cache(8192)
def _agent(user_agent: str) -> _Agent:
    if not user_agent:
        return _Agent("", "", "", is_bot=False)
    browser, system = parse_user_agent(user_agent), parse_os(user_agent)
    device = "tablet" if _TABLET.search(user_agent) else "mobile" if _MOBILE.search(user_agent) else "desktop"
    return _Agent(
        device=device,
        browser=browser.family if browser else "",
        os=system.family if system else "",
        is_bot=crawleruseragents.is_crawler(user_agent),
    )


@lru_cache(4096)
def _query(url: str) -> dict[str, str]:
    try:
        return {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
    except ValueError:
        return {}


@lru_cache(4096)
def _host(url: str) -> str:
    try:
        return (urlsplit(url).hostname or "").lower()
    except ValueError:
        return ""


@lru_cache(4096)
def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _text(metadata: Struct, name: str) -> str:
    """A string or a whole number of the metadata, as text."""
    value = metadata.fields.get(name)
    if value is None:
        return ""
    return f"{value.number_value:g}" if value.HasField("number_value") else value.string_value
