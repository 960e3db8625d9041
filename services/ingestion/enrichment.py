"""Derives the enrichment of an event: device, bot, where the session came from, visitor, course, video, currency."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC
from functools import lru_cache
from typing import Final, NamedTuple
from urllib.parse import unquote, urlsplit
from zoneinfo import ZoneInfo

import crawleruseragents
from google.protobuf.struct_pb2 import Struct
from pmp.ingestion.v1 import event_pb2 as pb
from ua_parser import parse_os, parse_user_agent

from kit.json_body.values import digits
from kit.rules import CURRENCIES
from services.ingestion.traffic import SiteHosts, traffic

Digest = Callable[[bytes], bytes]
"""Keyed one-way hash."""

_COURSE: Final = re.compile(r"/courses?/([^/]+)")
_TABLET: Final = re.compile(r"iPad|Tablet|PlayBook|Silk(?!.*Mobile)|Android(?!.*Mobile)")
_MOBILE: Final = re.compile(r"Mobi|iPhone|iPod|Android|Windows Phone")


class _Agent(NamedTuple):
    device: str
    browser: str
    os: str
    is_bot: bool


class Enricher:
    """Derives the enrichment of events.

    Args:
        site_hosts: host names of the shop itself, `*.shop.example` for all hosts below a domain.
        timezone: where the shop's day begins.
        digest: hash of visitors who are only known by their network and browser.
    """

    def __init__(self, site_hosts: frozenset[str], timezone: ZoneInfo, digest: Digest) -> None:
        self._site_hosts = SiteHosts(site_hosts)
        self._timezone = timezone
        self._digest = digest
        # The first user agent loads the parser's expressions, which takes longer than an event may wait.
        _agent("Mozilla/5.0")

    def enrich(self, event: pb.Event) -> pb.Enrichment:
        """Returns the enrichment of an event."""
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
            video=(_text(event.metadata, "video_id") or source.content)[:255],
            currency=currency_of(_text(event.metadata, "currency")),
        )

    def _visitor(self, event: pb.Event) -> str:
        if event.user_id or event.session_id:
            return event.user_id or event.session_id
        if not (event.ip_address or event.user_agent):
            return ""
        day = event.timestamp.ToDatetime(UTC).astimezone(self._timezone).date().isoformat()
        return "v-" + self._digest(f"{day}|{event.ip_address}|{event.user_agent}".encode()).hex()


def course_of(page_url: str) -> str:
    """Returns the slug of the course whose page this is."""
    found = _COURSE.search(_path(page_url))
    return unquote(found[1]) if found else ""


def currency_of(code: str) -> str:
    """Returns an ISO 4217 code; empty for any other text."""
    return code.upper() if code.upper() in CURRENCIES else ""


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
def _path(url: str) -> str:
    try:
        return urlsplit(url).path
    except ValueError:
        return ""


def _text(metadata: Struct, name: str) -> str:
    """Returns a string or a whole number of the metadata as text."""
    value = metadata.fields.get(name)
    if value is None:
        return ""
    if not value.HasField("number_value"):
        return value.string_value
    return digits(value.number_value)
