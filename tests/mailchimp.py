"""A double of Mailchimp's Marketing API 3.0, with the rules of its public reference: members, tags, events and a store."""

from __future__ import annotations

import base64
import re
import threading
import time
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import md5
from typing import Any, Final

from typing_extensions import override

from tests.vendor import Reply, Request, Vendor

KEY: Final = "0123456789abcdef0123456789abcdef-us21"
LIST: Final = "a1b2c3"
_MOST_AT_ONCE: Final = 10
_STATUSES: Final = {"subscribed", "unsubscribed", "cleaned", "pending", "transactional"}
_MERGE_FIELDS: Final = {"FNAME", "LNAME", "STAGE", "LTV"}
_MEMBER: Final = {"email_address", "status_if_new", "status", "merge_fields", "language", "email_type"}
_ORDER: Final = {
    *("id", "customer", "financial_status", "currency_code", "order_total", "discount_total", "tax_total", "shipping_total"),
    *("processed_at_foreign", "cancelled_at_foreign", "updated_at_foreign", "lines"),
}
_CUSTOMER: Final = {"id", "email_address", "opt_in_status", "first_name", "last_name"}


class _ProblemError(Exception):
    def __init__(self, status: int, title: str, detail: str = "") -> None:
        super().__init__(title)
        # As in the real one, the detail repeats the address.
        self.reply = Reply(status, {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": "i-1"})


@dataclass
class Mailchimp(Vendor):
    """An account with one audience."""

    members: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    tags: dict[str, set[str]] = field(default_factory=dict[str, set[str]])
    events: dict[str, list[Any]] = field(default_factory=dict[str, list[Any]])
    forgotten: set[str] = field(default_factory=set[str])
    """Members that were deleted for good."""
    left: set[str] = field(default_factory=set[str])
    """Members that unsubscribed by themselves."""
    stores: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    products: dict[str, Any] = field(default_factory=dict[str, Any])
    orders: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    slowness: float = 0
    """Seconds that each request takes at least."""
    in_progress: set[int] = field(default_factory=set[int])
    """Threads that answer a request."""

    @override
    def take(self, request: Request) -> Reply:
        self.in_progress.add(threading.get_ident())
        try:
            time.sleep(self.slowness)
            return super().take(request) if len(self.in_progress) <= _MOST_AT_ONCE else Reply(429, {"title": "Too Many Requests"})
        finally:
            self.in_progress.discard(threading.get_ident())

    @override
    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _ProblemError as problem:
            return problem.reply

    def _answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Basic {base64.b64encode(f'pmp-mesh:{KEY}'.encode()).decode()}":
            raise _ProblemError(401, "API Key Invalid")
        if request.body is not None and request.headers.get("content-type") != "application/json":
            raise _ProblemError(400, "Bad Request")
        match [request.method, *request.path.strip("/").split("/")]:
            case ["GET", "lists", list_id] if list_id == LIST:
                return Reply(200, {"id": LIST})
            case [method, "lists", list_id, "members", member, *rest] if list_id == LIST:
                return self._member(method, member, rest, request)
            case [method, "ecommerce", "stores", *rest]:
                return self._store(method, rest, request)
            case _:
                raise _ProblemError(404, "Resource Not Found")

    def _member(self, method: str, member: str, rest: list[str], request: Request) -> Reply:
        body = request.body
        if (method, rest) == ("PUT", []):
            return self._put_member(member, body)
        if member not in self.members:
            raise _ProblemError(404, "Resource Not Found")
        match (method, *rest):
            case ("GET",):
                return Reply(200, self.members[member])
            case ("PATCH",):
                return self._change(member, body)
            case ("DELETE",):
                self.members[member]["status"] = "archived"
            case ("POST", "tags"):
                _require(body, {"tags"}, {"tags", "is_syncing"})
                self._tag(member, body["tags"])
            case ("POST", "events"):
                _require(body, {"name"}, {"name", "properties", "is_syncing", "occurred_at"})
                _check(2 <= len(body["name"]) <= 30 and all(isinstance(value, str) for value in body["properties"].values()))
                _check(datetime.fromisoformat(body["occurred_at"]).tzinfo is not None)
                self.events[member].append(body)
            case ("POST", "actions", "delete-permanent"):
                self.forgotten.add(member)
                for kept in (self.members, self.tags, self.events):
                    del kept[member]
            case _:
                raise _ProblemError(405, "Method Not Allowed")
        return Reply(204)

    def _tag(self, member: str, tags: list[Any]) -> None:
        for tag in tags:
            _require(tag, {"name", "status"}, {"name", "status"})
            _check(tag["status"] in {"active", "inactive"} and 0 < len(tag["name"]) <= 100)
            change = self.tags[member].add if tag["status"] == "active" else self.tags[member].discard
            change(tag["name"])

    def _change(self, member: str, body: Any) -> Reply:
        return self._readdress(member, body["email_address"]) if "email_address" in body else self._set_status(member, body)

    def _put_member(self, member: str, body: Any) -> Reply:
        _require(body, {"email_address", "status_if_new"}, _MEMBER)
        _check(body["status_if_new"] in _STATUSES and body["merge_fields"].keys() <= _MERGE_FIELDS)
        _check(all(isinstance(value, str) for value in body["merge_fields"].values()))
        _check(md5(body["email_address"].lower().encode(), usedforsecurity=False).hexdigest() == member)
        if member in self.forgotten:
            address = body["email_address"]
            raise _ProblemError(400, "Forgotten Email Not Subscribed", f"{address} was permanently deleted and cannot be re-imported.")
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", body["email_address"]):
            raise _ProblemError(400, "Invalid Resource", f"{body['email_address']} looks fake or invalid.")
        known = self.members.get(member) or {"id": member, "status": body["status_if_new"]}
        self.members[member] = known | {"merge_fields": known.get("merge_fields", {}) | body["merge_fields"]}
        self.members[member] |= {name: body[name] for name in ("email_address", "language") if name in body}
        self.tags.setdefault(member, set())
        self.events.setdefault(member, [])
        return Reply(200, self.members[member])

    def _readdress(self, member: str, email: str) -> Reply:
        new = md5(email.lower().encode(), usedforsecurity=False).hexdigest()
        if new in self.members or self.members[member]["status"] in {"cleaned", "archived"}:
            raise _ProblemError(400, "Member Exists", f"{email} is already a list member.")
        self.tags[new], self.events[new] = self.tags.pop(member), self.events.pop(member)
        self.members[new] = self.members.pop(member) | {"id": new, "email_address": email}
        return Reply(200, self.members[new])

    def _set_status(self, member: str, body: Any) -> Reply:
        _require(body, {"status"}, _MEMBER)
        _check(body["status"] in _STATUSES)
        if body["status"] == "subscribed" and member in self.left:
            raise _ProblemError(400, "Member In Compliance State", f"{self.members[member]['email_address']} cannot be subscribed.")
        self.members[member]["status"] = body["status"]
        return Reply(200, self.members[member])

    def _store(self, method: str, rest: list[str], request: Request) -> Reply:
        body = request.body
        if (method, rest) == ("POST", []):
            _require(body, {"id", "list_id", "name", "currency_code"}, {"id", "list_id", "name", "currency_code", "platform", "is_syncing"})
            _check(body["list_id"] == LIST and body["id"] not in self.stores)
            self.stores[body["id"]] = body
            return Reply(200, body)
        if not rest or rest[0] not in self.stores:
            raise _ProblemError(404, "Resource Not Found")
        if (method, rest[1:]) == ("GET", []):
            return Reply(200, {"id": rest[0]})
        return self._product(method, rest[2:], body) if rest[1] == "products" else self._order(method, rest[1:], request)

    def _product(self, method: str, rest: list[str], body: Any) -> Reply:
        if method == "GET" and rest[0] in self.products:
            return Reply(200, {"id": rest[0]})
        if method != "POST":
            raise _ProblemError(404, "Resource Not Found")
        _require(body, {"id", "title", "variants"}, {"id", "title", "type", "variants"})
        _check(body["id"] not in self.products and len(body["variants"]) > 0)
        for variant in body["variants"]:
            _require(variant, {"id", "title"}, {"id", "title", "price"})
        self.products[body["id"]] = body
        return Reply(200, body)

    def _order(self, method: str, rest: list[str], request: Request) -> Reply:
        body = request.body
        match (method, *rest):
            case ("GET", "orders"):
                of_customer = [each for each in self.orders.values() if each["customer"]["id"] == request.query["customer_id"]]
                return Reply(200, {"orders": [{"processed_at_foreign": each["processed_at_foreign"]} for each in of_customer]})
            case ("GET", "orders", order) if order in self.orders:
                return Reply(200, {"updated_at_foreign": self.orders[order]["updated_at_foreign"]})
            case ("POST", "orders"):
                return self._add_order(body)
            case ("PATCH", "orders", order) if order in self.orders:
                _require(body, set(), _ORDER - {"id"})
                self.orders[order] |= body
                return Reply(200, self.orders[order])
            case ("DELETE", "customers", customer) if any(each["customer"]["id"] == customer for each in self.orders.values()):
                self.orders = {id_: each for id_, each in self.orders.items() if each["customer"]["id"] != customer}
                return Reply(204)
            case _:
                raise _ProblemError(404, "Resource Not Found")

    def _add_order(self, body: Any) -> Reply:
        _require(body, {"id", "customer", "currency_code", "order_total", "lines"}, _ORDER)
        _require(body["customer"], {"id", "email_address", "opt_in_status"}, _CUSTOMER)
        _check(len(body["customer"]["id"]) <= 50 and body["id"] not in self.orders and len(body["lines"]) > 0)
        for line in body["lines"]:
            required = {"id", "product_id", "product_variant_id", "quantity", "price"}
            _require(line, required, required | {"discount"})
            _check(isinstance(line["quantity"], int) and line["quantity"] > 0)
            if line["product_id"] not in self.products:
                raise _ProblemError(400, "Bad Request", "A product with the provided ID doesn't exist")
        self.orders[body["id"]] = body
        return Reply(200, body)


def _require(body: Any, required: set[str], known: set[str]) -> None:
    _check(required <= set(body) <= known)


def _check(holds: bool) -> None:
    if not holds:
        raise _ProblemError(400, "Invalid Resource")
