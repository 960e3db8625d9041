"""PayPal: payments, refunds, reversals and disputes.

Only events of the REST app under which the shop's payments are made arrive. https://developer.paypal.com/api/rest/webhooks/
"""

from __future__ import annotations

import re
import zlib
from base64 import b64decode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Final, TypeAlias
from urllib.parse import urlsplit

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from pmp.purchases.v1 import purchases_pb2 as pb
from pydantic import AwareDatetime, BaseModel, BeforeValidator, Field
from typing_extensions import override

from kit.errors import Unauthenticated
from kit.times import timestamp
from services.destinations.received.certificates import Certificates
from services.destinations.received.postback import Postback
from services.destinations.received.sender import Sender, parsed
from services.destinations.received.settings import WebhookSettings
from services.destinations.received.signatures import check_time, header
from services.destinations.received.statement import Effect, Nothing, Statement

_SOURCE: Final = "paypal"
_REPEATED: Final = timedelta(days=3, hours=1)
_ALGORITHM: Final = "SHA256withRSA"
_CAPTURE: Final = re.compile(r"/v2/payments/captures/([A-Za-z0-9-]{1,64})")
_WON: Final = frozenset({"RESOLVED_SELLER_FAVOUR", "CANCELED_BY_BUYER", "DENIED"})
"""Outcomes of a dispute by which the seller keeps the money."""
_Text: TypeAlias = Annotated[str, BeforeValidator(lambda value: value or "")]
_Id: TypeAlias = Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[A-Za-z0-9._:-]+$")]


class _Money(BaseModel):
    value: float = Field(ge=0, allow_inf_nan=False)


class _Link(BaseModel):
    href: str
    rel: str


class _Breakdown(BaseModel):
    total_refunded_amount: _Money | None = None


class _Resource(BaseModel):
    """A capture, or what returned some of its money."""

    id: _Id
    amount: _Money
    custom_id: _Text = ""
    invoice_id: _Text = ""
    create_time: AwareDatetime
    seller_payable_breakdown: _Breakdown = _Breakdown()
    links: list[_Link] = []

    @property
    def capture(self) -> str:
        """The capture that money of was returned; empty if it isn't stated."""
        above = (_CAPTURE.fullmatch(urlsplit(link.href).path) for link in self.links if link.rel == "up")
        return next((found[1] for found in above if found), "")


class _Dispute(BaseModel):
    class Transaction(BaseModel):
        seller_transaction_id: _Id
        custom: _Text = ""
        invoice_number: _Text = ""

    class Outcome(BaseModel):
        outcome_code: _Text = ""

    dispute_id: _Id
    disputed_transactions: list[Transaction] = []
    dispute_outcome: Outcome = Outcome()


class _Event(BaseModel):
    id: str = Field(min_length=1, max_length=200)
    event_type: str = Field(max_length=100)
    create_time: AwareDatetime
    resource: dict[str, Any]


class PayPal(Sender):
    """Webhooks of PayPal.

    Args:
        settings: the ids of the webhook.
        certificates: where the certificates that sign come from.
        roots: a file of trusted roots in PEM; by default those of the web.
    """

    def __init__(self, settings: WebhookSettings, certificates: Certificates | None = None, roots: Path | None = None) -> None:
        super().__init__(settings)
        self._certificates = certificates or Certificates(roots=roots)
        client_id, api = settings.webhooks_paypal_client_id, str(settings.webhooks_paypal_api)
        self._postback = Postback(api, client_id, settings.paypal_client_secret, roots) if client_id else None

    @property
    @override
    def is_configured(self) -> bool:
        return bool(self.settings.webhooks_paypal_ids)

    @override
    async def verify(self, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
        """Checks the signature of `<transmission id>|<time>|<webhook id>|<CRC-32 of the body>`: the webhook's id is not sent along.

        PayPal repeats a webhook for three days, and does not document that it dates it anew.
        """
        if header(headers, "paypal-auth-algo") != _ALGORITHM:
            raise Unauthenticated(f"paypal-auth-algo is not {_ALGORITHM}")
        sent_at, stated = header(headers, "paypal-transmission-time"), header(headers, "paypal-transmission-id")
        signature, url = header(headers, "paypal-transmission-sig"), header(headers, "paypal-cert-url")
        check_time(_time(sent_at), now, "paypal-transmission-time", oldest=_REPEATED)
        if self._postback is not None:
            verdicts = [await self._postback.verify(webhook, headers, body, now) for webhook in self.settings.webhooks_paypal_ids]
        else:
            key, bare = await self._certificates.key(url, now), _decoded(signature)
            contents = (f"{stated}|{sent_at}|{webhook}|{zlib.crc32(body)}" for webhook in self.settings.webhooks_paypal_ids)
            verdicts = [_is_signed(key, bare, content.encode()) for content in contents]
        if not any(verdicts):
            raise Unauthenticated("paypal-transmission-sig does not match the body")

    @override
    def read(self, headers: Mapping[str, str], body: bytes, now: datetime) -> Statement | Nothing:
        event = parsed(_Event, body)
        match event.event_type:
            case "PAYMENT.CAPTURE.COMPLETED":
                return self._paid(event, parsed(_Resource, event.resource))
            case "PAYMENT.CAPTURE.REFUNDED" | "PAYMENT.CAPTURE.REVERSED":
                return self._returned(event, parsed(_Resource, event.resource))
            case "CUSTOMER.DISPUTE.CREATED" | "CUSTOMER.DISPUTE.UPDATED" | "CUSTOMER.DISPUTE.RESOLVED":
                return self._disputed(event, parsed(_Dispute, event.resource))
            case _:
                return Nothing(event.event_type)

    def _paid(self, event: _Event, capture: _Resource) -> Statement:
        at = capture.create_time
        request = pb.UpdatePaymentStatusRequest(payment_status="completed", timestamp=timestamp(at), reference=capture.id, source=_SOURCE)
        order_id = self._order_in(capture.custom_id, capture.invoice_id)
        return Statement(event.id, event.event_type, f"{capture.id}:paid", at, Effect.STATUS, request, order_id, (capture.id,))

    def _returned(self, event: _Event, resource: _Resource) -> Statement:
        """A refund, with the cumulative total of its capture; or a reversal by the buyer's bank or PayPal."""
        at, amount = resource.create_time, resource.amount.value
        refund = pb.Refund(reference=resource.id, amount=amount, timestamp=timestamp(at), source=_SOURCE)
        if event.event_type.endswith("REVERSED"):
            refund.chargeback, refund.payment = True, resource.capture or resource.id
        else:
            total = resource.seller_payable_breakdown.total_refunded_amount
            refund.provider, refund.refunded_total = True, amount if total is None else total.value
            refund.payment = resource.capture
        payments, request = (resource.capture,), pb.RefundPurchaseRequest(refund=refund)
        order_id = self._order_in(resource.custom_id, resource.invoice_id)
        return Statement(event.id, event.event_type, f"{resource.id}:returned", at, Effect.REFUND, request, order_id, payments)

    def _disputed(self, event: _Event, dispute: _Dispute) -> Statement | Nothing:
        """One that the seller wins: what was reversed of its payment is returned.

        An open dispute moves no money, it is held. What a lost one takes is a reversal or a refund of the capture, with an event of
        its own that names the amount: here it would count twice.
        """
        if dispute.dispute_outcome.outcome_code not in _WON or not dispute.disputed_transactions:
            return Nothing(event.event_type)
        payment, at = dispute.disputed_transactions[0], event.create_time
        capture, order_id = payment.seller_transaction_id, self._order_in(payment.custom, payment.invoice_number)
        refund = pb.Refund(
            reference=dispute.dispute_id, timestamp=timestamp(at), source=_SOURCE, chargeback=True, deleted=True, payment=capture
        )
        request = pb.RefundPurchaseRequest(refund=refund)
        return Statement(event.id, event.event_type, f"{dispute.dispute_id}:won", at, Effect.REFUND, request, order_id, payments=(capture,))

    def _order_in(self, custom: str, invoice: str) -> str:
        """The order that a payment is for; empty if it doesn't say.

        WooCommerce's plugin writes the order's id into `custom_id`, older ones an object with it, and its number into `invoice_id`.
        """
        if custom.isdecimal():
            return custom
        if custom.startswith("{"):
            try:
                return str(orjson.loads(custom).get("order_id") or "")
            except orjson.JSONDecodeError:
                return ""
        prefix = self.settings.webhooks_paypal_invoice_prefix
        return invoice.removeprefix(prefix) if prefix and invoice.startswith(prefix) else ""


def _decoded(signature: str) -> bytes:
    try:
        return b64decode(signature, validate=True)
    except ValueError:
        raise Unauthenticated("paypal-transmission-sig is not base64") from None


def _is_signed(key: RSAPublicKey, signature: bytes, content: bytes) -> bool:
    try:
        key.verify(signature, content, PKCS1v15(), SHA256())
    except InvalidSignature:
        return False
    return True


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise Unauthenticated("paypal-transmission-time is no time") from None
    return at if at.tzinfo else at.replace(tzinfo=UTC)


SENDER: Final = PayPal
