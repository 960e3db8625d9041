"""Streams of events and orders: each continues where it was left, and goes on with what is published."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from dataclasses import dataclass
from time import monotonic
from typing import Final, NamedTuple

from cachetools import TTLCache
from pmp.realtime.v1 import realtime_pb2 as pb

from kit.boundary.caller import bind_log_fields, caller
from kit.errors import InvalidRequest, Violation
from kit.streams.stream import Offer
from services.realtime.cursor import Positions, cursor_of, positions_of
from services.realtime.lifetime import Lifetime, Lifetimes, come_back_seconds
from services.realtime.messages import Live
from services.realtime.selection import EventsFrame, Selection, last, memory_of, position
from services.realtime.topics import Topics
from services.realtime.window import Follower, Window

_SHARED_SECONDS: Final = 5.0
"""How long a response for streams that catch up is kept: after a restart all of them come back with the same cursor."""
_ADMIN: Final = "admin"
"""The scope that is shown personal data."""


@dataclass(slots=True)
class _Progress:
    """How far a stream has come."""

    cursor: str
    """Of the last response."""
    sent: int = 0
    """Messages."""
    missed: int = 0


class _Passage(NamedTuple):
    """A response for streams that catch up, and the positions after it."""

    frame: EventsFrame
    positions: Positions


def _memory(passage: _Passage) -> int:
    return memory_of(passage.frame)


class LiveStreams:
    """The streams of events and orders of a process.

    Args:
        topics: what is streamed.
        lifetimes: of all streams of the process.
        window_bytes: memory of the responses that are kept for slow readers; as much again for those that catch up.
    """

    def __init__(self, topics: Topics, lifetimes: Lifetimes, window_bytes: int) -> None:
        self._topics = topics
        self._lifetimes = lifetimes
        self._window_bytes = window_bytes
        self._windows: dict[Selection, Window] = {}
        self._readers: Counter[Selection] = Counter()
        self._catching_up = asyncio.Lock()
        self._passages: TTLCache[tuple[Selection, str], _Passage] = TTLCache(window_bytes, _SHARED_SECONDS, monotonic, _memory)
        topics.listen(self._publish, self._lost)

    def end(self) -> None:
        """Ends all streams, also those that are opened from now on."""
        self._lifetimes.end_all(for_good=True)
        self._wake()

    async def open(self, request: pb.StreamEventsRequest, offer: Offer | None = None) -> AsyncGenerator[EventsFrame]:
        """Streams what is selected.

        Args:
            request: the selection.
            offer: is offered what is published while the stream has nothing older to yield; without it all is yielded.

        Raises:
            InvalidRequest: `since` is no cursor, or one of another log.
            Overloaded: there are too many streams.
            ConnectionError: the log is down.
        """
        who = caller()
        selection = Selection(frozenset(request.type), frozenset(request.course), personal=who.internal or who.scope == _ADMIN)
        with self._lifetimes.stream((who.client, who.scope, who.user)) as lifetime:
            async with self._topics.reading():
                since = await self._positions(request.since) if request.since else self._topics.published
                progress = _Progress(cursor_of(since))
                yield position(progress.cursor)
                try:
                    async with aclosing(self._frames(selection, since, lifetime, progress, offer)) as frames:
                        async for frame in frames:
                            yield frame
                            progress.cursor = frame.cursor
                            progress.sent += len(frame.message.messages)
                            progress.missed += frame.message.missed
                finally:
                    bind_log_fields(messages=progress.sent, missed=progress.missed)
                yield last(progress.cursor, come_back_seconds())

    async def _positions(self, since: str) -> Positions:
        """Returns the positions of a cursor once all of them have been published.

        Raises:
            InvalidRequest: it is no cursor, or reaches beyond the topics.
        """
        positions = positions_of(since, self._topics.partitions)
        if not await self._topics.reach(positions):
            message = "since lies after the newest message: it is of another mesh, or the log was restored"
            raise InvalidRequest([Violation("since", message)])
        return positions

    async def _frames(
        self, selection: Selection, since: Positions, lifetime: Lifetime, progress: _Progress, offer: Offer | None
    ) -> AsyncGenerator[EventsFrame]:
        """Yields the responses after the first one, until the stream is over."""
        with self._window_of(selection) as window:
            number, until = window.end, self._topics.published
            while not lifetime.is_over:
                if since == until and number >= window.first:
                    break
                if since == until:  # the window has moved on meanwhile: what it had is in the topics
                    number, until = window.end, self._topics.published
                frame, since = await self._passage(selection, since, until)
                yield frame
            while not lifetime.is_over:
                if number < window.first:
                    missed, number = window.first - number, window.first
                    yield position(window.left, missed=missed)
                elif (found := window.at(number)) is not None:
                    number = found.end
                    yield found.frame
                elif offer is not None:
                    with _following(window, offer, progress) as follower:
                        is_woken = await lifetime.wait(follower.woken, lambda: window.added_at)
                    number = follower.number
                    if not is_woken and not lifetime.is_over:
                        yield position(self._topics.cursor)
                elif not await lifetime.wait(window.changed) and not lifetime.is_over:
                    yield position(self._topics.cursor)

    async def _passage(self, selection: Selection, since: Positions, until: Positions) -> _Passage:
        """Reads on from a position; streams that come from the same one share what is read."""
        key = (selection, cursor_of(since))
        async with self._catching_up:
            if (known := self._passages.get(key)) is not None:
                return known
            passage = await self._topics.passage(since, until)
            frame = selection.response(passage.messages, cursor_of(passage.positions), trimmed=passage.is_trimmed)
            read = _Passage(frame, passage.positions)
            with suppress(ValueError):  # it is larger than all that is kept
                self._passages[key] = read
            return read

    def _publish(self, messages: Sequence[Live]) -> None:
        self._passages.expire()
        now = asyncio.get_running_loop().time()
        for selection, window in self._windows.items():
            window.expire(now)
            response = selection.response(messages, self._topics.cursor)
            if count := len(response.message.messages):
                window.add(response, count, now, self._window_bytes // len(self._windows))

    def _lost(self) -> None:
        """Ends the streams: their readers come back with their cursors, and find out what is left of the topics."""
        self._lifetimes.end_all(for_good=False)
        self._wake()

    def _wake(self) -> None:
        for window in self._windows.values():
            window.wake()

    @contextmanager
    def _window_of(self, selection: Selection) -> Generator[Window]:
        """Keeps the window of a selection while it is read."""
        window = self._windows.setdefault(selection, Window(self._topics.cursor))
        self._readers[selection] += 1
        try:
            yield window
        finally:
            self._readers[selection] -= 1
            if not self._readers[selection]:
                del self._readers[selection], self._windows[selection]


@contextmanager
def _following(window: Window, offer: Offer, progress: _Progress) -> Generator[Follower]:
    """Lets a stream that has come to the end of a window follow it while the block lasts, and notes how far it has come."""
    number = window.end
    follower = window.follow(offer)
    try:
        yield follower
    finally:
        window.leave(follower)
        if follower.number != number:
            progress.sent += follower.number - number
            progress.cursor = follower.cursor
