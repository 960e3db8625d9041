"""Payments of Stripe, as its dashboard exports them. Pure, but for reading the file.

Stripe is another source than the shop: its report makes an order known and paid, and reverses nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import UTC
from pathlib import Path
from typing import Final

from cli.errors import CommandFailed
from cli.importing.files import Read, read_header, read_table
from cli.importing.items import Item, Kind, UnusableError
from cli.importing.orders_file import plain_number
from cli.importing.shop_orders import given, rfc3339, text
from cli.importing.values import amount, moment

SOURCE: Final = "stripe"
UNPAID: Final = "not paid"
_CREATED: Final = ("Created date (UTC)", "Created (UTC)", "Created")
_REFUNDED_AT: Final = ("Refunded date (UTC)",)
_ORDER: Final = ("order_id (metadata)", "order_number (metadata)", "Order ID (metadata)")
_EMAIL: Final = ("Customer Email", "customer_email (metadata)")
_PAID: Final = frozenset({"paid", "succeeded", "refunded", "partially refunded", "partial refund", "disputed"})


def read_payments(file: Path) -> Iterator[Read]:
    """The payments of a file.

    Raises:
        CommandFailed: it is no export of Stripe's payments.
    """
    header = read_header(file)
    if "id" not in header or "Amount" not in header or not {*_CREATED} & {*header}:
        raise CommandFailed(f"{file} is no export of payments by Stripe: it needs the columns id, Amount and {_CREATED[0]}")
    for row in read_table(file):
        try:
            items = [*_items(row.cells)]
        except UnusableError as error:
            yield Read(row.line, reject=str(error))
        else:
            yield Read(row.line, items=items, skipped="" if items else UNPAID)


def _items(cells: Mapping[str, str]) -> Iterator[Item]:
    id_, created = cells.get("id", ""), _first(cells, _CREATED)
    if not id_ or not created or not cells.get("Amount"):
        raise UnusableError("the payment has no id, no date or no amount")
    if cells.get("Status", "").lower() not in _PAID or cells.get("Captured", "true").lower() == "false":
        return
    paid_at, refunded = moment(created, UTC), abs(amount(cells.get("Amount Refunded") or "0"))
    shops = plain_number(_first(cells, _ORDER))
    order_id = shops or f"stripe:{id_}"
    origin = f"payment {id_}"
    if refunded:
        at = _first(cells, _REFUNDED_AT)
        body = given(
            reference=f"{id_}-refunded",
            amount=refunded,
            refunded_total=refunded,
            timestamp=rfc3339(moment(at, UTC) if at else paid_at),
            source=SOURCE,
            historical=True,
        )
        yield Item(Kind.REFUNDS, f"refund of {origin}", body, order_id)
    # What the shop knows of its own order is not added to.
    metadata = {} if shops else given(description=text(cells.get("Description", ""), 255))
    yield Item(Kind.PURCHASES, origin, {**_purchase(cells, id_, order_id, rfc3339(paid_at)), **given(metadata=metadata)})


def _purchase(cells: Mapping[str, str], id_: str, order_id: str, paid_at: str) -> dict[str, object]:
    email = _first(cells, _EMAIL)
    return given(
        id=id_,
        timestamp=paid_at,
        paid_at=paid_at,
        order_id=order_id,
        amount=amount(cells["Amount"]),
        currency=cells.get("Currency", "").upper(),
        payment_method="stripe",
        payment_status="completed",
        email=email,
        # Without a buyer, the report is dated: the contract wants one of the two.
        reported_at=None if email else paid_at,
        source=SOURCE,
        historical=True,
    )


def _first(cells: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((cells[name] for name in names if cells.get(name)), "")
