"""The certificates with which PayPal signs: fetched from PayPal alone, verified up to a trusted root, and kept.

The address of the certificate comes with the webhook, so whoever forges one would choose it: only PayPal's own hosts are called.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import Final
from urllib.parse import urlsplit

import certifi
import httpx
from cachetools import TTLCache
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from kit.errors import Unauthenticated, Unavailable

HOSTS: Final = frozenset({"api.paypal.com", "api.sandbox.paypal.com"})
"""Where PayPal publishes its certificates."""
NAME: Final = "messageverificationcerts.paypal.com"
"""The name of the certificate that signs webhooks."""

_SECONDS: Final = 5.0
_MOST_BYTES: Final = 65_536
_KEPT: Final = timedelta(hours=12)
_MOST_KEPT: Final = 16
_MOST_FETCHES: Final = 2
"""At once: whoever forges webhooks decides how many there are."""
_WAITS: Final = frozenset({408, 429})
"""Statuses of the 400s after which another attempt may succeed."""


class Certificates:
    """Fetches and verifies certificates.

    Args:
        hosts: where they may be fetched from, with the port if it is not 443.
        roots: a file of trusted roots in PEM, also of the hosts' own certificates; by default those of the web.
    """

    def __init__(self, hosts: Collection[str] = HOSTS, roots: Path | None = None) -> None:
        self._hosts = hosts
        self._roots = roots or Path(certifi.where())
        self._kept = TTLCache[str, Sequence[x509.Certificate], float](_MOST_KEPT, _KEPT.total_seconds(), monotonic)
        self._fetches = asyncio.Semaphore(_MOST_FETCHES)

    async def key(self, url: str, now: datetime) -> RSAPublicKey:
        """The public key of the certificate at an address.

        Raises:
            Unauthenticated: the address is not PayPal's, or there is no certificate that PayPal signs with.
            Unavailable: it can't be fetched now.
        """
        parts = urlsplit(url)
        if parts.scheme != "https" or parts.netloc not in self._hosts:
            raise Unauthenticated("paypal-cert-url is not an address of PayPal")
        chain = self._kept.get(url)
        if chain is None:
            async with self._fetches:
                chain = self._kept.get(url) or await self._fetched(url)
        leaf = self._verified(chain, now)
        self._kept[url] = chain
        key = leaf.public_key()
        if not isinstance(key, RSAPublicKey):
            raise Unauthenticated("the certificate at paypal-cert-url has another kind of key")
        return key

    async def _fetched(self, url: str) -> Sequence[x509.Certificate]:
        try:
            async with httpx.AsyncClient(timeout=_SECONDS, verify=self._context) as client, client.stream("GET", url) as response:
                response.raise_for_status()
                content = b""
                async for part in response.aiter_bytes():
                    content += part
                    if len(content) > _MOST_BYTES:
                        raise Unauthenticated("what is at paypal-cert-url is too large for a certificate")
        except httpx.HTTPError as error:
            if isinstance(error, httpx.HTTPStatusError) and error.response.is_client_error and error.response.status_code not in _WAITS:
                raise Unauthenticated("there is no certificate at paypal-cert-url") from None
            raise Unavailable(f"PayPal's certificate can't be fetched: {type(error).__name__}") from None
        try:
            return x509.load_pem_x509_certificates(content)
        except ValueError:
            raise Unauthenticated("what is at paypal-cert-url is no certificate") from None

    @cached_property
    def _context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self._roots))

    @cached_property
    def _store(self) -> Store:
        return Store(x509.load_pem_x509_certificates(self._roots.read_bytes()))

    def _verified(self, chain: Sequence[x509.Certificate], now: datetime) -> x509.Certificate:
        """Checks dates, name and chain; returns the first certificate."""
        verifier = PolicyBuilder().store(self._store).time(now).build_server_verifier(x509.DNSName(NAME))
        try:
            verifier.verify(chain[0], list(chain[1:]))
        except VerificationError:
            raise Unauthenticated("the certificate at paypal-cert-url is not valid for PayPal's webhooks") from None
        return chain[0]
