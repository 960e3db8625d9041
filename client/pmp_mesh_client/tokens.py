"""Tokens: what a caller may do, signed with the secret that it shares with the gateway."""

from __future__ import annotations

import time
from collections.abc import Callable
from enum import StrEnum
from typing import Final

import jwt

ISSUER: Final = "pmp-wordpress-integration"
"""The issuer that the gateway requires of a token."""
TOKEN_SECONDS: Final = 3600
"""Lifetime of a token: the longest the gateway accepts."""
_RENEWABLE_SECONDS: Final = 1800
"""Lifetime of a token that is renewed. Half of the longest, so that a clock ahead of the gateway's does no harm."""
_LEFT_SECONDS: Final = 600
"""A token with less time left is renewed."""


class Scope(StrEnum):
    """What a token allows: `site` includes `track`; `admin` includes `site` and `read`."""

    TRACK = "track"
    SITE = "site"
    READ = "read"
    ADMIN = "admin"


def mint(secret: str, scope: Scope, user: str | None, now: int, seconds: int = TOKEN_SECONDS) -> str:
    """A signed token.

    Args:
        secret: one of the gateway's `PMP_JWT_SECRETS`.
        scope: what it allows.
        user: the user for whom it is issued; None for a token without the claim `id`.
        now: when it is issued, in seconds since 1970.
        seconds: how long it is valid, an hour at most.
    """
    claims: dict[str, str | int] = {"iss": ISSUER, "scope": scope.value, "iat": now, "exp": now + seconds}
    if user is not None:
        claims["id"] = user
    return jwt.encode(claims, secret, algorithm="HS256")


class MintedToken:
    """A token that renews itself: calling it returns one that is valid for ten more minutes at least.

    Args:
        secret: one of the gateway's `PMP_JWT_SECRETS`.
        scope: what the token allows.
        user: the user for whom it is issued, if any.
        clock: returns the time in seconds since 1970.
    """

    def __init__(self, secret: str, scope: Scope, user: str | None = None, clock: Callable[[], float] = time.time) -> None:
        self._secret = secret
        self._scope = scope
        self._user = user
        self._clock = clock
        self._minted = ("", 0)

    def __call__(self) -> str:
        """Returns the token."""
        token, expires = self._minted
        now = int(self._clock())
        if expires - now < _LEFT_SECONDS:
            token = mint(self._secret, self._scope, self._user, now, _RENEWABLE_SECONDS)
            self._minted = (token, now + _RENEWABLE_SECONDS)
        return token
