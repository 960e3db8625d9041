"""A double of Meta's Conversions API: it refuses what the real one refuses, with the errors of the Graph API.

The rules are those of developers.facebook.com/docs/marketing-api/conversions-api (parameters, deduplication, using the API).
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.doubles.server import Answer, Call, listening

DATASET = "123456789012345"
TOKEN = "the-token"

_HASHED = {"em", "ph", "fn", "ln", "db", "ge", "ct", "st", "zp", "country", "external_id"}
_PLAIN = {"client_ip_address", "client_user_agent", "fbc", "fbp"}
_EVENT_KEYS = {
    *("event_name", "event_time", "event_id", "event_source_url", "action_source", "user_data", "custom_data", "opt_out"),
    *("data_processing_options", "data_processing_options_country", "data_processing_options_state"),
}
_CUSTOM_KEYS = {"value", "currency", "order_id", "content_type", "content_ids", "contents", "num_items", "content_name"}
_SOURCES = {"email", "website", "app", "phone_call", "chat", "physical_store", "system_generated", "business_messaging", "other"}
_WEEK = 7 * 86_400
_DEDUPLICATED_SECONDS = 48 * 3600


@dataclass
class Meta:
    """A dataset."""

    url: str = ""
    error: dict[str, Any] | None = None
    """Answered instead of taking anything."""
    status: int = 400
    """Status of that error."""
    headers: tuple[tuple[str, str], ...] = ()
    refuses: set[str] = field(default_factory=set[str])
    """Ids of events that it refuses, for a reason that no documentation states."""
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """Events that were taken, repetitions too."""
    test_codes: set[str] = field(default_factory=set[str])
    requests: list[int] = field(default_factory=list[int])
    """The number of events of each request."""
    refused: list[str] = field(default_factory=list[str])
    """The rules that requests broke."""

    def counted(self) -> list[dict[str, Any]]:
        """The events that count: of those with one name and id within 48 hours, the first."""
        first: dict[tuple[str, str], dict[str, Any]] = {}
        for event in self.events:
            known = first.setdefault((event["event_name"], event["event_id"]), event)
            assert abs(known["event_time"] - event["event_time"]) <= _DEDUPLICATED_SECONDS
        return list(first.values())

    def answer(self, call: Call) -> Answer:
        """Answers a request."""
        sent = json.loads(call.body)
        self.requests.append(len(sent["data"]))
        if self.error is not None:
            return Answer(self.status, {"error": self.error}, self.headers)
        if sent.get("access_token") != TOKEN:
            return _refusal(190, "Invalid OAuth access token - Cannot parse access token", status=401, kind="OAuthException")
        if not re.fullmatch(rf"/v\d+\.0/{DATASET}/events", call.path):
            return _refusal(100, "Unsupported post request. Object does not exist", subcode=33)
        wrong = list(_wrong_request(sent))
        self.refused += wrong
        wrong += [each["event_id"] for each in sent["data"] if each["event_id"] in self.refuses]
        if wrong:
            # The message quotes what was sent.
            return _refusal(100, f"Invalid parameter: {sent['data'][:1]}", subcode=2804003)
        self.events += sent["data"]
        self.test_codes |= {sent["test_event_code"]} if "test_event_code" in sent else set()
        return Answer(200, {"events_received": len(sent["data"]), "messages": [], "fbtrace_id": "A"})


@contextmanager
def meta() -> Generator[Meta]:
    """Listens on loopback until the block ends."""
    double = Meta()
    with listening(double.answer) as double.url:
        yield double


def _refusal(code: int, message: str, *, subcode: int | None = None, status: int = 400, kind: str = "GraphMethodException") -> Answer:
    error: dict[str, Any] = {"message": message, "type": kind, "code": code, "fbtrace_id": "A"}
    return Answer(status, {"error": error if subcode is None else {**error, "error_subcode": subcode}})


def _wrong_request(sent: dict[str, Any]) -> Iterator[str]:
    if sent.keys() - {"data", "access_token", "test_event_code", "partner_agent"}:
        yield f"keys: {sent.keys()}"
    if len(sent["data"]) not in range(1, 1001):
        yield f"{len(sent['data'])} events"
    for event in sent["data"]:
        yield from wrong_event(event)


def wrong_event(event: dict[str, Any]) -> Iterator[str]:
    """Yields the rules that an event breaks."""
    if unknown := event.keys() - _EVENT_KEYS:
        yield f"unknown: {unknown}"
    age = time.time() - event["event_time"]
    if not isinstance(event["event_time"], int) or not -60 <= age <= _WEEK:
        yield f"event_time: {age} s old"
    if not event["event_id"]:
        yield "no event_id"
    if event["action_source"] not in _SOURCES:
        yield f"action_source: {event['action_source']}"
    user, custom = event["user_data"], event.get("custom_data", {})
    if event["action_source"] == "website" and not (
        re.match("https?://.", event.get("event_source_url", "")) and user.get("client_user_agent")
    ):
        yield "an event of the website without its page or browser"
    yield from _wrong_user(user)
    if custom.keys() - _CUSTOM_KEYS:
        yield f"custom_data: {custom.keys()}"
    if event["event_name"] == "Purchase" and not (
        re.fullmatch("[A-Z]{3}", custom.get("currency", "")) and isinstance(custom.get("value"), int | float) and custom["value"] >= 0
    ):
        yield f"Purchase: {custom}"
    if event.get("data_processing_options") and not {"data_processing_options_country", "data_processing_options_state"} <= event.keys():
        yield "data_processing_options without a place"


def _wrong_user(user: dict[str, Any]) -> Iterator[str]:
    if unknown := user.keys() - _HASHED - _PLAIN:
        yield f"user_data: {unknown}"
    if not user.keys() - {"client_user_agent", "country", "ct", "st", "zp"}:
        yield "user_data: nothing to match by"
    for key in user.keys() & _HASHED:
        if not all(re.fullmatch("[0-9a-f]{64}", digest) for digest in user[key]):
            yield f"{key} is no SHA-256"
    for key in user.keys() & {"fbp", "fbc"}:
        if not re.fullmatch(r"fb\.[0-2]\.\d{10,}\..+", user[key]):
            yield f"{key}: {user[key]}"
