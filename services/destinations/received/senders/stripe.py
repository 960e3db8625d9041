"""Stripe: payments, refunds and disputes.

https://docs.stripe.com/api/events
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

from pmp.purchases.v1 import purchases_pb2 as pb
from pydantic import BaseModel, BeforeValidator, Field
from typing_extensions import override

from kit.times import timestamp
from services.destinations.received.sender import Sender, parsed
from services.destinations.received.signatures import check_timestamped
from services.destinations.received.statement import Effect, Nothing, Statement

_SIGNATURE: Final = "stripe-signature"
_SOURCE: Final = "stripe"
_ORDER: Final = re.compile(r"(\d{1,18}):[0-9a-f]{32}")
"""What WooCommerce's Stripe plugin adds as `signature`: it has the order's id, from which the number in `order_id` may differ."""
# https://docs.stripe.com/currencies#minor-units
_WITHOUT_MINOR_UNIT: Final = frozenset(
    {"BIF", "CLP", "DJF", "GNF", "JPY", "KMF", "KRW", "MGA", "PYG", "RWF", "VND", "VUV", "XAF", "XOF", "XPF"}
)
_UNDONE: Final = frozenset({"failed", "canceled"})
_THREE_DECIMALS: Final = frozenset({"BHD", "JOD", "KWD", "OMR", "TND"})


def _id(value: object) -> object:
    """An id, or that of an expanded object."""
    return value.get("id") if isinstance(value, dict) else value or ""  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]


_Ref: TypeAlias = Annotated[str, BeforeValidator(_id)]
_Metadata: TypeAlias = Annotated[dict[str, str], BeforeValidator(lambda value: value or {})]
_List: TypeAlias = Annotated[list[Any], BeforeValidator(lambda value: value or [])]


class _Event(BaseModel):
    class Data(BaseModel):
        object: dict[str, Any]

    id: str = Field(min_length=1, max_length=200)
    type: str = Field(max_length=100)
    created: int = Field(ge=0, le=10**10)
    data: Data


class _Payment(BaseModel):
    id: str
    latest_charge: _Ref = ""
    metadata: _Metadata = {}


class _Session(BaseModel):
    id: str
    payment_intent: _Ref = ""
    payment_status: str
    client_reference_id: str | None = None
    metadata: _Metadata = {}


class _Charge(BaseModel):
    id: str
    payment_intent: _Ref = ""
    amount_refunded: int = Field(ge=0)
    currency: str
    metadata: _Metadata = {}


class _Refund(BaseModel):
    id: str
    payment_intent: _Ref = ""
    charge: _Ref = ""
    amount: int = Field(ge=0)
    currency: str
    status: str | None = None


class _Dispute(BaseModel):
    id: str
    payment_intent: _Ref = ""
    charge: _Ref = ""
    amount: int = Field(ge=0)
    currency: str
    status: str
    created: int = Field(ge=0, le=10**10)
    balance_transactions: _List = []


class Stripe(Sender):
    """Webhooks of Stripe."""

    @property
    @override
    def is_configured(self) -> bool:
        return bool(self.settings.secrets_of("stripe"))

    @override
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        check_timestamped(self.settings.secrets_of("stripe"), body, headers, _SIGNATURE, now)

    @override
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Statement | Nothing:
        event = parsed(_Event, body)
        match event.type.split("."):
            case ["payment_intent", "succeeded"]:
                payment = parsed(_Payment, event.data.object)
                return self._paid(event, payment.id, (payment.id, payment.latest_charge), payment.metadata)
            case ["checkout", "session", "completed" | "async_payment_succeeded"]:
                return self._checked_out(event, parsed(_Session, event.data.object))
            case ["charge", "refunded"]:
                return self._refunded(event, parsed(_Charge, event.data.object))
            case ["refund", "failed" | "updated"] | ["charge", "refund", "updated"]:
                return _updated(event, parsed(_Refund, event.data.object))
            case ["charge", "dispute", _]:
                return _disputed(event, parsed(_Dispute, event.data.object))
            case _:
                return Nothing(event.type)

    def _checked_out(self, event: _Event, session: _Session) -> Statement | Nothing:
        if session.payment_status != "paid":
            return Nothing(event.type)  # a delayed payment: another event follows
        payment = session.payment_intent or session.id
        return self._paid(event, payment, (payment,), session.metadata, session.client_reference_id or "")

    def _paid(
        self, event: _Event, payment: str, payments: tuple[str, ...], metadata: Mapping[str, str], order_id: str = ""
    ) -> Statement | Nothing:
        if self._is_another_shops(metadata):
            return Nothing(event.type)
        order_id = _order_in(metadata) or order_id
        at = _time(event.created)
        request = pb.UpdatePaymentStatusRequest(payment_status="completed", timestamp=timestamp(at), reference=payment, source=_SOURCE)
        return Statement(event.id, event.type, f"{payment}:paid", at, Effect.STATUS, request, order_id, payments)

    def _refunded(self, event: _Event, charge: _Charge) -> Statement | Nothing:
        """The cumulative total, which also makes up for an event that was lost. After a refund that failed it may be the same again."""
        if self._is_another_shops(charge.metadata):
            return Nothing(event.type)
        at, total = _time(event.created), _amount(charge.amount_refunded, charge.currency)
        reference = f"{charge.id}:{charge.amount_refunded}"
        refund = pb.Refund(reference=reference, amount=total, refunded_total=total, timestamp=timestamp(at), source=_SOURCE, provider=True)
        refund.payment = charge.id
        payments = (charge.payment_intent, charge.id)
        return Statement(
            event.id,
            event.type,
            f"{reference}:{event.created}:refunded",
            at,
            Effect.REFUND,
            pb.RefundPurchaseRequest(refund=refund),
            _order_in(charge.metadata),
            payments,
        )

    def _is_another_shops(self, metadata: Mapping[str, str]) -> bool:
        """True for a payment of another shop that has the same account."""
        host = urlsplit(metadata.get("site_url", "")).hostname or ""
        own = {name.removeprefix("*.") for name in self.settings.site_hosts}
        return bool(host and own) and not any(host == name or host.endswith(f".{name}") for name in own)


def _order_in(metadata: Mapping[str, str]) -> str:
    """The order that a payment is for; empty if it doesn't say."""
    signed = _ORDER.fullmatch(metadata.get("signature", ""))
    return signed[1] if signed else metadata.get("order_id", "")


def _updated(event: _Event, refund: _Refund) -> Statement | Nothing:
    """A refund that failed or was cancelled: Stripe has the money back, and no longer counts it in the charge's total."""
    if refund.status not in _UNDONE or not refund.charge:
        return Nothing(event.type)  # the total of the charge says the rest
    at, amount = _time(event.created), _amount(refund.amount, refund.currency)
    failed = pb.Refund(
        reference=refund.id, amount=amount, timestamp=timestamp(at), source=_SOURCE, provider=True, deleted=True, payment=refund.charge
    )
    request, payments = pb.RefundPurchaseRequest(refund=failed), (refund.payment_intent, refund.charge)
    return Statement(event.id, event.type, f"{refund.id}:failed", at, Effect.REFUND, request, payments=payments)


def _disputed(event: _Event, dispute: _Dispute) -> Statement | Nothing:
    is_inquiry = dispute.status.startswith("warning")
    if is_inquiry or (dispute.status == "prevented" and not dispute.balance_transactions):
        return Nothing(event.type)  # no money is withdrawn by it
    returned = dispute.status == "won" or event.type.endswith(".funds_reinstated")
    at = _time(event.created if returned else dispute.created)
    refund = pb.Refund(
        reference=dispute.id,
        amount=_amount(dispute.amount, dispute.currency),
        timestamp=timestamp(at),
        source=_SOURCE,
        chargeback=True,
        deleted=returned,
    )
    fact = f"{dispute.id}:{'reinstated' if returned else 'withdrawn'}"
    request = pb.RefundPurchaseRequest(refund=refund)
    return Statement(event.id, event.type, fact, at, Effect.REFUND, request, payments=(dispute.payment_intent, dispute.charge))


def _time(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _amount(units: int, currency: str) -> float:
    """An amount in Stripe's own minor units, which are not always those of ISO 4217."""
    code = currency.upper()
    decimals = 0 if code in _WITHOUT_MINOR_UNIT else 3 if code in _THREE_DECIMALS else 2
    return float(Decimal(units).scaleb(-decimals))


SENDER: Final = Stripe
