"""The orders as an export."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, NamedTuple

import orjson
from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.exports import Export, rows
from services.purchases.models import LineRow, PurchaseRow
from services.purchases.money import exact


class ExportedOrder(NamedTuple):
    """An order that was placed in the period, in its current state."""

    purchase_id: str
    order_id: str
    timestamp: datetime
    paid_at: datetime | None
    sold_at: datetime | None
    payment_status: str
    payment_method: str | None
    user_id: str | None
    session_id: str | None
    currency: str
    amount: Decimal
    paid_amount: Decimal
    refunded_amount: Decimal
    base_currency: str
    base_net_amount: Decimal | None
    utm_source: str | None
    utm_medium: str | None
    utm_campaign: str | None
    lines: str
    """JSON: a list of objects with product_id, product_name, product_type, quantity and amount, which is a text."""
    is_test: bool
    is_staff: bool
    disputed: bool
    discount_total: Decimal | None
    tax_total: Decimal | None
    shipping_total: Decimal | None
    coupon_codes: str
    """JSON: a list of texts."""
    country: str | None
    referral_code: str | None


_LINE: Final = ("product_id", "product_name", "product_type", "quantity", "amount")
_QUERY: Final = (
    select(PurchaseRow.__table__, *(column.label(f"line_{column.name}") for column in LineRow.__table__.c if column.name in _LINE))
    .join(LineRow, LineRow.purchase_id == PurchaseRow.id, isouter=True)
    .order_by(PurchaseRow.timestamp, PurchaseRow.id, LineRow.number)
)


async def _orders(session: AsyncSession, since: datetime, until: datetime) -> AsyncIterator[ExportedOrder]:
    # An order without a currency is unknown so far: only what happened to it was reported.
    query = _QUERY.where(PurchaseRow.timestamp >= since, PurchaseRow.timestamp < until, PurchaseRow.currency != "")
    lines: list[Any] = []
    async for row in rows(session, query):
        if lines and lines[0].id != row.id:
            yield _exported(lines)
            lines = []
        lines.append(row)
    if lines:
        yield _exported(lines)


def _exported(lines: Sequence[Any]) -> ExportedOrder:
    order = lines[0]
    utm: dict[str, str] = order.utm_attribution or {}
    return ExportedOrder(
        purchase_id=order.id,
        order_id=order.order_id,
        timestamp=order.timestamp,
        paid_at=order.paid_at,
        sold_at=order.sold_at,
        payment_status=order.payment_status,
        payment_method=order.payment_method,
        user_id=order.user_id,
        session_id=order.session_id,
        currency=order.currency,
        amount=order.amount,
        paid_amount=order.paid_amount,
        refunded_amount=order.refunded_amount,
        base_currency=order.base_currency,
        base_net_amount=order.base_net_amount,
        utm_source=utm.get("source"),
        utm_medium=utm.get("medium"),
        utm_campaign=utm.get("campaign"),
        lines=orjson.dumps([_line(row) for row in lines if row.line_product_id is not None]).decode(),
        is_test=order.is_test,
        is_staff=order.is_staff,
        disputed=order.disputed,
        discount_total=order.discount_total,
        tax_total=order.tax_total,
        shipping_total=order.shipping_total,
        coupon_codes=orjson.dumps(order.coupon_codes or []).decode(),
        country=order.country,
        referral_code=order.referral_code,
    )


def _line(row: Any) -> dict[str, Any]:
    line = {name: getattr(row, f"line_{name}") for name in _LINE}
    return {**line, "amount": f"{exact(line['amount'], row.currency):f}"}


EXPORTS: Final = {"orders": Export(ExportedOrder, _orders)}
