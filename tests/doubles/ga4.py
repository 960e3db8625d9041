"""A double of Google Analytics' Measurement Protocol: it answers 204 to everything, and records what would have been ignored.

The rules are those of developers.google.com/analytics/devguides/collection/protocol/ga4 (reference, events, limits). Users are deleted
as the Admin API does it, for a service account with a token of OAuth.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, cast
from urllib.parse import parse_qs

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.doubles.server import Answer, Call, listening

SECRET = "the-secret"
STREAM = "G-TEST1234"
PROPERTY = "123456789"
ACCOUNT = "mesh@project.iam.gserviceaccount.com"

_BODY_KEYS = {
    *("client_id", "user_id", "timestamp_micros", "user_properties", "user_data", "consent", "user_location", "ip_override"),
    *("device", "user_agent", "validation_behavior", "events"),
}
_RESERVED = """
    ad_activeview ad_click ad_exposure ad_query ad_reward adunit_exposure app_clear_data app_exception app_install app_remove
    app_store_refund app_store_subscription_cancel app_store_subscription_convert app_store_subscription_renew app_update app_upgrade
    dynamic_link_app_open dynamic_link_app_update dynamic_link_first_open error firebase_campaign firebase_in_app_message_action
    firebase_in_app_message_dismiss firebase_in_app_message_impression first_open first_visit in_app_purchase notification_dismiss
    notification_foreground notification_open notification_receive os_update session_start user_engagement
    """.split()  # noqa: SIM905 (thirty words)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}")
_CLIENT_ID = re.compile(r"[1-9]\d*\.[1-9]\d*")
_PREFIXES = ("_", "firebase_", "ga_", "google_", "gtag.")
_LONGER = {"page_location": 1000, "page_referrer": 420, "page_title": 300}
_HOURS_72 = 72 * 3600
_REQUIRED = {
    "page_view": set[str](),
    "generate_lead": set[str](),
    "sign_up": set[str](),
    "begin_checkout": set[str](),
    "purchase": {"transaction_id", "currency", "value", "items"},
    "refund": {"transaction_id", "currency", "value"},
}
_WORTH = {"generate_lead", "begin_checkout", "purchase", "refund"}
_ITEM_KEYS = {"item_id", "item_name", "item_category", "price", "quantity"}


@dataclass
class GoogleAnalytics:
    """A property."""

    url: str = ""
    status: int = 204
    headers: tuple[tuple[str, str], ...] = ()
    bodies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What was collected, in the order of arrival."""
    validated: int = 0
    """Requests to the validator, which stores nothing."""
    deleted: list[str] = field(default_factory=list[str])
    """User ids that were deleted."""
    deletion_status: int = 200
    accepts_accounts: bool = True
    violations: list[str] = field(default_factory=list[str])
    """Why something would have been ignored, wholly or in part."""
    key: rsa.RSAPrivateKey = field(default_factory=lambda: rsa.generate_private_key(65537, 2048), repr=False)
    """The key of the service account."""

    def named(self, name: str) -> list[dict[str, Any]]:
        """The parameters of the events of this name."""
        return [event["params"] for body in self.bodies for event in body["events"] if event["name"] == name]

    def revenue(self) -> float:
        """Purchases, each transaction once, less refunds."""
        sold = {params["transaction_id"]: params["value"] for params in reversed(self.named("purchase"))}
        return round(sum(sold.values()) - sum(params["value"] for params in self.named("refund")), 2)

    def service_account(self) -> str:
        """The key file of a service account that may edit the property."""
        pem = self.key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()).decode()
        return json.dumps(
            {
                "type": "service_account",
                "client_email": ACCOUNT,
                "private_key": pem,
                "private_key_id": "k1",
                "token_uri": f"{self.url}/token",
            }
        )

    def _token(self, call: Call) -> Answer:
        form = {name: values[-1] for name, values in parse_qs(call.body.decode()).items()}
        if not self.accepts_accounts or form["grant_type"] != "urn:ietf:params:oauth:grant-type:jwt-bearer":
            return Answer(401, {"error": "invalid_grant"})
        claims = jwt.decode(form["assertion"], self.key.public_key(), algorithms=["RS256"], audience=f"{self.url}/token", issuer=ACCOUNT)
        assert claims["exp"] - claims["iat"] <= 3600
        assert claims["scope"] == "https://www.googleapis.com/auth/analytics.edit"
        return Answer(200, {"access_token": "ya29.token", "expires_in": 3599, "token_type": "Bearer"})

    def _delete(self, call: Call) -> Answer:
        if call.headers.get("authorization") != "Bearer ya29.token":
            return Answer(401, {"error": {"status": "UNAUTHENTICATED"}})
        if self.deletion_status != 200:
            return Answer(self.deletion_status, {"error": {}})
        sent = json.loads(call.body)
        if len(sent.keys() & {"userId", "clientId", "appInstanceId", "userProvidedData"}) != 1 or len(sent) != 1:
            return Answer(400, {"error": {"status": "INVALID_ARGUMENT"}})
        self.deleted.append(sent["userId"])
        return Answer(200, {"deletionRequestTime": "2026-11-29T00:00:00Z"})

    def answer(self, call: Call) -> Answer:
        """Answers a request."""
        if call.path == "/token":
            return self._token(call)
        if call.path == f"/v1alpha/properties/{PROPERTY}:submitUserDeletion":
            return self._delete(call)
        found = [*_wrong_query(call), *violations_of(call.body)]
        if call.path == "/debug/mp/collect":
            self.validated += 1
            return Answer(200, {"validationMessages": [{"validationCode": "VALUE_INVALID", "description": each} for each in found]})
        if self.status in range(200, 300):
            self.violations += found
            self.bodies.append(json.loads(call.body))
        return Answer(self.status, headers=self.headers)


@contextmanager
def google_analytics() -> Generator[GoogleAnalytics]:
    """Listens on loopback until the block ends."""
    double = GoogleAnalytics()
    with listening(double.answer) as double.url:
        yield double


def _wrong_query(call: Call) -> Iterator[str]:
    if call.path not in ("/mp/collect", "/debug/mp/collect"):
        yield f"path: {call.path}"
    # The validator does not look at the credentials.
    if call.path == "/mp/collect" and call.query != {"measurement_id": STREAM, "api_secret": SECRET}:
        yield f"credentials: {call.query}"


def violations_of(body: bytes) -> Iterator[str]:
    """Yields the rules that a body breaks."""
    if len(body) > 130_000:
        yield "the body is too large"
    sent: dict[str, Any] = json.loads(body)
    if unknown := sent.keys() - _BODY_KEYS:
        yield f"unknown keys: {unknown}"
    if not _CLIENT_ID.fullmatch(sent.get("client_id", "")):
        yield f"client_id: {sent.get('client_id')}"
    if len(sent.get("user_id", "x")) not in range(1, 257):
        yield "user_id"
    age = time.time() - sent.get("timestamp_micros", time.time() * 1e6) / 1e6
    if not -1 <= age <= _HOURS_72:
        yield f"timestamp_micros: {age} s old"
    consent = sent.get("consent", {})
    if not consent.keys() <= {"ad_user_data", "ad_personalization"} or not set(consent.values()) <= {"GRANTED", "DENIED"}:
        yield f"consent: {consent}"
    events = sent.get("events", [])
    if len(events) not in range(1, 26):
        yield f"{len(events)} events"
    for event in events:
        yield from _wrong_event(event)


def _wrong_event(event: dict[str, Any]) -> Iterator[str]:
    name, params = event["name"], event["params"]
    if event.keys() - {"name", "params", "timestamp_micros"} or not _NAME.fullmatch(name) or name in _RESERVED or name not in _REQUIRED:
        yield f"event: {event.keys()}, {name}"
        return
    if missing := _REQUIRED[name] - params.keys():
        yield f"{name} without {missing}"
    if ("value" in params) != ("currency" in params) or ("value" in params and name not in _WORTH):
        yield f"{name}: value and currency come together"
    if not re.fullmatch("[A-Z]{3}", params.get("currency", "EUR")):
        yield f"currency: {params['currency']}"
    if len(params) > 25:
        yield "too many parameters"
    if not re.fullmatch(r"[1-9]\d*", params.get("session_id", "1")):
        yield f"session_id: {params['session_id']}"
    if params.get("engagement_time_msec", 0) <= 0:
        yield "engagement_time_msec: it will not show in Realtime"
    for key, value in params.items():
        yield from _wrong_parameter(key, value)


def _wrong_parameter(key: str, value: Any) -> Iterator[str]:
    if not _NAME.fullmatch(key) or key.startswith(_PREFIXES):
        yield f"parameter: {key}"
    match value:
        case str():
            if len(value) not in range(1, _LONGER.get(key, 100) + 1):
                yield f"{key} has {len(value)} characters"
        case bool():
            yield f"{key} is neither text nor number"
        case int() | float():
            if value < 0:
                yield f"{key}: {value}"
        case list() if key == "items":
            yield from _wrong_items(cast("list[dict[str, Any]]", value))
        case _:
            yield f"{key}: {value}"


def _wrong_items(items: list[dict[str, Any]]) -> Iterator[str]:
    if len(items) > 200:
        yield f"{len(items)} items"
    for item in items:
        if item.keys() - _ITEM_KEYS or not item.keys() & {"item_id", "item_name"} or item["quantity"] < 1 or not item["price"] >= 0:
            yield f"item: {item}"
        for key, value in item.items():
            if isinstance(value, str) and len(value) not in range(1, 101):
                yield f"item: {key} has {len(value)} characters"
