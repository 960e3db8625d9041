"""A shop's customers, orders and refunds, read from WooCommerce's REST API while they change.

Orders are read by the time of their last change, not by page numbers, which shift when an order changes. Times have whole seconds:
a page begins in the second of the last one, and what was seen of that second is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cli.importing.items import Item, Page, Reject, UnusableError
from cli.importing.shop_orders import LEFT_OUT, UNPAID, order_items
from cli.importing.woocommerce_client import PER_PAGE, WooCommerce
from cli.importing.woocommerce_reading import read_products, read_records, read_refunds, read_staff
from cli.importing.woocommerce_records import Products, Staff, order_of, user_item

_OVERLAP: Final = 10
"""Customers of a page that are read again: as many may be deleted meanwhile and none is missed."""
_SECOND: Final = timedelta(seconds=1)
_Record = Mapping[str, Any]


class ShopApi:
    """A shop as a source."""

    unit = "records"

    def __init__(self, shop: WooCommerce) -> None:
        self._shop = shop
        self._products, self._staff = Products(), Staff()
        self._totals: dict[str, int] = {}

    @property
    def name(self) -> str:
        """Names the shop in the data folder."""
        return f"woocommerce-{self._shop.url.partition('://')[2]}"

    @property
    def title(self) -> str:
        """Names the shop to a person."""
        return f"the WooCommerce shop {self._shop.url}"

    @property
    def total(self) -> int | None:
        """Customers and orders, as far as they are counted."""
        return sum(self._totals.values()) if len(self._totals) == 2 else None  # noqa: PLR2004 (customers and orders)

    async def pages(self, cursor: Mapping[str, Any]) -> AsyncIterator[Page]:
        """Customers, then orders with their refunds, oldest change first.

        Raises:
            CommandFailed: the shop refuses or does not answer.
        """
        self._products, self._staff = await read_products(self._shop), await read_staff(self._shop)
        await self._count()
        state = dict(cursor)
        if not state.get("customers_done"):
            async for page in self._customers(state):
                state = dict(page.cursor)
                yield page
        async for page in self._orders(state):
            yield page

    async def _count(self) -> None:
        for path, query in (("customers", {"role": "all"}), ("orders", {"status": "any"})):
            listing = await self._shop.list(path, **query, per_page=1, _fields="id")
            if listing is not None and listing.total is not None:
                self._totals[path] = listing.total

    async def _customers(self, state: dict[str, Any]) -> AsyncIterator[Page]:
        offset, seen = int(state.get("customers", 0)), set[int]()
        while True:
            records = await read_records(self._shop, "customers", role="all", orderby="id", order="asc", offset=offset)
            new = [record for record in records if record["id"] not in seen]
            seen = {record["id"] for record in records}
            offset += max(len(records) - _OVERLAP, 0)
            is_last = len(records) < PER_PAGE
            yield _users_page(new, self._staff, {**state, "customers": offset, "customers_done": is_last})
            if is_last:
                return

    async def _orders(self, state: dict[str, Any]) -> AsyncIterator[Page]:
        last, page = str(state.get("orders", "")), 1
        seen = {(int(id_), str(at)) for id_, at in state.get("seen", ())}
        while True:
            query = {"modified_after": _second_before(last)} if last else {}
            records = await read_records(
                self._shop, "orders", status="any", orderby="modified", order="asc", dates_are_gmt="true", page=page, **query
            )
            new = [record for record in records if _version(record) not in seen]
            newest = max((str(record["date_modified_gmt"]) for record in records), default=last)
            if newest > last:
                page, seen = 1, set[tuple[int, str]]()
            else:
                page += 1  # more than a page of one second
            last = newest
            seen |= {_version(record) for record in records if record["date_modified_gmt"] == last}
            # Once everything was read, the next import reads the customers again: the API can't select new ones.
            is_last = len(records) < PER_PAGE
            done = {} if is_last else {"customers_done": True}
            yield await self._orders_page(new, {"orders": last, "seen": sorted(seen), **done})
            if is_last:
                return

    async def _orders_page(self, records: Sequence[_Record], cursor: Mapping[str, Any]) -> Page:
        refunds = await read_refunds(self._shop, [record for record in records if record.get("refunds")])
        items, rejects, skipped = list[Item](), list[Reject](), Counter[str]()
        for record in records:
            try:
                order = order_of(record, refunds.get(int(record["id"]), ()), self._products, self._staff)
            except UnusableError as error:
                rejects.append(Reject(f"order {record['id']}", str(error)))
                continue
            if order.status in LEFT_OUT or not order.is_sold:
                skipped[UNPAID] += 1
            else:
                items += order_items(order)
        return Page(cursor, items, rejects, skipped, len(records))


def _users_page(records: Sequence[_Record], staff: Staff, cursor: Mapping[str, Any]) -> Page:
    items, rejects, skipped = list[Item](), list[Reject](), Counter[str]()
    for record in records:
        if int(record["id"]) in staff.ids:
            skipped["staff"] += 1
            continue
        try:
            items.append(user_item(record))
        except UnusableError as error:
            rejects.append(Reject(f"user {record['id']}", str(error)))
    return Page(cursor, items, rejects, skipped, len(records))


def _version(record: _Record) -> tuple[int, str]:
    return int(record["id"]), str(record["date_modified_gmt"])


def _second_before(at: str) -> str:
    """The API compares with `later than`."""
    return (datetime.fromisoformat(at).replace(tzinfo=UTC) - _SECOND).strftime("%Y-%m-%dT%H:%M:%S")
