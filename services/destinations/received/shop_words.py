"""What WooCommerce means by the fields of its orders, wherever its REST API is read: by webhooks and by imports. Pure.

https://woocommerce.github.io/woocommerce-rest-api-docs/#order-properties
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

STATUSES: Final = frozenset({"pending", "processing", "on-hold", "completed", "cancelled", "refunded", "failed"})
"""WooCommerce's own statuses, without `wc-`; plugins add others."""
UNPLACED: Final = frozenset({"checkout-draft", "auto-draft", "draft", "new"})
"""Statuses of a draft of the checkout or of the shop's staff."""

_NOBODY: Final = "@site.invalid"
"""End of the address that WooCommerce gives to an anonymised buyer."""
_ATTRIBUTION: Final = "_wc_order_attribution_"
UTM: Final = ("source", "medium", "campaign", "term", "content")
"""The parts of a campaign."""


def is_anonymised(email: str, meta: Mapping[str, Any]) -> bool:
    """True once the shop has erased the buyer: only the sale is left.

    Args:
        email: the buyer's address.
        meta: the order's metadata by key.
    """
    return email.endswith(_NOBODY) or meta.get("_anonymized") == "yes"


def campaign(meta: Mapping[str, Any]) -> dict[str, str]:
    """The campaign to which WooCommerce attributes an order. For other types of sources its fields hold words of its own."""
    if meta.get(f"{_ATTRIBUTION}source_type") != "utm":
        return {}
    values = {name: meta.get(f"{_ATTRIBUTION}utm_{name}") for name in UTM}
    return {name: value for name, value in values.items() if isinstance(value, str) and value}


def product_of(variation: object, product: object, line: object) -> str:
    """The product of a line by its ids, as the plugin names it: a product that is gone has the line's own id. Empty for none."""
    return str(variation or product or line or "")
