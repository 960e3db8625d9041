"""A person whose deliveries tests send: what the topics publish about her, and one attempt of a destination."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.gdpr.v1 import change_pb2 as gdpr
from pmp.identity.v1 import change_pb2 as identity
from pmp.identity.v1.identity_pb2 import User
from pmp.ingestion.v1 import event_pb2
from pmp.journeys.v1.change_pb2 import ConversionRecorded, JourneyChanged
from pmp.purchases.v1 import change_pb2 as purchases

from kit.people.privacy import Choice, Consent
from services.destinations.kind import Destination, Message, Outcome, Outgoing, Result

NOW = datetime.now(UTC).replace(microsecond=0)
EMAIL = "Ada@example.org"
NEW_EMAIL = "ada@lovelace.example"
GRANTED = Consent(marketing_emails=Choice(granted=True, decided_at=NOW), person_id="u-ada")
DENIED = Consent(marketing_emails=Choice(granted=False, decided_at=NOW), person_id="u-ada")


def stamp(at: datetime) -> Timestamp:
    found = Timestamp()
    found.FromDatetime(at)
    return found


def ada(**fields: Any) -> User:
    """Ada as identity knows her."""
    utm = event_pb2.UtmParameters(source="newsletter", medium="email", campaign="spring")
    user = User(user_id="u-ada", email=EMAIL, first_name="Ada", last_name="Lovelace", user_type="lead", currency="EUR", utm_attribution=utm)
    user.preferences.update({"language": "de-at"})
    user.MergeFrom(User(**fields))
    return user


def user_changed(**fields: Any) -> identity.IdentityChanged:
    defaults: dict[str, Any] = {
        "user_id": "u-ada",
        "wordpress_id": 42,
        "email_hash": b"h" * 32,
        "created_at": stamp(NOW),
        "updated_at": stamp(NOW),
    }
    return identity.IdentityChanged(user=identity.UserChanged(**{**defaults, **fields}))


def choice_made(*, granted: bool, at: datetime = NOW) -> gdpr.GdprChanged:
    choice = gdpr.Choice(granted=granted, decided_at=stamp(at))
    return gdpr.GdprChanged(consent=gdpr.ConsentChanged(subject="wordpress:42", marketing_emails=choice))


def order(at: datetime = NOW, **fields: Any) -> purchases.PurchaseChanged:
    """A paid order of a course for 49 and two guides, with a discount that is a line of its own."""
    lines = [
        purchases.PurchasedLine(
            product_id="7", product_name="PMP Prep", product_type="course", quantity=1, amount="49", course_ids=["pmp-prep"]
        ),
        purchases.PurchasedLine(product_id="9", product_name="Guide", product_type="guide", quantity=2, amount="21.00"),
        purchases.PurchasedLine(product_id="gift", product_name="Gift card", product_type="other", quantity=1, amount="-10"),
    ]
    defaults: dict[str, Any] = {
        "purchase_id": "p-1",
        "order_id": "1016",
        "timestamp": stamp(at),
        "sold_at": stamp(at),
        "paid_at": stamp(at),
        "payment_status": purchases.PAYMENT_STATUS_COMPLETED,
        "user_id": "42",
        "subject": "wordpress:42",
        "currency": "EUR",
        "base_currency": "EUR",
        "amount": "60.00",
        "paid_amount": "60.00",
        "tax_total": "9.58",
        "coupon_codes": ["gift"],
        "lines": lines,
        "entries": [purchases.LedgerEntry(kind=purchases.ENTRY_KIND_SALE, amount="60.00", timestamp=stamp(at))],
    }
    return purchases.PurchaseChanged(**{**defaults, **fields})


def refunded(amount: str, at: datetime = NOW + timedelta(minutes=1), **fields: Any) -> purchases.PurchaseChanged:
    """The order after a refund: of all of it, or a part."""
    whole = amount == "60.00"
    kind = purchases.ENTRY_KIND_REFUND if whole else purchases.ENTRY_KIND_PARTIAL_REFUND
    status = purchases.PAYMENT_STATUS_REFUNDED if whole else purchases.PAYMENT_STATUS_PARTIALLY_REFUNDED
    entry = purchases.LedgerEntry(kind=kind, reference="r-1", amount=f"-{amount}", timestamp=stamp(at))
    found = order(payment_status=status, refunded_amount=amount, **fields)
    found.entries.append(entry)
    return found


def conversion(kind: str, id_: str = "c-1", **metadata: Any) -> JourneyChanged:
    recorded = ConversionRecorded(id=id_, timestamp=stamp(NOW), subject="wordpress:42", user_id="42", conversion_type=kind)
    recorded.metadata.update(metadata)
    return JourneyChanged(conversion=recorded)


def event(type_: str, id_: str = "e-1", *, user_id: str = "42", at: datetime = NOW, **metadata: Any) -> event_pb2.EventStored:
    happened = event_pb2.Event(id=id_, timestamp=stamp(at), event_type=type_, user_id=user_id, session_id="s-1", page_url="/courses/pmp")
    happened.metadata.update(metadata)
    return event_pb2.EventStored(event=happened, key=id_, enrichment=event_pb2.Enrichment(session="s-1", course="pmp-prep"))


@asynccontextmanager
async def opened(kind: type[Destination[Any]], options: dict[str, Any]) -> AsyncGenerator[Any]:
    """A destination with a client of its own."""
    async with httpx.AsyncClient(timeout=5) as http:
        yield kind("mail", kind.options_type.model_validate({"kind": "mail", **options}), http)


async def send(
    destination: Destination[Any], message: Message, *, profile: User | None = None, consent: Consent = GRANTED, former: Sequence[str] = ()
) -> Sequence[Result]:
    """Makes one attempt at each delivery that is wanted of a message."""
    results: list[Result] = []
    for number, wanted in enumerate(destination.wanted(message)):
        results += await destination.send([Outgoing(f"d{number}", wanted, message, consent, profile or ada(), former=former)])
    return results


def outcomes(results: Sequence[Result]) -> list[Outcome]:
    return [result.outcome for result in results]
