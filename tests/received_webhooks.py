"""Webhooks as their senders send them."""

from __future__ import annotations

import hmac
from base64 import b64encode
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode

import orjson
import stripe

STRIPE_SECRET = "whsec_the_secret_of_the_tests"
WOOCOMMERCE_SECRET = "woocommerce-secret-of-the-tests"
MAILCHIMP_SECRET = "mailchimp-secret-of-the-tests"
BREVO_SECRET = "brevo-token-of-the-tests"
KLAVIYO_SECRET = "klaviyo-secret-of-the-tests"


class Call(NamedTuple):
    """A webhook."""

    sender: str
    body: bytes
    headers: Mapping[str, str]


def stripe_event(kind: str, thing: Mapping[str, Any], at: datetime, event_id: str = "", *, secret: str = STRIPE_SECRET) -> Call:
    """An event of Stripe about an object, signed now by Stripe's own library."""
    event = {
        "id": event_id or f"evt_{kind}_{thing['id']}",
        "object": "event",
        "api_version": "2026-10-28.endive",
        "created": int(at.timestamp()),
        "type": kind,
        "livemode": True,
        "data": {"object": thing},
    }
    body = orjson.dumps(event)
    return Call("stripe", body, {"stripe-signature": stripe_signature(body, datetime.now(UTC), secret), "content-type": "application/json"})


def stripe_signature(body: bytes, at: datetime, secret: str = STRIPE_SECRET) -> str:
    """The header of a webhook of Stripe."""
    return stripe.WebhookSignature.generate_signature_header(body.decode(), secret, int(at.timestamp()))


def payment(order_id: str, **fields: Any) -> dict[str, Any]:
    """A PaymentIntent of WooCommerce's Stripe plugin. Whatever is personal in it must not be kept."""
    metadata = {"order_id": order_id, "site_url": "https://shop.example", "customer_email": "ada@example.org"}
    return {"id": f"pi_{order_id}", "amount": 10000, "currency": "usd", "latest_charge": f"ch_{order_id}", "metadata": metadata, **fields}


def charge(order_id: str, refunded: int, **fields: Any) -> dict[str, Any]:
    """A charge of which so much was refunded, in cents."""
    named = payment(order_id)["metadata"]
    return {
        "id": f"ch_{order_id}",
        "payment_intent": f"pi_{order_id}",
        "amount": 10000,
        "amount_refunded": refunded,
        "currency": "usd",
        "billing_details": {"email": "ada@example.org"},
        "metadata": named,
        **fields,
    }


def refund(order_id: str, number: int, units: int, status: str, **fields: Any) -> dict[str, Any]:
    """A refund of a charge, in cents: it names the payment, and no order."""
    of = {"payment_intent": f"pi_{order_id}", "charge": f"ch_{order_id}"}
    return {"id": f"re_{order_id}_{number}", "object": "refund", "amount": units, "currency": "usd", "status": status, **of, **fields}


def dispute(order_id: str, status: str, at: datetime, **fields: Any) -> dict[str, Any]:
    """A dispute: it names the payment, and no order."""
    of = {"payment_intent": f"pi_{order_id}", "charge": f"ch_{order_id}"}
    return {"id": f"dp_{order_id}", "amount": 10000, "currency": "usd", "status": status, "created": int(at.timestamp()), **of, **fields}


def paypal_event(kind: str, resource: Mapping[str, Any], at: datetime) -> bytes:
    """The body of an event of PayPal."""
    return orjson.dumps(
        {
            "id": f"WH-{kind}-{resource['id']}",
            "event_type": kind,
            "create_time": at.isoformat(),
            "resource_version": "2.0",
            "resource": resource,
        }
    )


def capture(order_id: str, at: datetime, **fields: Any) -> dict[str, Any]:
    """A capture of WooCommerce's PayPal plugin."""
    amount = {"currency_code": "USD", "value": "100.00"}
    return {
        "id": f"CAP{order_id}",
        "amount": amount,
        "custom_id": order_id,
        "invoice_id": f"WC-{order_id}",
        "create_time": at.isoformat(),
        **fields,
    }


def paypal_dispute(order_id: str, outcome: str = "", **fields: Any) -> dict[str, Any]:
    """A dispute of PayPal: it names the capture. Without an outcome it is open."""
    return {
        "dispute_id": f"PP-D-{order_id}",
        "id": f"PP-D-{order_id}",
        "disputed_transactions": [{"seller_transaction_id": f"CAP{order_id}", "seller": {"merchant_id": "M1", "name": "A shop"}}],
        "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
        "status": "RESOLVED" if outcome else "OPEN",
        "dispute_amount": {"currency_code": "USD", "value": "100.00"},
        "dispute_life_cycle_stage": "CHARGEBACK",
        "dispute_channel": "EXTERNAL",
        "messages": [{"posted_by": "BUYER", "content": "ada@example.org never got it"}],
        **({"dispute_outcome": {"outcome_code": outcome}} if outcome else {}),
        **fields,
    }


def woocommerce_order(order_id: int, at: datetime, modified: datetime, **fields: Any) -> dict[str, Any]:
    """An order as WooCommerce's REST API represents it."""
    return {
        "id": order_id,
        "number": str(order_id),
        "status": "processing",
        "currency": "USD",
        "date_created_gmt": _gmt(at),
        "date_modified_gmt": _gmt(modified),
        "date_paid_gmt": None,
        "discount_total": "0.00",
        "shipping_total": "0.00",
        "total": "100.00",
        "total_tax": "19.00",
        "customer_id": 42,
        "payment_method": "stripe",
        "created_via": "checkout",
        "billing": {"first_name": "Ada", "city": "London", "country": "GB", "email": "ada@example.org"},
        "meta_data": [
            {"id": 1, "key": "_wc_order_attribution_source_type", "value": "utm"},
            {"id": 2, "key": "_wc_order_attribution_utm_source", "value": "newsletter"},
        ],
        "line_items": [
            {
                "id": 7,
                "name": "PMP exam preparation",
                "product_id": 201,
                "variation_id": 0,
                "quantity": 1,
                "total": "81.00",
                "total_tax": "19.00",
            }
        ],
        "coupon_lines": [],
        "refunds": [],
        **fields,
    }


def woocommerce(topic: str, thing: Mapping[str, Any], *, secret: str = WOOCOMMERCE_SECRET, delivery: str = "d1") -> Call:
    """A webhook of WooCommerce."""
    body = orjson.dumps(thing)
    headers = {
        "x-wc-webhook-topic": topic,
        "x-wc-webhook-signature": b64encode(hmac.digest(secret.encode(), body, "sha256")).decode(),
        "x-wc-webhook-delivery-id": delivery,
        "content-type": "application/json",
    }
    return Call("woocommerce", body, headers)


def mailchimp(kind: str, email: str, at: datetime, *, secret: str = MAILCHIMP_SECRET, **fields: str) -> Call:
    """A webhook of Mailchimp about a member of an audience."""
    data = {"email": email, "list_id": "a6b5da1054", "reason": "manual", **fields}
    form = {"type": kind, "fired_at": at.strftime("%Y-%m-%d %H:%M:%S"), **{f"data[{name}]": value for name, value in data.items()}}
    body, stamp = urlencode(form).encode(), int(datetime.now(UTC).timestamp())
    value = hmac.digest(secret.encode(), f"{stamp}.".encode() + body, "sha256").hex()
    return Call("mailchimp", body, {"x-mailchimp-signature": f"t={stamp},v1={value}", "content-type": "application/x-www-form-urlencoded"})


def brevo(kind: str, email: str, at: datetime, *, secret: str = BREVO_SECRET, **fields: Any) -> Call:
    """A webhook of Brevo about a contact who was sent a campaign. `ts` is in the time of Paris."""
    stamp = int(at.timestamp())
    when = {"date_event": at.strftime("%Y-%m-%d %H:%M:%S"), "ts_event": stamp, "ts": stamp + 3600}
    body = orjson.dumps({"id": 7, "camp_id": 12, "email": email, "event": kind, "tag": "", **when, **fields})
    return Call("brevo", body, {"authorization": f"Bearer {secret}", "content-type": "application/json"})


def _gmt(at: datetime) -> str:
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")


def klaviyo_event(topic: str, email: str, at: datetime, id_: str = "", **properties: Any) -> dict[str, Any]:
    """An event as a webhook of Klaviyo has it: as `Get Event` of its API does, with the address among its properties."""
    id_ = id_ or f"event-{topic}-{at.timestamp():.0f}"
    attributes = {"timestamp": int(at.timestamp()), "datetime": at.isoformat(), "event_properties": {"email_address": email, **properties}}
    profile = {"data": {"type": "profile", "id": "01KP4EGHH8QJ3N3AY2Z6V7RMDK"}}
    data = {"type": "event", "id": id_, "attributes": attributes, "relationships": {"profile": profile}}
    return {"topic": f"event:klaviyo.{topic}", "external_id": id_, "payload": {"data": data}}


def klaviyo(*events: Mapping[str, Any], at: datetime | None = None, secret: str = KLAVIYO_SECRET, **meta: Any) -> Call:
    """A webhook of Klaviyo, which states several events."""
    at = at or datetime.now(UTC)
    own = {"klaviyo_account_id": "WBhXHN", "klaviyo_webhook_id": "01KP4928STE8FKCWB6WDHZ4ZB7", "timestamp": at.isoformat(), **meta}
    body = orjson.dumps({"data": events, "meta": {**own, "version": "2026-07-15"}})
    stamp = format_datetime(at + timedelta(hours=5), usegmt=True)  # as seen: of another zone than it says
    headers = {
        "klaviyo-webhook-id": "01KP4928STE8FKCWB6WDHZ4ZB7",
        "klaviyo-timestamp": stamp,
        "klaviyo-signature": hmac.digest(secret.encode(), body + stamp.encode(), "sha256").hex(),
        "content-type": "application/json",
    }
    return Call("klaviyo", body, headers)
