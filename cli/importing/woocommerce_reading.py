"""What orders of WooCommerce's REST API are read with: products, the shop's own people, and refunds."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypeAlias

from cli.errors import CommandFailed
from cli.importing.woocommerce_client import PER_PAGE, Listing, WooCommerce
from cli.importing.woocommerce_records import STAFF_ROLES, Products, Staff

_Record: TypeAlias = Mapping[str, Any]


async def read_listing(shop: WooCommerce, path: str, **query: Any) -> Listing:
    """A page of a collection that every shop has.

    Raises:
        CommandFailed: the shop has none, refuses or does not answer.
    """
    listing = await shop.list(path, **query)
    if listing is None:
        raise CommandFailed(f"{shop.url} has no wp-json/wc/v3/{path}: is WooCommerce 5.8 or later active there?")
    return listing


async def read_records(shop: WooCommerce, path: str, **query: Any) -> Sequence[_Record]:
    """The records of such a page."""
    return (await read_listing(shop, path, **query)).records


async def read_products(shop: WooCommerce) -> Products:
    """The types and courses of all products."""
    found, page = Products(), 1
    # By pages: a product that is deleted meanwhile costs at most the type of another one's lines.
    while True:
        fields = "id,categories,meta_data"
        records = await read_records(shop, "products", page=page, orderby="id", order="asc", status="any", _fields=fields)
        for record in records:
            found.add(record)
        if len(records) < PER_PAGE:
            return found
        page += 1


async def read_staff(shop: WooCommerce) -> Staff:
    """The shop's own people."""
    found = Staff()
    for role in STAFF_ROLES:
        page = 1
        # A shop may have removed one of the roles.
        while listing := await shop.list("customers", role=role, page=page, orderby="id", order="asc", _fields="id,email"):
            for record in listing.records:
                found.add(record)
            if len(listing.records) < PER_PAGE:
                break
            page += 1
    return found


async def read_refunds(shop: WooCommerce, orders: Sequence[_Record]) -> Mapping[int, Sequence[_Record]]:
    """The refunds of orders, by the order's id. WooCommerce 9.0 and later list those of several orders at once."""
    found: dict[int, list[_Record]] = defaultdict(list)
    ids = [int(refund["id"]) for order in orders for refund in order["refunds"]]
    for some in (ids[start : start + PER_PAGE] for start in range(0, len(ids), PER_PAGE)):
        listing = await shop.list("refunds", include=",".join(map(str, some)))
        if listing is None:
            return await _refunds_by_order(shop, orders)
        for record in listing.records:
            found[int(record["parent_id"])].append(record)
    return found


async def _refunds_by_order(shop: WooCommerce, orders: Iterable[_Record]) -> Mapping[int, Sequence[_Record]]:
    return {int(order["id"]): await read_records(shop, f"orders/{order['id']}/refunds") for order in orders}
