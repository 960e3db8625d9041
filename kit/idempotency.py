"""The keys under which a repetition is known: a client's own id, in the key space of the client's class and of what it names.

Browsers choose ids that anybody can make up, and servers choose theirs: in one space, a visitor could take an id before the shop uses
it. A space other than that of a server's events has marks, which no id may contain.
"""

from __future__ import annotations

from typing import Final

_BROWSER: Final = "~"
_BESIDE: Final = "+"
_DIGEST: Final = 16
KEY_LENGTH: Final = 256
"""Characters of the longest key of an event: an id of 255, and a mark."""


def key_of(id_: str, *, from_browser: bool, beside: bool = False) -> str:
    """The key of a client's id.

    Args:
        id_: the client's.
        from_browser: a browser chose it.
        beside: what it names shares a table with events, and is none.
    """
    key = _BROWSER + id_ if from_browser else id_
    return _BESIDE + key if beside else key


def id_of(key: str) -> str:
    """The client's id, as the client may see it."""
    return key.lstrip(_BROWSER + _BESIDE)


def is_browsers(key: str) -> bool:
    """True when the key of an event is one that a browser chose."""
    return key.startswith(_BROWSER)


def versioned(digest: bytes, *versions: int) -> bytes:
    """A content's hash that says by which versions of what it was made. Two of different versions have nothing to compare."""
    return bytes(versions) + digest


def may_be_same(one: bytes, other: bytes) -> bool:
    """Whether two contents may be the same, by their hashes: unless hashes of the same versions differ."""
    return one == other or _versions(one) != _versions(other)


def is_versioned(content_hash: bytes) -> bool:
    """False for a hash from before there were versions, and two key spaces."""
    return len(content_hash) > _DIGEST


def _versions(content_hash: bytes) -> bytes:
    return content_hash[:-_DIGEST]
