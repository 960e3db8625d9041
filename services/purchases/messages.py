"""Messages made of rows: an order as the topic publishes it, and as the rpcs return it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

import orjson
from google.protobuf.json_format import ParseDict
from pmp.ingestion.v1.event_pb2 import UtmParameters
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1 import purchases_pb2 as pb

from kit.people.keys.seals import BILLING_CONTEXT, VISITOR_CONTEXT, Decryptor
from kit.times import timestamp
from services.purchases.entries import lines_of
from services.purchases.money import exact, in_base
from services.purchases.records import EntryRecord, LineRecord, PurchaseRecord

TOPIC: Final = "purchases"
"""The topic that the service publishes, and the name of the service."""


def changed_message(row: PurchaseRecord, lines: Sequence[LineRecord], entries: Sequence[EntryRecord]) -> change_pb2.PurchaseChanged:
    """The order as it is published: its whole state."""
    message = change_pb2.PurchaseChanged(
        purchase_id=row.id,
        order_id=row.order_id,
        timestamp=timestamp(row.timestamp),
        paid_at=timestamp(row.paid_at),
        sold_at=timestamp(row.sold_at),
        payment_status=change_pb2.PaymentStatus.Value(f"PAYMENT_STATUS_{row.payment_status.upper()}"),
        user_id=row.user_id or "",
        session_id=row.session_id or "",
        email_hash=row.email_hash or b"",
        sealed_email=row.email or b"",
        sealed_billing=row.billing_data or b"",
        sealed_visitor=row.visitor or b"",
        subject=row.subject,
        currency=row.currency,
        amount=_text(row.amount, row.currency),
        paid_amount=_text(row.paid_amount, row.currency),
        refunded_amount=_text(row.refunded_amount, row.currency),
        base_currency=row.base_currency,
        base_net_amount=_text(row.base_net_amount, row.base_currency),
        lines=[
            change_pb2.PurchasedLine(
                product_id=line.product_id,
                product_name=line.product_name,
                product_type=line.product_type,
                quantity=line.quantity,
                amount=_text(line.amount, row.currency),
                course_ids=line.course_ids,
            )
            for line in lines
        ],
        excluded=row.is_test or row.is_staff,
        exclusions=[
            reason for reason, applies in ((change_pb2.EXCLUSION_TEST, row.is_test), (change_pb2.EXCLUSION_STAFF, row.is_staff)) if applies
        ],
        entries=[
            change_pb2.LedgerEntry(
                kind=change_pb2.EntryKind.Value(f"ENTRY_KIND_{entry.kind.upper()}"),
                reference=entry.reference,
                amount=_text(entry.amount, row.currency),
                base_amount=_text(entry.base_amount, row.base_currency),
                timestamp=timestamp(entry.timestamp),
                reason=change_pb2.EntryReason.Value(f"ENTRY_REASON_{(entry.reason or 'unspecified').upper()}"),
                historical=entry.historical,
                lines=[
                    change_pb2.RefundedLine(product_id=line.product_id, quantity=line.quantity, amount=_text(line.amount, row.currency))
                    for line in lines_of(entry.lines)
                ],
                booked_at=timestamp(entry.booked_at),
            )
            for entry in entries
        ],
        payment_method=row.payment_method or "",
        discount_total=_text(row.discount_total, row.currency),
        tax_total=_text(row.tax_total, row.currency),
        shipping_total=_text(row.shipping_total, row.currency),
        base_discount_total=_base_text(row.discount_total, row),
        base_tax_total=_base_text(row.tax_total, row),
        base_shipping_total=_base_text(row.shipping_total, row),
        coupon_codes=row.coupon_codes,
        country=row.country or "",
        referral_code=row.referral_code or "",
        historical=row.historical,
    )
    if row.utm_attribution:
        message.utm_attribution.CopyFrom(UtmParameters(**row.utm_attribution))
    return message


def recorded_message(
    row: PurchaseRecord, lines: Sequence[LineRecord], entries: Sequence[EntryRecord], person_id: str, decryptor: Decryptor | None = None
) -> pb.RecordedPurchase:
    """The order as the rpcs return it; with the billing address, and what describes the buyer's browser, only where a key opens them."""
    message = pb.RecordedPurchase(
        purchase_id=row.id,
        order_id=row.order_id,
        timestamp=timestamp(row.timestamp),
        paid_at=timestamp(row.paid_at),
        sold_at=timestamp(row.sold_at),
        payment_status=row.payment_status,
        user_id=row.user_id or "",
        person_id=person_id,
        session_id=row.session_id or "",
        currency=row.currency,
        amount=float(row.amount),
        paid_amount=float(row.paid_amount),
        refunded_amount=float(row.refunded_amount),
        base_currency=row.base_currency,
        base_net_amount=_number(row.base_net_amount),
        rate=_number(row.rate and row.rate.ratio),
        payment_method=row.payment_method or "",
        is_test=row.is_test,
        is_staff=row.is_staff,
        lines=[
            pb.PurchaseLine(
                product_id=line.product_id,
                product_name=line.product_name,
                product_type=line.product_type,
                quantity=line.quantity,
                amount=float(line.amount),
                course_ids=line.course_ids,
            )
            for line in lines
        ],
        entries=[
            pb.BookedEntry(
                kind=entry.kind,
                reference=entry.reference,
                amount=float(entry.amount),
                base_amount=_number(entry.base_amount),
                timestamp=timestamp(entry.timestamp),
                booked_at=timestamp(entry.booked_at),
                reason=entry.reason,
                historical=entry.historical,
                lines=[
                    pb.RefundLine(product_id=line.product_id, quantity=line.quantity, amount=float(line.amount))
                    for line in lines_of(entry.lines)
                ],
            )
            for entry in entries
        ],
        disputed=row.disputed,
        discount_total=_number(row.discount_total),
        tax_total=_number(row.tax_total),
        shipping_total=_number(row.shipping_total),
        coupon_codes=row.coupon_codes,
        country=row.country or "",
        referral_code=row.referral_code or "",
        historical=row.historical,
    )
    if row.utm_attribution:
        message.utm_attribution.CopyFrom(UtmParameters(**row.utm_attribution))
    if row.details:
        ParseDict(row.details, message.metadata)
    if decryptor is not None and (billing := decryptor.open(row.billing_data, context=BILLING_CONTEXT)):
        ParseDict(orjson.loads(billing), message.billing_address)
    if decryptor is not None and (visitor := decryptor.open(row.visitor, context=VISITOR_CONTEXT)):
        ParseDict({**(row.details or {}), **orjson.loads(visitor)}, message.metadata)
    return message


def _text(amount: Decimal | None, currency: str) -> str:
    return "" if amount is None else f"{exact(amount, currency):f}"


def _base_text(amount: Decimal | None, row: PurchaseRecord) -> str:
    """The amount in the base currency; empty without a rate."""
    return "" if amount is None or row.rate is None else f"{in_base(amount, row.rate, row.base_currency):f}"


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
