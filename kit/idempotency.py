"""Idempotency keys: a client's own id, in the key space of the client's class and of what the id stands for.

Anyone can make up the ids that browsers send: in one space with those of servers, a visitor could take an id before the shop uses it.
Any space other than that of a server's events has marks, which no id may contain.
"""

from __future__ import annotations

from typing import Final

_BROWSER: Final = "~"
_BESIDE: Final = "+"
_DIGEST: Final = 16
KEY_LENGTH: Final = 256
"""Length of the longest key of an event: an id of 255 characters, and a mark."""


def key_of(id_: str, *, from_browser: bool, beside: bool = False) -> str:
    """Returns the idempotency key of a client's id.

    Args:
        id_: the client's id.
        from_browser: whether a browser chose it.
        beside: whether it is the id of something that shares a table with events.
    """
    key = _BROWSER + id_ if from_browser else id_
    return _BESIDE + key if beside else key


def id_of(key: str) -> str:
    """Returns the client's id of a key, as the client may see it."""
    return key.lstrip(_BROWSER + _BESIDE)


def is_browsers(key: str) -> bool:
    """Returns True for the key of an event whose id a browser chose."""
    return key.startswith(_BROWSER)


def versioned(digest: bytes, *versions: int) -> bytes:
    """Returns a content hash with the versions of how it was made. Hashes of different versions can't be compared."""
    return bytes(versions) + digest


def may_be_same(one: bytes, other: bytes) -> bool:
    """Returns False only when two content hashes of the same versions differ."""
    return one == other or _versions(one) != _versions(other)


def is_versioned(content_hash: bytes) -> bool:
    """Returns False for a hash from before versions and key spaces were introduced."""
    return len(content_hash) > _DIGEST


def _versions(content_hash: bytes) -> bytes:
    return content_hash[:-_DIGEST]
