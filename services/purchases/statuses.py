"""Statuses of an order, reasons for corrections, and the words of shops and payment providers for them. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Final


class Status(StrEnum):
    """The payment status of an order, as named in the contract."""

    PENDING = "pending"
    COMPLETED = "completed"
    FAILED = "failed"
    REFUNDED = "refunded"
    PARTIALLY_REFUNDED = "partially_refunded"
    CHARGED_BACK = "charged_back"


class Reason(StrEnum):
    """The reason for a correction of the ledger, as named in the contract."""

    CANCELLED = "cancelled"
    FAILED = "failed"
    BOUNCED = "bounced"
    TRASHED = "trashed"
    DELETED = "deleted"
    RESTORED = "restored"
    EDITED = "edited"
    REFUND_DELETED = "refund_deleted"
    RESTATED = "restated"
    REINSTATED = "reinstated"
    REFUND_FAILED = "refund_failed"


PAID: Final = frozenset({Status.COMPLETED, Status.REFUNDED, Status.PARTIALLY_REFUNDED, Status.CHARGED_BACK})
"""Statuses that only a paid order can have: a report with one of them says that the order was paid."""

# Ours, WooCommerce's (https://woocommerce.com/document/managing-orders/order-statuses/) and Stripe's.
_WORDS: Final[Mapping[str, Status]] = {
    **{status.value: status for status in Status},
    **dict.fromkeys(("on_hold", "checkout_draft"), Status.PENDING),
    **dict.fromkeys(("processing", "paid", "succeeded"), Status.COMPLETED),
    **dict.fromkeys(("cancelled", "canceled"), Status.FAILED),
    **dict.fromkeys(("chargeback", "dispute", "disputed"), Status.CHARGED_BACK),
}
_PAID_LATER: Final = re.compile(r"(^|_)(cod|bacs|cheque|sepa|becs|ach|direct_?debit|bank_?transfer|invoice)(_|$)")
"""Payment methods, named as by WooCommerce's plugins, of orders that are in processing before they are paid."""


def parse_status(word: str) -> Status | None:
    """The status that a word of a shop or payment provider stands for; None for an unknown word."""
    return _WORDS.get(_normalized(word))


def effective_status(status: Status, word: str, *, method: str = "", paid_at: datetime | None = None, dated: bool = False) -> Status:
    """The status with regard to the date of payment.

    WooCommerce sets a date of payment when an order is paid, and puts orders that are paid later into processing without one.

    Args:
        status: the status that the word stands for.
        word: the status as reported.
        method: the payment method.
        paid_at: the time of the payment; None when not reported.
        dated: the report has `reported_at`, so that its source would have reported a date of payment.
    """
    if _normalized(word) == "processing" and paid_at is None and (dated or _PAID_LATER.search(_normalized(method))):
        return Status.PENDING
    if _normalized(word) == "on_hold" and paid_at is not None and dated:
        return Status.COMPLETED
    return status


def parse_reason(reason: str, status: str) -> Reason | None:
    """The reason for an order's status: the reported one if it is known, else one that the status itself names; None for neither."""
    for word in (reason, status):
        if _normalized(word) in set(Reason):
            return Reason(_normalized(word))
    return None


def _normalized(word: str) -> str:
    return word.strip().lower().removeprefix("wc-").replace("-", "_")
