"""Records of WooCommerce's REST API as orders and users. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, cast

from cli.importing.items import Item, Kind, UnusableError
from cli.importing.shop_orders import Buyer, ShopOrder, ShopRefund, given, line, returned_line, rfc3339, text
from services.destinations.received.shop_words import UTM, campaign, is_anonymised, product_of

STAFF_ROLES: Final = ("administrator", "editor", "shop_manager")
"""Roles of the shop's own people, as the plugin excludes them."""
_VISIT: Final = "_pmp_visit"
"""Where the plugin keeps the session of an order."""
DECIMALS: Final = 6
"""Of amounts: as many as the API is asked for."""
_COURSE_FIELDS: Final = ("_related_course", "_tutor_product")
_CATEGORIES: Final = re.compile(r"\b(course|guide|membership)s?\b", re.IGNORECASE)


@dataclass(slots=True)
class Products:
    """What the plugin knows of products beside an order: their types and courses."""

    types: dict[int, str] = field(default_factory=dict[int, str])
    courses: dict[int, Sequence[str]] = field(default_factory=dict[int, Sequence[str]])

    def add(self, product: Mapping[str, Any]) -> None:
        """Adds a product of the API."""
        id_, fields = int(product["id"]), _meta(product)
        self.types[id_] = _product_type(fields, product.get("categories", ()))
        linked: Any = fields.get("_related_course")
        courses = [str(each) for each in _several(linked) if str(each or "").isdigit()]
        self.courses[id_] = courses or ([str(id_)] if self.types[id_] == "course" else [])


@dataclass(slots=True)
class Staff:
    """The shop's own people."""

    ids: set[int] = field(default_factory=set[int])
    emails: set[str] = field(default_factory=set[str])

    def add(self, customer: Mapping[str, Any]) -> None:
        """Adds a user of the API."""
        self.ids.add(int(customer["id"]))
        self.emails.add(str(customer.get("email", "")).lower())

    def ordered(self, user_id: int, email: str) -> bool:
        """True for an order of one of them."""
        return user_id in self.ids if user_id else email.lower() in self.emails


def order_of(record: Mapping[str, Any], refunds: Iterable[Mapping[str, Any]], products: Products, staff: Staff) -> ShopOrder:
    """The order of a record.

    Args:
        record: as `GET orders` has it.
        refunds: its refunds, as `GET refunds` has them.
        products: of the shop.
        staff: of the shop.

    Raises:
        UnusableError: it has no date or no amount.
    """
    return ShopOrder(
        id=str(record["id"]),
        placed_at=_required(_time(record, "date_created"), "it has no date"),
        status=str(record.get("status", "")).removeprefix("wc-"),
        amount=_money(record, "total"),
        currency=str(record.get("currency", "")),
        paid_at=_time(record, "date_paid"),
        changed_at=_time(record, "date_modified"),
        payment_method=str(record.get("payment_method", "")),
        lines=[_line(item, products) for item in record.get("line_items", ())],
        discount=_money(record, "discount_total"),
        tax=_money(record, "total_tax"),
        shipping=_money(record, "shipping_total"),
        coupons=[str(each.get("code", "")) for each in record.get("coupon_lines", ())],
        refunds=[refund_of(each) for each in refunds],
        buyer=_buyer(record, staff),
    )


def refund_of(record: Mapping[str, Any]) -> ShopRefund:
    """The refund of a record.

    Raises:
        UnusableError: it has no date or no amount.
    """
    at = _required(_time(record, "date_created"), "a refund has no date")
    lines = [_returned_line(item) for item in record.get("line_items") or ()]
    return ShopRefund(str(record["id"]), abs(_money(record, "amount")), at, str(record.get("reason") or ""), lines)


def user_item(record: Mapping[str, Any]) -> Item:
    """The registration of a customer.

    Raises:
        UnusableError: it has no date.
    """
    registered = _required(_time(record, "date_created"), "the user has no date of registration")
    body = given(
        wordpress_id=str(record["id"]),
        email=str(record.get("email", "")).strip(),
        first_name=text(str(record.get("first_name", "")), 100),
        last_name=text(str(record.get("last_name", "")), 100),
        registration_date=rfc3339(registered),
        timestamp=rfc3339(max(registered, _time(record, "date_modified") or registered)),
        historical=True,
    )
    return Item(Kind.USERS, f"user {record['id']}", body)


def _buyer(record: Mapping[str, Any], staff: Staff) -> Buyer:
    """What the plugin states of a buyer: nothing of an anonymised one, and a renewal has no visit of its own."""
    meta, user_id = _meta(record), int(record.get("customer_id") or 0)
    address: Mapping[str, Any] = record.get("billing") or {}
    billing = {name: str(value) for name, value in address.items()}
    email = billing.get("email", "").strip()
    if is_anonymised(email, meta):
        return Buyer(is_staff=None)
    is_renewal = meta.get("_subscription_renewal") not in (None, "")
    visit: Mapping[str, Any] = meta[_VISIT] if not is_renewal and isinstance(meta.get(_VISIT), dict) else {}
    marks: Mapping[str, Any] = visit.get("marks") or {}
    metadata: dict[str, Any] = {name: value for name, value in marks.items() if name != "ref"}
    metadata |= {"created_via": str(record.get("created_via") or ""), "is_renewal": is_renewal or None}
    if (number := str(record.get("number") or "")) != str(record["id"]):
        metadata["order_number"] = number
    return Buyer(
        user_id=str(user_id or ""),
        email=email,
        session_id=str(visit.get("session_id") or ""),
        billing=billing,
        utm=_utm(visit, {} if is_renewal else meta),
        referral_code=str(marks.get("ref") or ""),
        metadata=given(**metadata),
        is_staff=staff.ordered(user_id, email),
    )


def _utm(visit: Mapping[str, Any], meta: Mapping[str, Any]) -> dict[str, str]:
    """The campaign that the plugin kept, else the one that WooCommerce did."""
    kept: Mapping[str, Any] = visit.get("utm_parameters") or {}
    own = {name: str(kept.get(name) or kept.get(f"utm_{name}") or "") for name in UTM}
    return own if any(own.values()) else campaign(meta)


def _returned_line(item: Mapping[str, Any]) -> dict[str, Any]:
    """A product that is gone has the id of the order's line, as there."""
    return returned_line(
        product_id=product_of(item.get("variation_id"), item.get("product_id"), _meta(item).get("_refunded_item_id") or item.get("id")),
        quantity=float(item.get("quantity") or 0),
        amount=round(_money(item, "total") + _money(item, "total_tax"), DECIMALS),
    )


def _line(item: Mapping[str, Any], products: Products) -> dict[str, Any]:
    product = int(item.get("product_id") or 0)
    return line(
        product_id=product_of(item.get("variation_id"), product, item.get("id")),
        name=str(item.get("name") or ""),
        product_type=products.types.get(product, "other"),
        quantity=float(item.get("quantity") or 1),
        amount=round(_money(item, "total") + _money(item, "total_tax"), DECIMALS),
        course_ids=products.courses.get(product, ()),
    )


def _product_type(fields: Mapping[str, Any], categories: Iterable[Mapping[str, Any]]) -> str:
    """The type of a product as the plugin finds it."""
    if isinstance(own := fields.get("_pmp_product_type"), str) and own:
        return own
    if any(fields.get(name) for name in _COURSE_FIELDS):
        return "course"
    found = (_CATEGORIES.search(str(category.get("slug", "")).replace("-", " ")) for category in categories)
    return next((match.group(1).lower() for match in found if match), "other")


def _several(value: Any) -> Sequence[Any]:
    return cast("Sequence[Any]", value) if isinstance(value, list) else [value]


def _meta(record: Mapping[str, Any]) -> dict[str, Any]:
    return {str(each.get("key")): each.get("value") for each in record.get("meta_data") or ()}


def _time(record: Mapping[str, Any], name: str) -> datetime | None:
    """A time of the API, which has no zone: GMT."""
    value = record.get(f"{name}_gmt")
    try:
        return datetime.fromisoformat(str(value)).replace(tzinfo=UTC) if value else None
    except ValueError:
        return None


def _required(at: datetime | None, message: str) -> datetime:
    if at is None:
        raise UnusableError(message)
    return at


def _money(record: Mapping[str, Any], name: str) -> float:
    try:
        return float(record.get(name) or 0)
    except (TypeError, ValueError):
        raise UnusableError(f"{name} is no amount") from None
