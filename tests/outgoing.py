"""Deliveries as destinations are handed them, made of what services publish."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

from google.protobuf.json_format import ParseDict
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.journeys.v1.change_pb2 import JourneyChanged
from pmp.purchases.v1.change_pb2 import PaymentStatus, PurchaseChanged

from kit.people.privacy import Choice, Consent
from services.destinations.kind import Destination, Message, Outgoing
from services.purchases.visitor import properties

GOLDEN = json.loads((Path(__file__).parent / "payloads" / "purchases.TrackPurchase.json").read_text())
"""The purchase as the plugin reports it."""
NOW = datetime.now(UTC)
SHARING = Consent(third_party_sharing=Choice(granted=True, decided_at=NOW))
AGENT = "Mozilla/5.0 (X11; Linux x86_64; rv:145.0) Gecko/20100101 Firefox/145.0"
TAGS = {"ga_client_id": "1234567890.1732096530", "ga_session_id": "1763633000", "fbp": "fb.1.1763633000123.987654321"}


def order(at: datetime = NOW, **fields: Any) -> PurchaseChanged:
    """The golden purchase as it is published, sold at this time."""
    message = PurchaseChanged(
        purchase_id="p-1016",
        order_id=GOLDEN["order_id"],
        user_id=GOLDEN["user_id"],
        session_id=GOLDEN["session_id"],
        subject=f"wordpress:{GOLDEN['user_id']}",
        currency=GOLDEN["currency"],
        amount=str(GOLDEN["amount"]),
        paid_amount=str(GOLDEN["amount"]),
        discount_total=str(GOLDEN["discount_total"]),
        tax_total=str(GOLDEN["tax_total"]),
        shipping_total=str(GOLDEN["shipping_total"]),
        coupon_codes=GOLDEN["coupon_codes"],
        country=GOLDEN["country"],
        payment_status=PaymentStatus.PAYMENT_STATUS_COMPLETED,
        payment_method=GOLDEN["payment_method"],
    )
    for line in GOLDEN["lines"]:
        ParseDict({**line, "amount": str(line["amount"])}, message.lines.add())
    message.sold_at.FromDatetime(at)
    message.timestamp.FromDatetime(at)
    booked = message.entries.add(kind="ENTRY_KIND_SALE", amount=message.amount)
    booked.timestamp.FromDatetime(at)
    ParseDict(fields, message)
    return message


def refunded(message: PurchaseChanged, amount: str, at: datetime = NOW, **fields: Any) -> PurchaseChanged:
    """The order after a refund of so much."""
    kind = "ENTRY_KIND_REFUND" if Decimal(amount) == Decimal(message.amount) else "ENTRY_KIND_PARTIAL_REFUND"
    entry = message.entries.add(amount=f"-{amount}", kind=kind)
    entry.timestamp.FromDatetime(at)
    ParseDict({"reference": f"r{len(message.entries)}", **fields}, entry)
    return message


def sealed(visitor: Mapping[str, Any] | None = None) -> dict[str, str]:
    """What an order has sealed, in plain text; with the golden purchase's browser by default."""
    known = properties(GOLDEN["metadata"]).visitor if visitor is None else visitor
    return {"email": GOLDEN["email"], "billing": json.dumps(GOLDEN["billing_address"]), "visitor": json.dumps(known)}


def event(event_type: str = "page_view", at: datetime = NOW, metadata: Mapping[str, Any] | None = None, **fields: Any) -> EventStored:
    """An event of the tracker as it is published."""
    stored = EventStored(key="~e1", scope="site")
    facts = {"id": "e1", "event_type": event_type, "session_id": "s1", "user_agent": AGENT, "page_url": "https://shop.example/pricing"}
    more = {"page_title": "Pricing", "referrer": "https://www.google.com/", "metadata": TAGS if metadata is None else metadata}
    ParseDict({**facts, **more, **fields}, stored.event)
    stored.event.timestamp.FromDatetime(at)
    return stored


def registration(at: datetime = NOW, **fields: Any) -> JourneyChanged:
    """A registration as the plugin reports it, and journeys publishes it."""
    metadata = {**TAGS, "user_agent": AGENT, "page_url": "https://shop.example/my-account/"}
    facts = {"id": "wp-user-42-signup", "conversion_type": "signup", "user_id": "42", "session_id": "s1", "metadata": metadata}
    message = ParseDict({"conversion": {**facts, **fields}}, JourneyChanged())
    message.conversion.timestamp.FromDatetime(at)
    return message


def outgoing(
    destination: Destination[Any],
    message: Message,
    sealed: Mapping[str, str] | None = None,
    *,
    consent: Consent = SHARING,
    profile: User | None = None,
) -> list[Outgoing]:
    """All deliveries that a destination wants of a message."""
    wanted = destination.wanted(message)
    return [Outgoing(f"d{number}", each, message, consent, profile, dict(sealed or {})) for number, each in enumerate(wanted)]


def ago(**units: float) -> datetime:
    return NOW - timedelta(**units)
