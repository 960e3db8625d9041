"""The orders of a WooCommerce shop without the plugin, as its REST API has them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

from pmp.purchases.v1.purchases_pb2 import Purchase

from cli.errors import CommandFailed
from cli.importing.items import UnusableError
from cli.importing.shop_orders import UNPLACED, ShopOrder, order_items, rfc3339
from cli.importing.woocommerce_client import PER_PAGE, WooCommerce
from cli.importing.woocommerce_reading import read_listing, read_products, read_refunds, read_staff
from cli.importing.woocommerce_records import Products, Staff, order_of
from cli.shop_reports import PLUGIN, WEBHOOKS, Read, Reports, order_of_report

_ANY: Final = "any"
_TRASH: Final = "trash"
"""The status of orders that `any` leaves out."""
_MONEY: Final = "id,status,currency,total,payment_method,date_created_gmt,date_paid_gmt,date_modified_gmt,refunds"
"""Fields that decide what an order amounts to."""
_SECOND: Final = timedelta(seconds=1)
_Record: TypeAlias = Mapping[str, Any]


class ApiOrders:
    """The orders of a shop. Close it when done."""

    def __init__(self, shop: WooCommerce) -> None:
        self._shop = shop
        self._known: tuple[Products, Staff] | None = None

    async def close(self) -> None:
        """Closes the connections."""
        await self._shop.close()

    def source(self, known: Collection[str]) -> str:
        """The source under which an order is reported: that which has reported it before, or that of the shop's webhooks."""
        return PLUGIN if PLUGIN in known else WEBHOOKS

    async def pages(self, since: datetime, until: datetime) -> AsyncIterator[Sequence[Purchase]]:
        """The orders that were placed from `since` on and before `until`, as far as they decide what an order amounts to.

        Raises:
            CommandFailed: the shop refuses or does not answer.
        """
        nothing = Products(), Staff()
        for status in (_ANY, _TRASH):
            async for records, read_at in self._placed(status, since, until):
                orders = [_order(record, *nothing) for record in records if _is_placed(record)]
                yield [order_of_report(_reports(order, read_at).purchase) for order in orders]

    async def _placed(self, status: str, since: datetime, until: datetime) -> AsyncIterator[tuple[Sequence[_Record], datetime]]:
        """Records by the time of the order, and not by page numbers, which shift when an order is deleted; with when they were read."""
        # The API compares with `later than`, and its times have whole seconds.
        after, last, page, seen = since.replace(microsecond=0) - _SECOND, "", 1, set[int]()
        query = {"status": status, "orderby": "date", "order": "asc", "dates_are_gmt": "true", "_fields": _MONEY, "before": _text(until)}
        while True:
            listing = await read_listing(self._shop, "orders", **query, after=_text(after), page=page)
            yield [record for record in listing.records if int(record["id"]) not in seen], listing.read_at
            if len(listing.records) < PER_PAGE:
                return
            newest = max(str(record["date_created_gmt"]) for record in listing.records)
            if newest > last:
                after, last, page, seen = datetime.fromisoformat(newest).replace(tzinfo=UTC) - _SECOND, newest, 1, set[int]()
            else:
                page += 1  # more than a page of one second
            seen |= {int(record["id"]) for record in listing.records if record["date_created_gmt"] == newest}

    async def read(self, order_ids: Collection[str]) -> Read:
        """The reports of orders as they are now.

        Raises:
            CommandFailed: the shop refuses or does not answer.
        """
        if self._known is None:
            self._known = await read_products(self._shop), await read_staff(self._shop)
        ids = sorted(int(each) for each in order_ids if each.isascii() and each.isdecimal())
        records, read_at = dict[int, _Record](), datetime.now(UTC)
        for some in (ids[start : start + PER_PAGE] for start in range(0, len(ids), PER_PAGE)):
            for status in (_ANY, _TRASH):
                listing = await read_listing(self._shop, "orders", status=status, include=",".join(map(str, some)))
                records |= {int(record["id"]): record for record in listing.records}
                read_at = min(read_at, listing.read_at)
            for missing in set(some) - records.keys():
                # A status of another plugin may be left out of lists: only this says that there is no such order.
                if (record := await self._shop.one(f"orders/{missing}")) is not None:
                    records[missing] = record
        placed = [record for record in records.values() if _is_placed(record)]
        refunds = await read_refunds(self._shop, [record for record in placed if record.get("refunds")])
        orders = [_order(record, *self._known, refunds.get(int(record["id"]), ())) for record in placed]
        return Read(rfc3339(read_at), {order.id: _reports(order, read_at) for order in orders})


def _is_placed(record: _Record) -> bool:
    return record["status"] == _TRASH or record["status"] not in UNPLACED


def _order(record: _Record, products: Products, staff: Staff, refunds: Sequence[_Record] | None = None) -> ShopOrder:
    """The order of a record; of its refunds only the sum where these are not given."""
    try:
        order = order_of(record, refunds or (), products, staff)
        return order if refunds is not None else replace(order, refunded_total=_refunded(record))
    except UnusableError as error:
        raise CommandFailed(f"order {record['id']} of the shop can't be compared: {error}") from error


def _refunded(record: _Record) -> float:
    return round(sum(abs(float(refund["total"])) for refund in record.get("refunds") or ()), 8)


def _reports(order: ShopOrder, read_at: datetime) -> Reports:
    """The reports of an order as of a time: of one in the trash those of a cancelled order, as the plugin makes them."""
    *refunds, purchase = order_items(replace(order, changed_at=read_at))
    trashed = {"payment_status": "cancelled", "reason": "trashed"} if order.status == _TRASH else {}
    return Reports({**purchase.body, **trashed}, [refund.body for refund in refunds])


def _text(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
