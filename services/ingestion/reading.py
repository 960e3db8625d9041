"""Reads events from JSON bodies, each independently: an unreadable one does not affect the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Any, Final

from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb

from kit.errors import InvalidRequest, Violation
from kit.json_body.notes import Notes
from kit.json_body.reader import JsonReader
from kit.json_body.values import parse

_MOST: Final = 500
"""The limit of the proto. One more is enough to break its rule; the rest need not be read."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Notes on a batch."""

    notes: dict[int, Notes] = field(default_factory=dict[int, Notes])
    """Notes on its events, by their index; only of events with any."""
    ignored: Sequence[str] = ()
    """Unknown fields beside the events."""


class Reading:
    """Reads the JSON bodies of requests into their events. A native request is left unchanged.

    Args:
        timezone: of times without a zone.
    """

    def __init__(self, timezone: tzinfo) -> None:
        self._reader = JsonReader(event_pb2.Event.DESCRIPTOR, timezone)

    def event(self, request: pb.TrackEventRequest) -> Notes:
        """Reads the body of a single event.

        Raises:
            InvalidRequest: it is not JSON.
        """
        notes = Notes()
        if request.json_body.data:
            body = parse(request.json_body.data)
            request.ClearField("event")
            self._reader.fill(request.event, body, notes)
            if request.strict:
                notes.violations = [*notes.strict()]
        return notes

    def events(self, request: pb.TrackEventsRequest) -> Batch:
        """Reads the body of a batch: an event for each element, whatever the element is.

        Raises:
            InvalidRequest: it is not JSON, not an object, or has no list of events.
        """
        if not request.json_body.data:
            return Batch()
        body = parse(request.json_body.data)
        request.ClearField("json_body")
        request.ClearField("events")
        elements: Any = body.get("events") if isinstance(body, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if not isinstance(elements, list):
            raise InvalidRequest([Violation("events", "is not a list")])
        beside = Notes()
        for name in body:  # pyright: ignore[reportUnknownVariableType]
            if name not in {"events", "strict"}:
                beside.ignore("", name)  # pyright: ignore[reportUnknownArgumentType]
        if request.strict and beside.ignored:
            raise InvalidRequest(beside.strict())
        found: dict[int, Notes] = {}
        notes, events, strict = Notes(), request.events, request.strict
        for number, element in enumerate(elements[: _MOST + 1]):  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
            self._reader.add(events, element, notes)
            if strict:
                notes.violations = [*notes.strict()]
            if notes.is_remarkable:
                found[number], notes = notes, Notes()
        return Batch(found, beside.ignored)
