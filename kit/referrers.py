"""Traffic sources: which source a referring host or a campaign's `utm_source` stands for.

The hosts are in `referrers.json`, generated from the list that Ghost maintains (`make referrers`); additions and differences to
that list are here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from html import unescape
from importlib.resources import files
from re import compile as pattern
from typing import Final, NamedTuple

import idna

_MACRO: Final = pattern(r"\{\{?[^{}]*\}?\}|\[\[?[^\]]*\]\]?|%%[^%]*%%|\$\{?\w+\}?|__\w+__|\(not[ _]set\)|undefined|null")
"""A placeholder that an advertising tool should have filled in."""

# Domains of networks: every host below them is the network's, as de.linkedin.com is.
_NETWORKS: Final = {
    "bsky.app": "bluesky",
    "facebook.com": "facebook",
    "fb.com": "facebook",
    "instagram.com": "instagram",
    "linkedin.com": "linkedin",
    "messenger.com": "facebook",
    "pinterest.at": "pinterest",
    "pinterest.ca": "pinterest",
    "pinterest.ch": "pinterest",
    "pinterest.co.uk": "pinterest",
    "pinterest.com": "pinterest",
    "pinterest.com.au": "pinterest",
    "pinterest.de": "pinterest",
    "pinterest.es": "pinterest",
    "pinterest.fr": "pinterest",
    "pinterest.it": "pinterest",
    "quora.com": "quora",
    "reddit.com": "reddit",
    "snapchat.com": "snapchat",
    "t.me": "telegram",
    "telegram.org": "telegram",
    "threads.com": "threads",
    "threads.net": "threads",
    "tiktok.com": "tiktok",
    "tumblr.com": "tumblr",
    "twitter.com": "x",
    "vk.com": "vk",
    "wa.me": "whatsapp",
    "whatsapp.com": "whatsapp",
    "x.com": "x",
    "xing.com": "xing",
    "youtu.be": "youtube",
    "youtube.com": "youtube",
}
# Hosts, and the applications that Android names as `android-app://com.google.android.gm/`.
_HOSTS: Final[Mapping[str, Mapping[str, tuple[str, ...]]]] = {
    "search": {
        "bing": ("cn.bing.com", "com.microsoft.bing"),
        "brave": ("search.brave.com",),
        "duckduckgo": ("duckduckgo.com", "html.duckduckgo.com", "lite.duckduckgo.com", "com.duckduckgo.mobile.android"),
        "ecosia": ("ecosia.org",),
        "google": ("com.google.android.googlequicksearchbox", "google.com"),
        "kagi": ("kagi.com",),
        "mojeek": ("mojeek.com",),
        "perplexity": ("perplexity.ai", "ai.perplexity.app.android"),
        "qwant": ("lite.qwant.com", "qwant.com"),
        "startpage": ("startpage.com", "eu.startpage.com", "us.startpage.com"),
        "swisscows": ("swisscows.com",),
        "yahoo": ("search.yahoo.com",),
    },
    "email": {
        "gmail": ("com.google.android.gm", "mail.google.com"),
        "gmx": ("deref-gmx.com", "deref-gmx.net", "mail.gmx.com", "mail.gmx.net", "navigator.gmx.net"),
        "icloud": ("icloud.com",),
        "outlook": ("com.microsoft.office.outlook", "outlook.office.com", "outlook.office365.com"),
        "proton": ("mail.proton.me",),
        "t-online": ("email.t-online.de",),
        "web.de": ("deref-web.de", "mail.web.de", "navigator.web.de"),
        "yahoo-mail": ("com.yahoo.mobile.client.android.mail",),
    },
    "social": {
        "facebook": ("com.facebook.katana", "com.facebook.orca"),
        "instagram": ("com.instagram.android",),
        "linkedin": ("com.linkedin.android", "lnkd.in"),
        "pinterest": ("com.pinterest", "pin.it"),
        "reddit": ("com.reddit.frontpage", "redd.it"),
        "telegram": ("org.telegram.messenger",),
        "tiktok": ("com.zhiliaoapp.musically",),
        "whatsapp": ("com.whatsapp",),
        "x": ("com.twitter.android", "t.co"),
        "youtube": ("com.google.android.youtube",),
    },
}
# Abbreviations that the networks' own tools use: Meta fills in `fb` and `ig`.
_SHORT: Final = {"fb": "facebook", "ig": "instagram", "insta": "instagram", "li": "linkedin", "tw": "x", "twitter": "x", "yt": "youtube"}

# Buyers return from these hosts, which are never traffic sources.
# fmt: off
_PAYMENT: Final = frozenset({
    "2checkout.com", "adyen.com", "affirm.com", "afterpay.com", "amazonpay.com", "authorize.net", "braintreegateway.com",
    "cardinalcommerce.com", "clearpay.co.uk", "computop-paygate.com", "giropay.de", "gocardless.com", "klarna.com", "klarnapayments.com",
    "mercadopago.com", "mollie.com", "paddle.com", "pay.amazon.co.uk", "pay.amazon.com", "pay.amazon.de", "pay.google.com",
    "paydirekt.de", "payments.amazon.com", "payone.com", "paypal.com", "payu.com", "payu.in", "przelewy24.pl", "razorpay.com",
    "saferpay.com", "sagepay.com", "secure.checkout.visa.com", "sofort.com", "squareup.com", "stripe.com", "stripe.network", "unzer.com",
    "verifone.cloud", "worldpay.com",
})
# fmt: on


class Referrer(NamedTuple):
    """A known traffic source."""

    medium: str
    """search, email or social."""
    source: str
    """Its name in reports, in lower case."""


@lru_cache(4096)
def host_name(host: str) -> str:
    """Normalises a host for comparison: in lower case, without a trailing dot, an internationalised name in ASCII."""
    plain = host.strip().lower().rstrip(".")
    if plain.isascii():
        return plain
    try:
        return idna.encode(plain, uts46=True).decode()
    except idna.IDNAError:
        return plain


@lru_cache(4096)
def referrer(host: str, path: str = "") -> Referrer | None:
    """Returns the source of a referring page, by its exact host or by the domain of a network; None for any other site.

    Args:
        host: normalised by `host_name`.
        path: of the page's URL; some portals have their mail under a path.
    """
    bare = host.removeprefix("www.")
    first = path.lstrip("/").partition("/")[0]
    known = _known()
    found = known.get(f"{bare}/{first}") or known.get(bare)
    if found:
        return found
    network = next((name for domain, name in _NETWORKS.items() if within(bare, domain)), "")
    return Referrer("social", network) if network else None


@lru_cache(4096)
def is_payment(host: str) -> bool:
    """True for a payment provider's host, which buyers return from and which is no traffic source."""
    return any(within(host, domain) for domain in _PAYMENT)


def within(host: str, domain: str) -> bool:
    """True for the domain itself and for every host below it."""
    return host == domain or host.endswith("." + domain)


@lru_cache(8192)
def campaign_name(text: str) -> str:
    """Normalises a campaign's parameter: without surrounding blanks; empty for an unfilled placeholder."""
    name = " ".join(unescape(text).split())
    return "" if _MACRO.fullmatch(name.lower()) else name


@lru_cache(8192)
def source_name(text: str) -> str:
    """Returns the source of a `utm_source`, in lower case: `LinkedIn`, `linkedin` and `www.linkedin.com` are one."""
    name = campaign_name(text).lower()
    if "." in name and " " not in name:
        host = host_name(name.partition("://")[2] or name).partition("/")[0]
        found = referrer(host)
        return found.source if found else host.removeprefix("www.")
    return _SHORT.get(name, name)


@cache
def _known() -> Mapping[str, Referrer]:
    return {host: referred for hosts in (_listed(), _HOSTS) for host, referred in _by_host(hosts)}


def _listed() -> Mapping[str, Mapping[str, tuple[str, ...]]]:
    return json.loads((files("kit") / "referrers.json").read_text())


def _by_host(mediums: Mapping[str, Mapping[str, tuple[str, ...]]]) -> Iterator[tuple[str, Referrer]]:
    for medium, sources in mediums.items():
        for source, hosts in sources.items():
            for host in hosts:
                yield host, Referrer(medium, source)
