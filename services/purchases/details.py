"""What a report says of an order beside its money: the buyer, the lines, the campaign. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

import orjson
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.struct_pb2 import Struct
from pmp.purchases.v1 import purchases_pb2 as pb

from kit.people.identifiers import identifier_of
from kit.people.keys.seals import BILLING_CONTEXT, EMAIL_CONTEXT, VISITOR_CONTEXT, Seal
from kit.people.subjects.words import OTHER, PAYMENTS, listed
from kit.people.suppression import Suppressed, screen
from kit.rules import wrong_struct
from services.purchases.money import exact
from services.purchases.records import LineRecord
from services.purchases.visitor import VISITOR_FIELDS, properties

ERASED: Final = "erased:"
"""Kind of the identifier that an erased person's order has."""

ANONYMOUS: Final = "purchase:"
"""Kind of the identifier of an order without a buyer: sold over the counter, or anonymised by the shop."""

TOTALS: Final = ("discount_total", "tax_total", "shipping_total")
"""Columns of the amounts of which an order's amount consists."""

_NO_TYPE: Final = "other"
_COUNTRY: Final = re.compile("[A-Za-z]{2}")
_IDENTIFYING_COLUMNS: Final = {"email": ("email", "email_hash"), "session": ("session_id",)}
"""The columns by which an order leads to a weaker identifier of its buyer, by the identifier's kind."""


@dataclass(frozen=True, slots=True)
class OrderDetails:
    """What a report says of an order beside its money."""

    timestamp: datetime
    columns: Mapping[str, Any]
    """Columns of the order; only those that the report has a value for."""
    lines: Sequence[Mapping[str, Any]]
    is_test: bool | None
    """None if the report does not state it."""
    is_staff: bool | None
    """As `is_test`."""
    erased: bool = False
    """The buyer was erased, and is left out."""
    breakdown: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """What its amount consists of: columns of the order; only those that the report states."""

    @property
    def identifiers(self) -> list[str]:
        """The identifiers of the buyer, the strongest first."""
        columns = self.columns
        return _identifiers(columns.get("user_id", ""), columns.get("email_hash", b""), columns.get("session_id", ""))

    def unsuppressed(self, suppressed: Suppressed) -> OrderDetails:
        """The details without identifiers of erased persons, and without a buyer where the strongest one is suppressed."""
        screened = screen(self.identifiers, self.timestamp, suppressed)
        if screened.is_dropped:
            return self.anonymised()
        removed = {column for each in screened.stripped for column in _IDENTIFYING_COLUMNS[each.partition(":")[0]]}
        return replace(self, columns={name: value for name, value in self.columns.items() if name not in removed})

    def anonymised(self) -> OrderDetails:
        """The details of an erased person's order: only the sale is left."""
        method = self.columns.get("payment_method")
        columns = {"payment_method": listed(method, PAYMENTS) or OTHER} if method else {}
        kept = {name: value for name, value in self.breakdown.items() if name != "coupon_codes"}
        return replace(self, columns=columns, breakdown=kept, erased=True)


def sealing_identifiers(purchase: pb.Purchase, email_hash: bytes) -> set[str]:
    """The identifiers under whose keys a purchase's personal values are sealed: an address under its own, the rest under the strongest.

    Args:
        purchase: the purchase as reported.
        email_hash: the hash of its e-mail address; empty for none.
    """
    is_sealed = purchase.billing_address.fields or VISITOR_FIELDS & purchase.metadata.fields.keys()
    strongest = _identifiers(purchase.user_id, email_hash, purchase.session_id)[:1] if is_sealed else []
    return {*strongest, *filter(None, [identifier_of(email_hash=email_hash)])}


def read_details(purchase: pb.Purchase, currency: str, email_hash: bytes, seals: Mapping[str, Seal]) -> OrderDetails:
    """The details of a purchase, with personal values sealed. Without any identifier no key would open them: they are left out.

    Args:
        purchase: the purchase as reported.
        currency: its currency.
        email_hash: the hash of its e-mail address; empty for none.
        seals: the keys of `sealing_identifiers`.
    """
    email, billing = purchase.email, purchase.billing_address
    visitor, metadata = properties(MessageToDict(purchase.metadata))
    strongest = next(iter(_identifiers(purchase.user_id, email_hash, purchase.session_id)), "")
    columns: dict[str, Any] = {
        "user_id": purchase.user_id,
        "session_id": purchase.session_id,
        "email": seals[identifier_of(email_hash=email_hash)].seal(email, context=EMAIL_CONTEXT) if email else b"",
        "email_hash": email_hash,
        "payment_method": purchase.payment_method,
        "utm_attribution": {field.name: value for field, value in purchase.utm_parameters.ListFields()},
        "billing_data": seals[strongest].seal(_json(billing), context=BILLING_CONTEXT) if billing.fields and strongest else b"",
        "visitor": seals[strongest].seal(orjson.dumps(visitor).decode(), context=VISITOR_CONTEXT) if visitor and strongest else b"",
        "details": metadata,
        "referral_code": purchase.referral_code.strip(),
    }
    return OrderDetails(
        timestamp=purchase.timestamp.ToDatetime(UTC),
        columns={name: value for name, value in columns.items() if value},
        lines=[_line(line, currency) for line in _lines(purchase)],
        is_test=purchase.is_test if purchase.HasField("is_test") else None,
        is_staff=purchase.is_staff if purchase.HasField("is_staff") else None,
        breakdown=_breakdown(purchase, currency),
    )


def identifier_without_buyer(purchase_id: str, *, erased: bool) -> str:
    """The identifier of an order that has no buyer."""
    return f"{ERASED if erased else ANONYMOUS}{purchase_id}"


def merged_metadata(known: Mapping[str, Any] | None, reported: Mapping[str, Any] | None) -> Mapping[str, Any] | None:
    """Free-form data with what another report adds, unless the whole would be too large. Known values stay."""
    if not known or not reported:
        return known or reported
    merged = {**reported, **known}
    return known if wrong_struct("metadata", ParseDict(merged, Struct())) else merged


def takes_lines(stated: Sequence[Mapping[str, Any]], known: Sequence[LineRecord], *, due: bool) -> bool:
    """Whether the lines of a report become the order's.

    The same lines are taken from the source that says of what type a product is or which courses it opens: WooCommerce's own webhooks
    don't, and its plugin does.

    Args:
        stated: the lines of the report.
        known: the lines of the order.
        due: they would be taken if they were others.
    """
    sold = [(line["product_id"], line["quantity"], line["amount"]) for line in stated]
    if sold != [(line.product_id, line.quantity, line.amount) for line in known]:
        return due
    explains = any(line["product_type"] != _NO_TYPE or line["course_ids"] for line in stated)
    explained = any(line.product_type != _NO_TYPE or line.course_ids for line in known)
    return due if explains == explained else explains


def _identifiers(user_id: str, email_hash: bytes, session_id: str) -> list[str]:
    """Identifiers with their kinds, the strongest first."""
    return [
        each
        for each in (identifier_of(user_id=user_id), identifier_of(email_hash=email_hash), identifier_of(session_id=session_id))
        if each
    ]


def _lines(purchase: pb.Purchase) -> Sequence[pb.PurchaseLine]:
    """The order's lines, or one made of its single product."""
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
        "product_type": line.product_type or _NO_TYPE,
        "quantity": line.quantity or 1,
        "amount": exact(line.amount, currency),
        "course_ids": list(dict.fromkeys(course for each in line.course_ids if (course := each.strip()))) or None,
    }


def _breakdown(purchase: pb.Purchase, currency: str) -> dict[str, Any]:
    stated: dict[str, Any] = {name: exact(getattr(purchase, name), currency) for name in TOTALS if purchase.HasField(name)}
    codes = sorted({code.strip().lower() for code in purchase.coupon_codes} - {""})
    if codes or "discount_total" in stated:
        stated["coupon_codes"] = codes
    if country := purchase.country or _country_of(purchase.billing_address):
        stated["country"] = country.upper()
    return stated


def _country_of(address: Struct) -> str:
    """The code of an address's country; empty for none, and for a name."""
    country = MessageToDict(address).get("country")
    return country if isinstance(country, str) and _COUNTRY.fullmatch(country) else ""


def _json(struct: Struct) -> str:
    return orjson.dumps(MessageToDict(struct)).decode()
