"""A shop's customers, orders and refunds, read from WooCommerce's REST API while they change.

Orders are read by the time of their last change, not by page numbers, which shift when an order changes. Times have whole seconds:
a page begins in the second of the last one, and what was seen of that second is left out.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from cli.errors import CommandFailed
from cli.importing.items import Item, Page, Reject, UnusableError
from cli.importing.shop_orders import LEFT_OUT, UNPAID, order_items
from cli.importing.woocommerce_client import PER_PAGE, WooCommerce
from cli.importing.woocommerce_records import STAFF_ROLES, Products, Staff, order_of, user_item

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
        await self._read_products()
        await self._read_staff()
        await self._count()
        state = dict(cursor)
        if not state.get("customers_done"):
            async for page in self._customers(state):
                state = dict(page.cursor)
                yield page
        async for page in self._orders(state):
            yield page

    async def _read_products(self) -> None:
        fields = "id,categories,meta_data"
        after = 0
        # By pages: a product that is deleted meanwhile costs at most the type of another one's lines.
        while records := await self._records("products", page=after + 1, orderby="id", order="asc", status="any", _fields=fields):
            after += 1
            for record in records:
                self._products.add(record)
            if len(records) < PER_PAGE:
                return

    async def _read_staff(self) -> None:
        for role in STAFF_ROLES:
            page = 1
            # A shop may have removed one of the roles.
            while listing := await self._shop.list("customers", role=role, page=page, orderby="id", order="asc", _fields="id,email"):
                for record in listing.records:
                    self._staff.add(record)
                if len(listing.records) < PER_PAGE:
                    break
                page += 1

    async def _count(self) -> None:
        for path, query in (("customers", {"role": "all"}), ("orders", {"status": "any"})):
            listing = await self._shop.list(path, **query, per_page=1, _fields="id")
            if listing is not None and listing.total is not None:
                self._totals[path] = listing.total

    async def _customers(self, state: dict[str, Any]) -> AsyncIterator[Page]:
        offset, seen = int(state.get("customers", 0)), set[int]()
        while True:
            records = await self._records("customers", role="all", orderby="id", order="asc", offset=offset)
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
            records = await self._records("orders", status="any", orderby="modified", order="asc", dates_are_gmt="true", page=page, **query)
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
        refunds = await self._refunds([record for record in records if record.get("refunds")])
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

    async def _refunds(self, orders: Sequence[_Record]) -> Mapping[int, Sequence[_Record]]:
        """The refunds of orders. WooCommerce 9.0 and later list those of several orders at once."""
        found: dict[int, list[_Record]] = defaultdict(list)
        ids = [int(refund["id"]) for order in orders for refund in order["refunds"]]
        for some in (ids[start : start + PER_PAGE] for start in range(0, len(ids), PER_PAGE)):
            listing = await self._shop.list("refunds", include=",".join(map(str, some)))
            if listing is None:
                return await self._refunds_by_order(orders)
            for record in listing.records:
                found[int(record["parent_id"])].append(record)
        return found

    async def _refunds_by_order(self, orders: Iterable[_Record]) -> Mapping[int, Sequence[_Record]]:
        return {int(order["id"]): await self._records(f"orders/{order['id']}/refunds") for order in orders}

    async def _records(self, path: str, **query: Any) -> Sequence[_Record]:
        listing = await self._shop.list(path, **query)
        if listing is None:
            raise CommandFailed(f"{self._shop.url} has no wp-json/wc/v3/{path}: is WooCommerce 5.8 or later active there?")
        return listing.records


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
