"""What a stream of events shows: which messages, and how much of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from pmp.realtime.v1 import realtime_pb2 as pb

from kit.streams.stream import Frame
from services.realtime.messages import Live

_ENCODED: Final = 4
"""Memory of a response by its size on the wire."""

EventsFrame: TypeAlias = Frame[pb.StreamEventsResponse]


@dataclass(frozen=True, slots=True)
class Selection:
    """Selects messages. Streams with equal selections share their responses."""

    types: frozenset[str]
    """Only these types; empty for all."""
    courses: frozenset[str]
    """Only messages about one of these courses; empty for all."""
    personal: bool
    """Shows personal data."""

    def response(self, messages: Sequence[Live], cursor: str, *, trimmed: bool = False) -> EventsFrame:
        """Makes the response with those of the messages that are selected.

        Args:
            messages: in order.
            cursor: of the position after them.
            trimmed: whether some before them are no longer in the topics.
        """
        selected = [each.full if self.personal else each.shown for each in messages if self._takes(each)]
        return Frame(pb.StreamEventsResponse(cursor=cursor, messages=selected, trimmed=trimmed), cursor)

    def _takes(self, message: Live) -> bool:
        if self.types and message.full.type not in self.types:
            return False
        return not self.courses or not self.courses.isdisjoint(message.courses)


def memory_of(frame: EventsFrame) -> int:
    """Returns about how many bytes of memory a response takes: as a message, and as the JSON of each kind of stream."""
    return _ENCODED * frame.message.ByteSize()


def position(cursor: str, *, missed: int = 0) -> EventsFrame:
    """Makes a response without messages: a heartbeat, or the number of those that were missed before the cursor."""
    return Frame(pb.StreamEventsResponse(cursor=cursor, missed=missed), cursor)


def last(cursor: str, come_back_after: float) -> EventsFrame:
    """Makes the last response of a stream that the server ends."""
    message = pb.StreamEventsResponse(cursor=cursor)
    message.come_back_after.FromMilliseconds(round(come_back_after * 1000))
    return Frame(message, cursor, come_back_after=come_back_after)
