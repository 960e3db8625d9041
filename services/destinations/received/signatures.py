"""Signatures over the raw body of a webhook, and tokens in the place of one. Pure.

All comparisons take the same time wherever the values differ. Messages name what is wrong, never a value.
"""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import Final

from pydantic import SecretStr

from kit.errors import Unauthenticated

TOLERANCE: Final = timedelta(seconds=300)
"""The largest difference between the time of a signature and now, in both directions, unless the sender needs more."""

_LARGEST_TIMESTAMP: Final = 10
"""Digits."""


def header(headers: Mapping[str, str], name: str) -> str:
    """Returns the value of a header.

    Raises:
        Unauthenticated: it is missing.
    """
    value = headers.get(name, "").strip()
    if not value:
        raise Unauthenticated(f"the header {name} is missing")
    return value


def check_time(at: datetime, now: datetime, name: str, *, oldest: timedelta = TOLERANCE) -> None:
    """Checks the time of a signature.

    Args:
        at: the time.
        now: the time of arrival.
        name: the header that states the time.
        oldest: the largest age.

    Raises:
        Unauthenticated: it is too old, so that the webhook may be a recorded one, or ahead of the mesh's clock.
    """
    if now - at > oldest:
        raise Unauthenticated(f"the time in {name} is more than {oldest.total_seconds():.0f} s ago")
    if at - now > TOLERANCE:
        raise Unauthenticated(f"the time in {name} is more than {TOLERANCE.total_seconds():.0f} s ahead")


def check_timestamped(secrets: Sequence[SecretStr], body: bytes, headers: Mapping[str, str], name: str, now: datetime) -> None:
    """Checks a header `t=<seconds>,v1=<hex>`: HMAC-SHA256 of `<seconds>.<body>`. Of several `v1`, one has to match.

    https://docs.stripe.com/webhooks#verify-manually

    Raises:
        Unauthenticated: the signature is missing, too old or wrong.
    """
    parts = [part.strip().partition("=") for part in header(headers, name).split(",")]
    times = [value for key, _, value in parts if key == "t"]
    if len(times) != 1 or not (times[0].isascii() and times[0].isdecimal() and len(times[0]) <= _LARGEST_TIMESTAMP):
        raise Unauthenticated(f"{name} has no time")
    expected = [_hmac(secret, f"{times[0]}.".encode() + body).hex() for secret in secrets]
    if not _any_equal(expected, [value for key, _, value in parts if key == "v1"]):
        raise Unauthenticated(f"{name} does not match the body")
    check_time(datetime.fromtimestamp(int(times[0]), UTC), now, name)


def check_base64(secrets: Sequence[SecretStr], body: bytes, headers: Mapping[str, str], name: str) -> None:
    """Checks a header that is the base64 of the HMAC-SHA256 of the body.

    Raises:
        Unauthenticated: the signature is missing or wrong.
    """
    stated = header(headers, name)
    if not _any_equal([b64encode(_hmac(secret, body)).decode() for secret in secrets], [stated]):
        raise Unauthenticated(f"{name} does not match the body")


def check_appended(secrets: Sequence[SecretStr], body: bytes, headers: Mapping[str, str], name: str, appended: str) -> None:
    """Checks a header that is the hex of the HMAC-SHA256 of the body with a text after it.

    Raises:
        Unauthenticated: the signature is missing or wrong.
    """
    stated = header(headers, name).lower()
    if not _any_equal([_hmac(secret, body + appended.encode()).hex() for secret in secrets], [stated]):
        raise Unauthenticated(f"{name} does not match the body")


def check_bearer(secrets: Sequence[SecretStr], headers: Mapping[str, str]) -> None:
    """Checks the header `authorization: Bearer <secret>` of a sender that signs nothing.

    Raises:
        Unauthenticated: the token is missing or another one.
    """
    scheme, _, token = header(headers, "authorization").partition(" ")
    if scheme.lower() != "bearer" or not _any_equal([secret.get_secret_value() for secret in secrets], [token.strip()]):
        raise Unauthenticated("the bearer token in authorization is another one")


def _hmac(secret: SecretStr, content: bytes) -> bytes:
    return hmac.digest(secret.get_secret_value().encode(), content, sha256)


def _any_equal(expected: Sequence[str], stated: Sequence[str]) -> bool:
    return any([hmac.compare_digest(one.encode(), other.encode()) for one in expected for other in stated])  # noqa: C419 (compares all)
