"""Derives the traffic source of a session: from campaign parameters, then click ids, then the referring page."""

from __future__ import annotations

from functools import lru_cache
from html import unescape
from typing import Final, NamedTuple
from urllib.parse import parse_qs, urlsplit

from pmp.ingestion.v1 import event_pb2 as pb

from kit.referrers import campaign_name, host_name, is_payment, referrer, source_name, within

# Parameters that networks append to the URLs of advertisements, by precedence: the id of a click on an advertisement states more
# than that the visitor came from the network.
CLICK_IDS: Final = {
    "gclid": ("google", "cpc"),
    "gbraid": ("google", "cpc"),
    "wbraid": ("google", "cpc"),
    "dclid": ("google", "display"),
    "msclkid": ("bing", "cpc"),
    "yclid": ("yandex", "cpc"),
    "ttclid": ("tiktok", "cpc"),
    "twclid": ("x", "cpc"),
    "li_fat_id": ("linkedin", "cpc"),
    "epik": ("pinterest", "cpc"),
    "rdt_cid": ("reddit", "cpc"),
    "sccid": ("snapchat", "cpc"),
    "gad_source": ("google", "cpc"),
    "fbclid": ("facebook", "social"),
}
_CHANNELS: Final = {"search": pb.CHANNEL_SEARCH, "email": pb.CHANNEL_EMAIL, "social": pb.CHANNEL_SOCIAL}


class Traffic(NamedTuple):
    """The traffic source of a session."""

    channel: pb.Channel.ValueType
    source: str = ""
    medium: str = ""
    campaign: str = ""
    content: str = ""
    """Which link or advertisement of the campaign."""


class SiteHosts:
    """The shop's own hosts.

    Args:
        names: as in the settings: host names, and `*.shop.example` for every host below a domain.
    """

    def __init__(self, names: frozenset[str]) -> None:
        self._exact = frozenset(host_name(name) for name in names if not name.startswith("*."))
        self._domains = tuple(sorted(host_name(name[2:]) for name in names if name.startswith("*.")))

    def __contains__(self, host: str) -> bool:
        """True for a host of the shop, normalised by `host_name`, with or without `www.`."""
        bare = host.removeprefix("www.")
        return host in self._exact or bare in self._exact or any(within(bare, domain) for domain in self._domains)


def traffic(page_url: str, referring: str, utm: pb.UtmParameters, site: SiteHosts) -> Traffic:
    """Returns the traffic source of a session. What campaign parameters lack is taken from the click id or the referrer.

    A medium is only added to its own source: a newsletter whose link carries a network's click id stays a newsletter.

    Args:
        page_url: URL of the page.
        referring: URL of the referring page.
        utm: campaign parameters that the client sent beside the URL.
        site: hosts of the shop itself.
    """
    query = _query(page_url)
    source = source_name(utm.source) or source_name(query.get("utm_source", ""))
    medium = campaign_name(utm.medium).lower() or campaign_name(query.get("utm_medium", "")).lower()
    campaign = campaign_name(utm.campaign) or campaign_name(query.get("utm_campaign", ""))
    content = campaign_name(utm.content) or campaign_name(query.get("utm_content", ""))
    clicked = next((of for parameter, of in CLICK_IDS.items() if query.get(parameter)), None)
    referral = _referral(*_host_and_path(referring), _host_and_path(page_url)[0], site)
    if not (source or medium or campaign):
        return Traffic(pb.CHANNEL_CAMPAIGN, *clicked) if clicked else referral
    for known, kind in filter(None, (clicked, (referral.source, referral.medium))):
        if known and source in ("", known):
            source, medium = known, medium or kind
    return Traffic(pb.CHANNEL_CAMPAIGN, source, medium, campaign, content)


@lru_cache(4096)
def _referral(host: str, path: str, own: str, site: SiteHosts) -> Traffic:
    if not host:
        return Traffic(pb.CHANNEL_DIRECT)
    bare = host.removeprefix("www.")
    if bare == own.removeprefix("www.") or host in site or is_payment(bare):
        return Traffic(pb.CHANNEL_INTERNAL)
    found = referrer(host, path)
    if found:
        return Traffic(_CHANNELS[found.medium], found.source, found.medium)
    return Traffic(pb.CHANNEL_REFERRAL, bare, "referral")


@lru_cache(4096)
def _query(url: str) -> dict[str, str]:
    """Returns the parameters of a URL by their names in lower case, the first of each; mail programs write `&amp;` for `&`."""
    try:
        query = urlsplit(url).query
        return {name.lower(): values[0] for name, values in reversed(parse_qs(unescape(query) if "&amp;" in query else query).items())}
    except ValueError:
        return {}


@lru_cache(4096)
def _host_and_path(url: str) -> tuple[str, str]:
    try:
        parts = urlsplit(url)
        return host_name(parts.hostname or ""), parts.path
    except ValueError:
        return "", ""
