"""Orders of a CSV file, by a mapping. Pure, but for reading the file.

Several rows of one order, one for each of its products, follow each other.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from cli.importing.files import Read, Row, read_table
from cli.importing.items import UnusableError
from cli.importing.mapping import FileMapping
from cli.importing.shop_orders import LEFT_OUT, UNPAID, Buyer, ShopOrder, given, line, order_items
from cli.importing.values import amount, moment
from services.purchases.statuses import PAID, effective_status, parse_status

REQUIRED: Final = ("order_id", "placed_at", "amount")
LINE_ITEM: Final = re.compile(r"line_item_\d+")
"""A column with a line of the order, which is read without a mapping."""
_DEFAULT_STATUS: Final = "completed"
_DIGITS: Final = re.compile(r"#?(\d+)")


def read_orders(file: Path, mapping: FileMapping) -> Iterator[Read]:
    """The orders of a file.

    Raises:
        CommandFailed: it is no table.
    """
    for _, group in groupby(read_table(file), key=lambda row: mapping.cell(row.cells, "order_id") or row.line):
        rows = [*group]
        try:
            yield _read(rows, mapping)
        except UnusableError as error:
            yield Read(rows[-1].line, reject=str(error))


def _read(rows: Sequence[Row], mapping: FileMapping) -> Read:
    order = _order(rows, mapping)
    if order.status in LEFT_OUT or not order.is_sold:
        return Read(rows[-1].line, skipped=UNPAID)
    return Read(rows[-1].line, items=[*order_items(order)])


def _order(rows: Sequence[Row], mapping: FileMapping) -> ShopOrder:
    cells = rows[0].cells

    def cell(field: str) -> str:
        return mapping.cell(cells, field)

    def money(field: str) -> float | None:
        return amount(cell(field), mapping.decimal) if cell(field) else None

    id_, method = cell("order_id"), cell("payment_method")
    total, placed = money("amount"), cell("placed_at")
    if not id_ or total is None or not placed:
        raise UnusableError("the order has no number, no date or no amount")
    placed_at = moment(placed, mapping.zone, mapping.date_format)
    paid = cell("paid_at")
    paid_at = moment(paid, mapping.zone, mapping.date_format) if paid else None
    status = _status(cell("status"), mapping)
    if "paid_at" not in mapping.columns and _is_paid(status, method):
        paid_at = placed_at
    changed = cell("changed_at")
    return ShopOrder(
        id=plain_number(id_),
        placed_at=placed_at,
        status=status,
        amount=total,
        currency=cell("currency") or mapping.currency,
        paid_at=paid_at,
        changed_at=moment(changed, mapping.zone, mapping.date_format) if changed else None,
        payment_method=method,
        lines=[*_lines(rows, mapping)],
        discount=money("discount_total"),
        tax=money("tax_total"),
        shipping=money("shipping_total"),
        coupons=[code for code in re.split(r"[,;|]\s*", cell("coupon_codes")) if code],
        refunded_total=abs(money("refunded_total") or 0.0),
        buyer=_buyer(cells, mapping),
    )


def plain_number(number: str) -> str:
    """The number of an order as the plugin reports it: `#1016` is 1016."""
    digits = _DIGITS.fullmatch(number)
    return digits.group(1) if digits else number


def _status(word: str, mapping: FileMapping) -> str:
    """WooCommerce's word for a status."""
    known = {name.casefold(): status for name, status in mapping.statuses.items()}
    word = known.get(word.casefold(), word or _DEFAULT_STATUS)
    plain = word.strip().lower().removeprefix("wc-").replace(" ", "-")
    if parse_status(plain) is None:
        raise UnusableError("the status is no word of WooCommerce: name it under [statuses] in the mapping")
    return plain


def _is_paid(status: str, method: str) -> bool:
    """Whether an order of this status is paid, in a file without dates of payment."""
    known = parse_status(status)
    return known is not None and effective_status(known, status, method=method) in PAID


def _buyer(cells: Mapping[str, str], mapping: FileMapping) -> Buyer:
    user_id, country = mapping.cell(cells, "user_id"), mapping.cell(cells, "country")
    number = mapping.cell(cells, "order_number")
    billing = {name: mapping.cell(cells, name) for name in ("first_name", "last_name", "email")}
    is_code = re.fullmatch(r"[A-Za-z]{2}", country) is not None
    return Buyer(
        user_id=user_id if user_id.isdecimal() and int(user_id) else "",
        email=mapping.cell(cells, "email"),
        billing=given(**billing, country=country if is_code else ""),
        metadata=given(order_number=number if plain_number(number) != plain_number(mapping.cell(cells, "order_id")) else ""),
    )


def _lines(rows: Sequence[Row], mapping: FileMapping) -> Iterator[dict[str, Any]]:
    for row in rows:
        product, name = mapping.cell(row.cells, "product_id"), mapping.cell(row.cells, "product_name")
        if product or name:
            quantity, sold = mapping.cell(row.cells, "quantity"), mapping.cell(row.cells, "line_amount")
            total = sold or (mapping.cell(row.cells, "amount") if len(rows) == 1 else "0")
            kind = mapping.cell(row.cells, "product_type").lower()
            yield _line(mapping.decimal, product or name, name, quantity, total, product_type=kind)
        for column, value in row.cells.items():
            if LINE_ITEM.fullmatch(column) and ":" in value:
                parts: dict[str, str] = dict(part.split(":", 1) for part in value.split("|") if ":" in part)
                name = parts.get("name", "")
                yield _line(mapping.decimal, parts.get("product_id") or name, name, parts.get("quantity", ""), parts.get("total", "0"))


def _line(decimal: str, product: str, name: str, quantity: str, total: str, *, product_type: str = "") -> dict[str, Any]:
    return line(
        product_id=product,
        name=name,
        product_type=product_type if product_type in {"course", "guide", "membership"} else "other",
        quantity=amount(quantity, decimal) if quantity else 1,
        amount=amount(total, decimal),
    )
