"""A double of Klaviyo's API of revision 2026-07-15, with the rules of its OpenAPI document: profiles, subscriptions and events."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from typing_extensions import override

from tests.vendor import Reply, Request, Vendor

KEY: Final = "pk_0123456789abcdef0123456789abcdef01"
LIST: Final = "Y6nRLr"
REVISION: Final = "2026-07-15"
_PROFILE: Final = {"email", "first_name", "last_name", "locale", "properties"}
_EVENT: Final = {"metric", "properties", "time", "value", "value_currency", "unique_id", "backfill"}


class _RefusedError(Exception):
    def __init__(self, status: int, code: str, detail: str = "") -> None:
        super().__init__(code)
        errors = [{"id": "e-1", "status": status, "code": code, "title": code, "detail": detail, "source": {"pointer": "/data"}}]
        self.reply = Reply(status, {"errors": errors}, {"content-type": "application/vnd.api+json"})


@dataclass
class Klaviyo(Vendor):
    """An account with one list."""

    profiles: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Attributes by address."""
    marketing: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    """Subscriptions to marketing e-mails by address."""
    listed: set[str] = field(default_factory=set[str])
    """Addresses on the list."""
    events: dict[tuple[str, str, str], Any] = field(default_factory=dict[tuple[str, str, str], Any])
    """By address, metric and unique id."""
    deleted: list[str] = field(default_factory=list[str])

    @override
    def answer(self, request: Request) -> Reply:
        try:
            return self._answer(request)
        except _RefusedError as refused:
            return refused.reply

    def withdraw(self, email: str, reason: str, at: datetime) -> None:
        """The person unsubscribes, complains or bounces."""
        consent = "UNSUBSCRIBED" if reason == "UNSUBSCRIBE" else "SUBSCRIBED"
        suppression = [{"reason": reason, "timestamp": at.isoformat()}]
        self.marketing[email] = {"can_receive_email_marketing": False, "consent": consent, "suppression": suppression}

    def metrics(self, email: str) -> list[str]:
        """Returns the metrics of the events of a profile, in the order of their arrival."""
        return [metric for address, metric, _ in self.events if address == email]

    def _answer(self, request: Request) -> Reply:
        if request.headers.get("authorization") != f"Klaviyo-API-Key {KEY}":
            raise _RefusedError(401, "not_authenticated")
        if request.headers.get("revision") != REVISION:
            raise _RefusedError(400, "invalid_revision")
        if request.body is not None and request.headers.get("content-type") != "application/vnd.api+json":
            raise _RefusedError(415, "unsupported_media_type")
        if (request.method, request.path) == ("GET", "/api/profiles"):
            return self._found(request)
        if request.method == "PATCH" and request.path.startswith("/api/profiles/id-"):
            return self._change(request.path.removeprefix("/api/profiles/"), request.body)
        handlers: dict[str, Callable[[Any], Reply]] = {
            "/api/profile-import": self._import,
            "/api/profile-subscription-bulk-create-jobs": self._subscribe,
            "/api/profile-subscription-bulk-delete-jobs": self._unsubscribe,
            "/api/events": self._record_one,
            "/api/event-bulk-create-jobs": self._record_all,
            "/api/data-privacy-deletion-jobs": self._delete,
        }
        if request.method != "POST" or request.path not in handlers:
            raise _RefusedError(404, "not_found")
        return handlers[request.path](request.body)

    def _unsubscribe(self, body: Any) -> Reply:
        [(email, consent)] = _consents(_attributes(body, "profile-subscription-bulk-delete-job"))
        _check(consent == "UNSUBSCRIBED")
        self.withdraw(email, "UNSUBSCRIBE", datetime.now(UTC))
        return Reply(202)

    def _delete(self, body: Any) -> Reply:
        self.deleted.append(_identified(_attributes(body, "data-privacy-deletion-job")["profile"]["data"]))
        self.profiles.pop(self.deleted[-1], None)
        return Reply(202)

    def _found(self, request: Request) -> Reply:
        asked = re.fullmatch(r'equals\(email,"([^"]+)"\)', request.query.get("filter", ""))
        if asked is None:
            _check(request.query.get("page[size]") == "1" and "filter" not in request.query)
            return Reply(200, {"data": []})
        return Reply(200, {"data": [self._resource(asked[1])] if asked[1] in self.profiles else []})

    def _resource(self, email: str) -> dict[str, Any]:
        known = self.marketing.get(email) or {"can_receive_email_marketing": True, "consent": "NEVER_SUBSCRIBED", "suppression": []}
        subscriptions = {"email": {"marketing": known}, "sms": None}
        return {"type": "profile", "id": f"id-{email}", "attributes": {"subscriptions": subscriptions}}

    def _import(self, body: Any) -> Reply:
        attributes = _attributes(body, "profile")
        email = attributes["email"]
        _check(attributes.keys() <= _PROFILE and all(attributes.values()))
        if not re.fullmatch(r"[^@\s]+@[^@\s]+\.[a-z]+", email):
            raise _RefusedError(400, "invalid", f"{email} is not a valid e-mail address")
        is_new = email not in self.profiles
        known = self.profiles.get(email, {"properties": {}})
        self.profiles[email] = known | attributes | {"properties": known["properties"] | attributes["properties"]}
        return Reply(201 if is_new else 200, {"data": self._resource(email)})

    def _change(self, id_: str, body: Any) -> Reply:
        _check(body["data"].keys() == {"type", "id", "attributes"} and (body["data"]["type"], body["data"]["id"]) == ("profile", id_))
        former, email = id_.removeprefix("id-"), body["data"]["attributes"]["email"]
        if email in self.profiles:
            raise _RefusedError(409, "duplicate_profile", f"A profile already exists with {email}")
        self.profiles[email] = self.profiles.pop(former) | {"email": email}
        if former in self.marketing:
            self.marketing[email] = self.marketing.pop(former)
        return Reply(200, {"data": self._resource(email)})

    def _subscribe(self, body: Any) -> Reply:
        """Lifts suppressions, as the real one does."""
        relationships = body["data"].get("relationships", {})
        job = {"data": {name: value for name, value in body["data"].items() if name != "relationships"}}
        [(email, consent)] = _consents(_attributes(job, "profile-subscription-bulk-create-job"))
        _check(consent == "SUBSCRIBED")
        if relationships:
            _check(relationships == {"list": {"data": {"type": "list", "id": LIST}}})
            self.listed.add(email)
        self.marketing[email] = {"can_receive_email_marketing": True, "consent": "SUBSCRIBED", "suppression": []}
        return Reply(202)

    def _record(self, email: str, attributes: dict[str, Any]) -> None:
        _check({"metric", "properties"} <= attributes.keys() <= _EVENT and len(attributes["properties"]) <= 400)
        metric = attributes["metric"]["data"]["attributes"]["name"]
        _check(attributes["metric"] == {"data": {"type": "metric", "attributes": {"name": metric}}} and len(metric) < 128)
        _check(datetime.fromisoformat(attributes["time"]).tzinfo is not None)
        _check(("value" in attributes) == ("value_currency" in attributes))
        self.events.setdefault((email, metric, attributes["unique_id"]), attributes)

    def _record_one(self, body: Any) -> Reply:
        attributes = _attributes(body, "event")
        self._record(_identified(attributes.pop("profile")["data"]), attributes)
        return Reply(202)

    def _record_all(self, body: Any) -> Reply:
        for each in _attributes(body, "event-bulk-create-job")["events-bulk-create"]["data"]:
            _check(each["type"] == "event-bulk-create" and each["attributes"].keys() == {"profile", "events", "backfill"})
            email, data = _identified(each["attributes"]["profile"]["data"]), each["attributes"]["events"]["data"]
            _check(0 < len(data) <= 1000)
            for event in data:
                self._record(email, _attributes({"data": event}, "event"))
        return Reply(202)


def _attributes(body: Any, resource: str) -> dict[str, Any]:
    """Returns the attributes of a document that consists of them and its type."""
    _check(body.keys() == {"data"} and body["data"].keys() == {"type", "attributes"})
    _check(body["data"]["type"] == resource)
    return dict(body["data"]["attributes"])


def _consents(attributes: dict[str, Any]) -> list[tuple[str, str]]:
    _check(attributes.keys() == {"profiles"} and 0 < len(attributes["profiles"]["data"]) <= 100)
    found: list[tuple[str, str]] = []
    for each in attributes["profiles"]["data"]:
        _check(each["type"] == "profile" and each["attributes"].keys() == {"email", "subscriptions"})
        found.append((each["attributes"]["email"], each["attributes"]["subscriptions"]["email"]["marketing"]["consent"]))
    return found


def _identified(profile: Any) -> str:
    """Returns the address of a profile that is identified by exactly that."""
    _check(profile.keys() == {"type", "attributes"} and profile["type"] == "profile" and profile["attributes"].keys() == {"email"})
    return str(profile["attributes"]["email"])


def _check(holds: bool) -> None:
    if not holds:
        raise _RefusedError(400, "invalid")
