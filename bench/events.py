"""The events of the benchmarks: page views as the shop's plugin reports them, with distinct ids."""

from __future__ import annotations

import json
from typing import Any, Final

from google.protobuf.json_format import ParseDict
from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb

_EVENT: Final[dict[str, Any]] = {
    "id": "%s",
    "timestamp": "2026-11-01T10:00:00Z",
    "event_type": "page_view",
    "event_category": "engagement",
    "user_id": "%s",
    "session_id": "session-%s",
    "page_url": "https://shop.example/courses/course-%s/?utm_source=newsletter&utm_medium=email",
    "page_title": "PMP Certification: the complete course",
    "referrer": "https://www.google.com/",
    "utm_parameters": {"source": "newsletter", "medium": "email", "campaign": "november"},
    "user_agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "ip_address": "203.0.113.7",
    "metadata": {"course_id": "pmp-certification", "scroll_depth": 40},
}
USERS: Final = 5_000
"""Number of users of the events; as in requests.lua and steady.js."""
SESSIONS: Final = 20_000
"""Number of sessions."""
COURSES: Final = 300
"""Number of pages."""


def template() -> str:
    """JSON of one event in which `%s` stands for its id, its user, the number of its session and that of its course, in this order."""
    return json.dumps(_EVENT, separators=(",", ":"))


def batch(run: str, first: int, size: int) -> pb.TrackEventsRequest:
    """Events numbered from `first`; their ids begin with `run`."""
    return pb.TrackEventsRequest(events=[_event(run, number) for number in range(first, first + size)])


def _event(run: str, number: int) -> event_pb2.Event:
    event = event_pb2.Event()
    event.CopyFrom(_PATTERN)
    event.id = f"{run}{number}"
    event.user_id = str(number % USERS)
    event.session_id = f"session-{number % SESSIONS}"
    event.page_url = event.page_url.replace("%s", str(number % COURSES))
    return event


_PATTERN: Final = ParseDict(_EVENT, event_pb2.Event())
