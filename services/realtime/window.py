"""The newest responses of a selection of messages, which all streams of that selection share."""

from __future__ import annotations

import asyncio
from collections import deque
from dataclasses import dataclass
from typing import Final

from kit.streams.stream import Offer
from services.realtime.selection import EventsFrame, memory_of

_MOST_FRAMES: Final = 512
_SECONDS: Final = 60.0
"""How long a response is kept for slow readers; what was erased since must not be."""


@dataclass(frozen=True, slots=True)
class Numbered:
    """A response with the numbers of its messages, counted since the window was made."""

    frame: EventsFrame
    first: int
    """Number of its first message."""
    end: int
    """Number of the next response's first message."""
    at: float
    """When it was added, in seconds of the loop's clock."""
    size: int
    """About its memory in bytes."""


class Follower:
    """A reader that has read everything, to which each further response is offered when it is added, until it refuses one."""

    __slots__ = ("cursor", "number", "offer", "woken")

    def __init__(self, offer: Offer, number: int, cursor: str) -> None:
        self.offer = offer
        self.woken = asyncio.Event()
        """Set when it has refused a response, or shall look again."""
        self.number = number
        """Number of the message that it reads next, once it does not follow any more."""
        self.cursor = cursor
        """The cursor before that message."""


class Window:
    """Keeps responses in a bounded memory, for any number of readers at their own pace.

    A reader holds the number of the message it reads next, and nothing else: one that does not read costs nothing. When that number
    has left the window, the difference is how many messages it has missed.
    """

    def __init__(self, cursor: str) -> None:
        self.end = 0
        """Number of the next message."""
        self.changed = asyncio.Event()
        """Set, and replaced, when something is added."""
        self.left = cursor
        """The cursor after the messages that are no longer kept."""
        self.added_at = 0.0
        """When something was last added, in seconds of the loop's clock."""
        self._kept: deque[Numbered] = deque()
        self._bytes = 0
        self._followers: set[Follower] = set()

    @property
    def first(self) -> int:
        """Number of the first message that is kept; that of the next one if none is."""
        return self._kept[0].first if self._kept else self.end

    @property
    def cursor(self) -> str:
        """The cursor after the newest response."""
        return self._kept[-1].frame.cursor if self._kept else self.left

    def add(self, frame: EventsFrame, messages: int, now: float, most_bytes: int) -> None:
        """Adds a response.

        Args:
            frame: the response.
            messages: number of its messages.
            now: the time on the loop's clock, in seconds.
            most_bytes: memory of the responses that are kept; the newest one is kept whatever its size.
        """
        added = Numbered(frame, self.end, self.end + messages, now, memory_of(frame))
        refused = [each for each in self._followers if not each.offer(frame)]
        for each in refused:
            self.leave(each)
            each.woken.set()
        self.end, self.added_at = added.end, now
        self._kept.append(added)
        self._bytes += added.size
        while len(self._kept) > 1 and (len(self._kept) > _MOST_FRAMES or self._bytes > most_bytes):
            self._drop()
        self._notify()

    def follow(self, offer: Offer) -> Follower:
        """Adds a reader that has read everything."""
        follower = Follower(offer, self.end, self.cursor)
        self._followers.add(follower)
        return follower

    def leave(self, follower: Follower) -> None:
        """Removes a reader, which knows from then on how far it has come; does nothing if it has refused a response."""
        if follower in self._followers:
            self._followers.remove(follower)
            follower.number, follower.cursor = self.end, self.cursor

    def expire(self, now: float) -> None:
        """Drops responses that were kept long enough."""
        while self._kept and self._kept[0].at < now - _SECONDS:
            self._drop()

    def at(self, number: int) -> Numbered | None:
        """Returns the response that begins with a message; None when it is still to come.

        Raises:
            LookupError: it is not kept any more.
        """
        if number == self.end:
            return None
        for each in reversed(self._kept):
            if each.first == number:
                return each
        raise LookupError(number)

    def wake(self) -> None:
        """Lets all readers look again."""
        for each in self._followers:
            each.woken.set()
        self._notify()

    def _notify(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()

    def _drop(self) -> None:
        dropped = self._kept.popleft()
        self._bytes -= dropped.size
        self.left = dropped.frame.cursor
