"""A double of Brevo's API, version 3, with the rules of its public reference: contacts, lists, events and orders."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from typing_extensions import override

from tests.vendor import Reply, Request, Vendor

KEY: Final = "xkeysib-0123456789abcdef"
LIST: Final = 7
COURSE_LIST: Final = 8
_ATTRIBUTES: Final = {"FIRSTNAME": str, "LASTNAME": str, "STAGE": str, "LTV": float}
"""Those of the account, with their types."""
_CONTACT: Final = {"email", "ext_id", "attributes", "emailBlacklisted", "smsBlacklisted", "listIds", "updateEnabled", "smtpBlacklistSender"}
_CHANGES: Final = _CONTACT - {"email", "updateEnabled"} | {"unlinkListIds"}
_EVENT: Final = {"event_name", "event_date", "identifiers", "event_properties", "contact_properties"}
_ORDER: Final = {"id", "createdAt", "updatedAt", "status", "amount", "storeId", "identifiers", "products", "billing", "coupons", "metaInfo"}
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ")


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, message: str = "") -> None:
        super().__init__(code)
        # As in the real one, the message may repeat the address.
        self.reply = Reply(status, {"code": code, "message": message or code})


@dataclass
class Brevo(Vendor):
    """An account with the eCommerce app and two lists."""

    contacts: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """By address in lower case, as Brevo keeps it."""
    events: list[Any] = field(default_factory=list[Any])
    orders: dict[str, Any] = field(default_factory=dict[str, Any])
    has_shop: bool = True
    """The eCommerce app is active."""

    @override
    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _RefusedError as refused:
            return refused.reply

    def leave(self, email: str, kind: str, at: datetime) -> None:
        """The person unsubscribes (`userUnsubscription`), complains (`complaints`) or its address bounces (`hardBounces`)."""
        contact = self.contacts[email.lower()]
        happened = [{"campaignId": 1, "eventTime": at.isoformat()}]
        contact["emailBlacklisted"] = True
        contact["statistics"] = {"unsubscriptions": {kind: happened}} if kind.endswith("Unsubscription") else {kind: happened}

    def names(self, email: str) -> list[str]:
        """The names of the events of a contact, in the order of their arrival."""
        return [each["event_name"] for each in self.events if each["identifiers"]["email_id"] == email]

    def _answer(self, request: Request) -> Reply:
        if request.headers.get("api-key") != KEY:
            raise _RefusedError(401, "unauthorized", "Key not found")
        match (request.method, *request.path.removeprefix("/v3/").split("/")):
            case ("POST", "contacts"):
                return self._create(request.body)
            case ("GET", "contacts", "lists", number):
                return self._list(number)
            case (method, "contacts", identifier):
                return self._contact(method, identifier, request)
            case ("POST", "events"):
                return self._record(request.body)
            case ("POST", "orders", "status"):
                return self._order(request.body)
            case _:
                raise _RefusedError(404, "document_not_found")

    def _list(self, number: str) -> Reply:
        if int(number) not in {LIST, COURSE_LIST}:
            raise _RefusedError(404, "document_not_found", "List ID does not exist")
        return Reply(200, {"id": int(number), "name": "Newsletter"})

    def _create(self, body: Any) -> Reply:
        _check({"email"} <= set(body) <= _CONTACT)
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", body["email"]):
            raise _RefusedError(400, "invalid_parameter", f"{body['email']} is not valid")
        email = body["email"].lower()
        is_new = email not in self.contacts
        if not (is_new or body.get("updateEnabled")):
            raise _RefusedError(400, "duplicate_parameter", "Contact already exist")
        known = self.contacts.setdefault(
            email, {"id": len(self.contacts) + 1, "email": email, "emailBlacklisted": False, "listIds": [], "attributes": {}}
        )
        self._change(known, body)
        return Reply(201, {"id": known["id"]}) if is_new else Reply(204)

    def _contact(self, method: str, identifier: str, request: Request) -> Reply:
        kind = request.query.get("identifierType", "")
        _check(kind in {"email_id", "contact_id"})
        by_id = {str(each["id"]): each for each in self.contacts.values()}
        found = by_id.get(identifier) if kind == "contact_id" else self.contacts.get(identifier.lower())
        if found is None:
            raise _RefusedError(404, "document_not_found", "Contact does not exist")
        if method == "PUT":
            _check(set(request.body) <= _CHANGES)
            self._change(found, request.body)
            return Reply(204)
        if method == "DELETE":
            del self.contacts[found["email"]]
            return Reply(204)
        _check(method == "GET")
        return Reply(200, {"listUnsubscribed": None, "statistics": {}, **found})

    def _change(self, contact: dict[str, Any], body: Any) -> None:
        for name, value in body.get("attributes", {}).items():
            # What the account does not have, or is of another type, is ignored, as by the real one.
            if name == "EMAIL":
                self._readdress(contact, str(value).lower())
            elif name in _ATTRIBUTES and isinstance(value, _ATTRIBUTES[name]):
                contact["attributes"][name] = value
        for list_id in (*body.get("listIds", ()), *body.get("unlinkListIds", ())):
            _check(list_id in {LIST, COURSE_LIST})
        lists = {*contact["listIds"], *body.get("listIds", ())} - {*body.get("unlinkListIds", ())}
        contact |= {"listIds": sorted(lists), "emailBlacklisted": body.get("emailBlacklisted", contact["emailBlacklisted"])}

    def _readdress(self, contact: dict[str, Any], email: str) -> None:
        """Subscribes the contact again, as the real one does."""
        if email in self.contacts:
            raise _RefusedError(400, "duplicate_parameter", f"{email} is already associated with another Contact")
        self.contacts[email] = self.contacts.pop(contact["email"])
        contact |= {"email": email, "emailBlacklisted": False}

    def _record(self, body: Any) -> Reply:
        _check({"event_name", "identifiers"} <= set(body) <= _EVENT and body["identifiers"].keys() == {"email_id"})
        _check(re.fullmatch(r"[A-Za-z0-9_-]{1,255}", body["event_name"]) is not None and _TIME.fullmatch(body["event_date"]) is not None)
        self.events.append(body)
        return Reply(204)

    def _order(self, body: Any) -> Reply:
        if not self.has_shop:
            raise _RefusedError(400, "bad_request", "eCommerce is not activated")
        _check({"id", "createdAt", "updatedAt", "status", "amount", "products"} <= set(body) <= _ORDER and body["products"] != [])
        _check(all(_TIME.fullmatch(body[name]) for name in ("createdAt", "updatedAt")))
        for product in body["products"]:
            _check({"productId", "quantity", "price"} <= set(product) <= {"productId", "quantity", "price", "variantId"})
            _check(isinstance(product["quantity"], int) and product["quantity"] > 0)
        self.orders[body["id"]] = body
        return Reply(204)


def _check(holds: bool) -> None:
    if not holds:
        raise _RefusedError(400, "invalid_parameter")
