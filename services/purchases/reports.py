"""Reports about orders, as the calls bring them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Final, NamedTuple
from urllib.parse import unquote

from google.protobuf.message import Message
from pmp.purchases.v1 import purchases_pb2 as pb

from kit.errors import InvalidRequest, Violation
from kit.people.keys.seals import Seal
from kit.rules import Period, check, wrong_struct, wrong_time
from services.purchases.claims import Claim, ReportKind, ReturnedLine
from services.purchases.details import OrderDetails, read_details, sealing_identifiers
from services.purchases.money import exact, is_currency
from services.purchases.order_ids import purchase_id_of
from services.purchases.records import PurchaseRecord
from services.purchases.statuses import Status, effective_status, parse_reason, parse_status

_TIMES: Final = ("timestamp", "paid_at", "reported_at")
_NO_CURRENCY: Final = "currency is no code of ISO 4217, nor of WooCommerce, in which one pays or could once"


@dataclass(frozen=True, slots=True)
class OrderReport:
    """What one call reports about an order."""

    site: str
    order: str
    """The purchase id, or the shop's own number."""
    claim: Claim
    """What it claims of the order's money; that of a refund or status is in the order's currency, whichever that is."""
    note: str = ""
    """The reason for a refund, in the shop's own words."""
    status_word: str = ""
    """The status as a payment provider reports it."""
    details: OrderDetails | None = None
    """The order's details; None in a report that does not make an order known."""
    historical: bool = False
    """It is imported or backfilled."""

    @property
    def purchase_id(self) -> str:
        """The purchase id, if the order is given by the shop's number."""
        return purchase_id_of(self.site, self.order)

    def claim_about(self, row: PurchaseRecord) -> Claim:
        """The claim in the currency of the order, whose payment method says whether an order in processing is paid."""
        claim = self.claim.in_currency(row.currency)
        if claim.kind is not ReportKind.STATUS or claim.status is None:
            return claim
        return replace(claim, status=effective_status(claim.status, self.status_word, method=row.payment_method or ""))


class CheckedPurchase(NamedTuple):
    """A purchase that keeps all rules. Its personal values have yet to be sealed."""

    site: str
    purchase: pb.Purchase
    claim: Claim
    """What it claims of its money."""
    email_hash: bytes
    """Empty for no e-mail address."""

    @property
    def purchase_id(self) -> str:
        """The purchase id."""
        return purchase_id_of(self.site, self.purchase.order_id)

    @property
    def owners(self) -> set[str]:
        """The identifiers under whose keys it is sealed."""
        return sealing_identifiers(self.purchase, self.email_hash)

    def sealed(self, seals: Mapping[str, Seal]) -> OrderReport:
        """The report with its personal values sealed under the keys of its owners."""
        details = read_details(self.purchase, self.claim.currency, self.email_hash, seals)
        return OrderReport(self.site, self.purchase.order_id, self.claim, details=details, historical=self.purchase.historical)


def check_purchase(site: str, purchase: pb.Purchase, email_hash: bytes, site_currency: str, allowed: Period) -> CheckedPurchase:
    """Checks what the rules of the contract can't express.

    Args:
        site: the shop.
        purchase: the purchase as reported.
        email_hash: the hash of its e-mail address; empty for none.
        site_currency: the currency of a purchase without one.
        allowed: the period of its times.

    Raises:
        InvalidRequest: a field breaks a rule, or the payment status is unknown.
    """
    currency = purchase.currency.upper() or site_currency
    check(
        *(wrong_time(f"purchase.{name}", getattr(purchase, name), allowed) for name in _TIMES if purchase.HasField(name)),
        wrong_struct("purchase.billing_address", purchase.billing_address),
        wrong_struct("purchase.metadata", purchase.metadata),
        None if is_currency(currency) else Violation("purchase.currency", _NO_CURRENCY),
    )
    return CheckedPurchase(site, purchase, purchase_claim(purchase, currency), email_hash)


def purchase_claim(purchase: pb.Purchase, currency: str) -> Claim:
    """What a purchase claims of its money.

    Raises:
        InvalidRequest: the payment status is unknown.
    """
    word = purchase.payment_status or Status.COMPLETED
    status = _status("purchase.payment_status", word)
    paid_at, reported_at = _time(purchase, "paid_at"), _time(purchase, "reported_at")
    return Claim(
        kind=ReportKind.PURCHASE,
        status=effective_status(status, word, method=purchase.payment_method, paid_at=paid_at, dated=reported_at is not None),
        amount=exact(purchase.amount, currency),
        currency=currency,
        at=paid_at or purchase.timestamp.ToDatetime(UTC),
        reference=purchase.id,
        refunded_total=exact(purchase.refunded_total, currency) if purchase.HasField("refunded_total") else None,
        source=purchase.source,
        reported_at=reported_at,
        paid_at=paid_at,
        reason=parse_reason(purchase.reason, word) if reported_at else None,
    )


def refund_report(site: str, request: pb.RefundPurchaseRequest, allowed: Period, now: datetime) -> OrderReport:
    """The report of a refund, which happened now unless it has a time.

    Raises:
        InvalidRequest: a time is not in the period allowed.
    """
    refund = request.refund
    reported_at = _checked_time("refund", refund, "reported_at", allowed)
    claim = Claim(
        kind=_refund_kind(refund),
        amount=_decimal(refund.amount) if refund.HasField("amount") else None,
        at=_checked_time("refund", refund, "timestamp", allowed) or reported_at or now,
        reference=refund.reference,
        refunded_total=_decimal(refund.refunded_total) if refund.HasField("refunded_total") else None,
        source=refund.source,
        reported_at=reported_at,
        deleted=refund.deleted,
        payment=refund.payment,
        lines=tuple(ReturnedLine(line.product_id, line.quantity, _decimal(line.amount)) for line in refund.lines),
    )
    return OrderReport(site, unquote(request.id), claim, note=refund.reason, historical=refund.historical)


def _refund_kind(refund: pb.Refund) -> ReportKind:
    if refund.chargeback:
        return ReportKind.CHARGEBACK
    return ReportKind.PROVIDER_REFUND if refund.provider else ReportKind.REFUND


def status_report(site: str, request: pb.UpdatePaymentStatusRequest, allowed: Period, now: datetime) -> OrderReport:
    """The report of a payment status, which was reached now unless it has a time.

    Raises:
        InvalidRequest: the payment status is unknown, or the time is not in the period allowed.
    """
    status = _status("payment_status", request.payment_status)
    at = _checked_time("", request, "timestamp", allowed) or now
    claim = Claim(ReportKind.STATUS, status, at=at, reference=request.reference, source=request.source)
    return OrderReport(site, unquote(request.id), claim, status_word=request.payment_status)


def _status(field: str, word: str) -> Status:
    status = parse_status(word)
    if status is None:
        raise InvalidRequest([Violation(field, f"payment_status is none of {', '.join(Status)}, nor a word of WooCommerce for one")])
    return status


def _time(message: Message, field: str) -> datetime | None:
    return getattr(message, field).ToDatetime(UTC) if message.HasField(field) else None


def _checked_time(path: str, message: Message, field: str, allowed: Period) -> datetime | None:
    if message.HasField(field):
        check(wrong_time(f"{path}.{field}" if path else field, getattr(message, field), allowed))
    return _time(message, field)


def _decimal(amount: float) -> Decimal:
    """The number as written by the client, not yet rounded to the currency's minor unit."""
    return Decimal(repr(amount))
