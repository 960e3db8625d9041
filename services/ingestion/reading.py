"""Reads an event from the JSON body of a request."""

from __future__ import annotations

from datetime import tzinfo

from pmp.ingestion.v1 import event_pb2
from pmp.ingestion.v1 import ingestion_pb2 as pb

from kit.json_body.notes import Notes
from kit.json_body.reader import JsonReader
from kit.json_body.values import parse


class EventReader:
    """Reads the JSON bodies of requests with a single event. A native request is left unchanged.

    Args:
        timezone: of times without a zone.
    """

    def __init__(self, timezone: tzinfo) -> None:
        self._reader = JsonReader(event_pb2.Event.DESCRIPTOR, timezone)

    def read(self, request: pb.TrackEventRequest) -> Notes:
        """Reads the body, if there is one.

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
