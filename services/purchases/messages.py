"""Between messages and rows: an order as it is told, as the tables keep it, as the topic and the rpcs tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final
from uuid import UUID, uuid5

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from pmp.ingestion.v1.event_pb2 import UtmParameters
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1 import purchases_pb2 as pb

from kit.people.keys.seals import Decryptor, Seal
from kit.people.persons import subject_of
from kit.people.subjects.words import OTHER, PAYMENTS, listed
from kit.people.suppression import Suppressed
from kit.people.vault import Vault
from kit.rules import wrong_struct
from services.purchases.models import EntryRow, LineRow, PurchaseRow
from services.purchases.money import exact

TOPIC: Final = "purchases"
"""What is published, and the name of the service."""

EMAIL_CONTEXT: Final = "email"
"""Context under which an e-mail address is sealed."""

BILLING_CONTEXT: Final = "billing"
"""Context under which a billing address is sealed."""

ERASED: Final = "erased:"
"""Kind of the names that stand for erased persons."""

NOBODY: Final = "purchase:"
"""Kind of the names of orders that name nobody: sold over the counter, or anonymised by the shop."""

_COLUMNS: Final = {"email": ("email", "email_hash"), "session": ("session_id",)}
_NAMESPACE: Final = UUID("6f6d2f5c-9d0e-5b1a-8a53-3c1c1f8a7b10")
_LARGEST_ID: Final = 2**63 - 1
_NAMED: Final = 5
"""Version of the UUIDs that are made of names."""


def purchase_id_of(site: str, order_id: str) -> str:
    """The purchase of a shop's order: whoever asks, and whenever. A site's name has no slash."""
    return str(uuid5(_NAMESPACE, f"{site}/{order_id}"))


def reference_pseudonym(vault: Vault, reference: str) -> str:
    """What stands for a notice's own number in an erased person's order: told again, it is known again. Empty for none."""
    return f"erased-{vault.digest(reference.encode(), purpose='reference').hex()}" if reference else ""


def may_be_ordered(name: str) -> bool:
    """False for a purchase id: only shops' own numbers become orders."""
    try:
        return UUID(name).version != _NAMED
    except ValueError:
        return True


@dataclass(frozen=True, slots=True)
class Told:
    """What a notice tells of an order beside its money."""

    timestamp: datetime
    columns: Mapping[str, Any]
    """Only what it has something to say of."""
    lines: Sequence[Mapping[str, Any]]
    is_test: bool
    is_staff: bool
    erased: bool = False
    """Its person was erased, and is left out."""


def sealed_under(purchase: pb.Purchase, email_hash: bytes) -> set[str]:
    """The names under whose keys a purchase's personal values are sealed: an address under its own, the rest under the strongest.

    Args:
        purchase: as it was told.
        email_hash: of its e-mail address; empty for none.
    """
    strongest = _names(purchase.user_id, email_hash, purchase.session_id)[:1] if purchase.billing_address.fields else []
    return {*strongest, *filter(None, [subject_of(email_hash=email_hash)])}


def told(purchase: pb.Purchase, currency: str, email_hash: bytes, seals: Mapping[str, Seal]) -> Told:
    """What a purchase tells; personal values are sealed. An address of nobody is left out: nobody's key would open it.

    Args:
        purchase: as it was told.
        currency: its currency.
        email_hash: of its e-mail address; empty for none.
        seals: the keys of the names that `sealed_under` asks for.
    """
    email, billing, metadata = purchase.email, purchase.billing_address, purchase.metadata
    strongest = next(iter(_names(purchase.user_id, email_hash, purchase.session_id)), "")
    columns: dict[str, Any] = {
        "user_id": purchase.user_id,
        "session_id": purchase.session_id,
        "email": seals[subject_of(email_hash=email_hash)].seal(email, context=EMAIL_CONTEXT) if email else b"",
        "email_hash": email_hash,
        "payment_method": purchase.payment_method,
        "utm_attribution": {field.name: value for field, value in purchase.utm_parameters.ListFields()},
        "billing_data": seals[strongest].seal(_json(billing), context=BILLING_CONTEXT) if billing.fields and strongest else b"",
        "details": MessageToDict(metadata),
    }
    return Told(
        timestamp=purchase.timestamp.ToDatetime(UTC),
        columns={name: value for name, value in columns.items() if value},
        lines=[_line(line, currency) for line in _lines(purchase)],
        is_test=purchase.is_test,
        is_staff=purchase.is_staff,
    )


def names_in(news: Told) -> list[str]:
    """The names a purchase was told under, the strongest first."""
    return _names(news.columns.get("user_id", ""), news.columns.get("email_hash", b""), news.columns.get("session_id", ""))


def unsuppressed(news: Told, suppressed: Suppressed) -> Told:
    """What a purchase tells beside names of erased persons. Of one that is such a person's, only the sale is left."""
    names = names_in(news)
    if names and suppressed.holds(names[0], news.timestamp):
        return of_nobody(news)
    gone = {column for name in names if suppressed.holds(name, news.timestamp) for column in _COLUMNS[name.partition(":")[0]]}
    return replace(news, columns={name: value for name, value in news.columns.items() if name not in gone})


def of_nobody(news: Told) -> Told:
    """A purchase without its person."""
    paid_by = news.columns.get("payment_method")
    return replace(news, columns={"payment_method": listed(paid_by, PAYMENTS) or OTHER} if paid_by else {}, erased=True)


def is_erased(subject: str | None, news: Told | None) -> bool:
    """True for an order of an erased person.

    Args:
        subject: whom it belongs to so far; None for one that is new.
        news: what a notice tells of it, without erased persons.
    """
    return subject.startswith(ERASED) if subject else news is not None and news.erased


def subject_without(purchase_id: str, *, erased: bool) -> str:
    """Whom an order belongs to that names nobody."""
    return f"{ERASED if erased else NOBODY}{purchase_id}"


def joined(known: Mapping[str, Any], more: Mapping[str, Any]) -> Mapping[str, Any]:
    """Free-form data with what another notice adds, as long as the whole keeps its bounds. What is known stays."""
    whole = {**more, **known}
    return known if wrong_struct("metadata", ParseDict(whole, Struct())) else whole


def wordpress_order_id(order_id: str) -> int | None:
    """The order's number in WordPress: one of digits."""
    return int(order_id) if order_id.isdecimal() and order_id.isascii() and int(order_id) <= _LARGEST_ID else None


def changed_message(row: PurchaseRow, lines: Sequence[LineRow], entries: Sequence[EntryRow]) -> change_pb2.PurchaseChanged:
    """The order as the topic tells it: all there is to say."""
    message = change_pb2.PurchaseChanged(
        purchase_id=row.id,
        order_id=row.order_id,
        timestamp=_timestamp(row.timestamp),
        paid_at=_timestamp(row.paid_at),
        sold_at=_timestamp(row.sold_at),
        payment_status=change_pb2.PaymentStatus.Value(f"PAYMENT_STATUS_{row.payment_status.upper()}"),
        user_id=row.user_id or "",
        session_id=row.session_id or "",
        email_hash=row.email_hash or b"",
        sealed_email=row.email or b"",
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
            )
            for line in lines
        ],
        excluded=row.is_test or row.is_staff,
        entries=[
            change_pb2.LedgerEntry(
                kind=change_pb2.EntryKind.Value(f"ENTRY_KIND_{entry.kind.upper()}"),
                reference=entry.reference,
                amount=_text(entry.amount, row.currency),
                base_amount=_text(entry.base_amount, row.base_currency),
                timestamp=_timestamp(entry.timestamp),
                reason=change_pb2.EntryReason.Value(f"ENTRY_REASON_{(entry.reason or 'unspecified').upper()}"),
            )
            for entry in entries
        ],
        payment_method=row.payment_method or "",
    )
    if row.utm_attribution:
        message.utm_attribution.CopyFrom(UtmParameters(**row.utm_attribution))
    return message


def recorded_message(
    row: PurchaseRow, lines: Sequence[LineRow], entries: Sequence[EntryRow], person_id: str, decryptor: Decryptor | None = None
) -> pb.RecordedPurchase:
    """The order as the rpcs show it; with the billing address only where there is a key to open it."""
    message = pb.RecordedPurchase(
        purchase_id=row.id,
        order_id=row.order_id,
        timestamp=_timestamp(row.timestamp),
        paid_at=_timestamp(row.paid_at),
        sold_at=_timestamp(row.sold_at),
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
            )
            for line in lines
        ],
        entries=[
            pb.BookedEntry(
                kind=entry.kind,
                reference=entry.reference,
                amount=float(entry.amount),
                base_amount=_number(entry.base_amount),
                timestamp=_timestamp(entry.timestamp),
                booked_at=_timestamp(entry.booked_at),
                reason=entry.reason,
            )
            for entry in entries
        ],
        disputed=row.disputed,
    )
    if row.utm_attribution:
        message.utm_attribution.CopyFrom(UtmParameters(**row.utm_attribution))
    if row.details:
        ParseDict(row.details, message.metadata)
    if decryptor is not None and (billing := decryptor.open(row.billing_data, context=BILLING_CONTEXT)):
        ParseDict(orjson.loads(billing), message.billing_address)
    return message


def _names(user_id: str, email_hash: bytes, session_id: str) -> list[str]:
    """Names with their kinds, the strongest first."""
    told_under = subject_of(user_id=user_id), subject_of(email_hash=email_hash), subject_of(session_id=session_id)
    return [name for name in told_under if name]


def _lines(purchase: pb.Purchase) -> Sequence[pb.PurchaseLine]:
    """The order's lines: those it has, else the one product it names."""
    if purchase.lines or not purchase.product_id:
        return purchase.lines
    return [
        pb.PurchaseLine(
            product_id=purchase.product_id,
            product_name=purchase.product_name,
            product_type=purchase.product_type,
            amount=purchase.amount,
        )
    ]


def _line(line: pb.PurchaseLine, currency: str) -> dict[str, Any]:
    return {
        "product_id": line.product_id,
        "product_name": line.product_name,
        "product_type": line.product_type or "other",
        "quantity": line.quantity or 1,
        "amount": exact(line.amount, currency),
    }


def _json(struct: Struct) -> str:
    return orjson.dumps(MessageToDict(struct)).decode()


def _timestamp(time: datetime | None) -> Timestamp | None:
    if time is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(time)
    return timestamp


def _text(amount: Decimal | None, currency: str) -> str:
    return "" if amount is None else f"{exact(amount, currency):f}"


def _number(amount: Decimal | None) -> float | None:
    return None if amount is None else float(amount)
