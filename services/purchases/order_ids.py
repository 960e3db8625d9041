"""Ids of orders: the shop's own number, the purchase id that follows from it, and the number in WordPress. Pure."""

from __future__ import annotations

from functools import lru_cache
from typing import Final
from uuid import UUID, uuid5

_NAMESPACE: Final = UUID("6f6d2f5c-9d0e-5b1a-8a53-3c1c1f8a7b10")
_NAME_BASED: Final = 5
"""Version of the UUIDs that are hashes of a name."""
_LARGEST_ID: Final = 2**63 - 1


@lru_cache(1024)
def purchase_id_of(site: str, order_id: str) -> str:
    """The purchase id of a shop's order, which is the same for every report. A site's name has no slash."""
    return str(uuid5(_NAMESPACE, f"{site}/{order_id}"))


def is_purchase_id(text: str) -> bool:
    """True for a purchase id: only shops' own numbers become orders."""
    try:
        return UUID(text).version == _NAME_BASED
    except ValueError:
        return False


def wordpress_order_id(order_id: str) -> int | None:
    """The order's number in WordPress; None for a shop's number that is not all digits."""
    return int(order_id) if order_id.isdecimal() and order_id.isascii() and int(order_id) <= _LARGEST_ID else None
