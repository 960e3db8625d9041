"""Streams of events and orders: each continues where it was left, and goes on with what is published."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing, contextmanager, suppress
from typing import Final

from pmp.realtime.v1 import realtime_pb2 as pb

from kit.boundary.caller import Caller, bind_log_fields, caller
from kit.errors import InvalidRequest, Overloaded, Violation
from kit.log.streams import StreamLog
from services.realtime.cursor import Positions, cursor_of, positions_of
from services.realtime.messages import Live
from services.realtime.selection import EventsFrame, Selection, last, position
from services.realtime.settings import RealtimeSettings
from services.realtime.topics import Topics
from services.realtime.window import Window

_HEARTBEAT_SECONDS: Final = 15.0
_LONGEST_SECONDS: Final = 3600.0
"""Longest time of a stream: as long as a token is valid."""
_COME_BACK_SECONDS: Final = (1.0, 5.0)
"""When clients of a process that ends should come back: not all at once."""
_WINDOW_BYTES: Final = 16_777_216
"""Memory of all windows together."""
_CATCHING_UP: Final = 4
"""Streams that read the topics on their own at once: after a restart all of them do."""
_ADMIN: Final = "admin"
"""The scope that is shown personal data."""


class LiveStreams:
    """The streams of a process.

    Args:
        settings: how many streams there may be.
        log: holds the topics.
    """

    def __init__(self, settings: RealtimeSettings, log: StreamLog) -> None:
        self._most = settings.realtime_streams
        self._most_per_caller = settings.realtime_streams_per_caller
        self._topics = Topics(log, settings.log_partitions, self._publish, self._end_all)
        self._open: Counter[tuple[str, str, str]] = Counter()
        self._windows: dict[Selection, Window] = {}
        self._readers: Counter[Selection] = Counter()
        self._catching_up = asyncio.Semaphore(_CATCHING_UP)
        self._endings = 0
        """How often all streams were ended."""
        self._is_draining = False

    def end(self) -> None:
        """Ends all streams, also those that are opened from now on."""
        self._is_draining = True
        self._end_all()

    async def open(self, request: pb.StreamEventsRequest) -> AsyncGenerator[EventsFrame]:
        """Streams what is selected.

        Raises:
            InvalidRequest: `since` is no cursor, or one of another log.
            Overloaded: there are too many streams.
            ConnectionError: the log is down.
        """
        who = caller()
        selection = Selection(frozenset(request.type), frozenset(request.course), personal=who.internal or who.scope == _ADMIN)
        with self._counted(who):
            async with self._topics.reading():
                since = await self._positions(request.since) if request.since else None
                cursor = request.since or self._topics.cursor
                yield position(cursor)
                sent = missed = 0
                async with aclosing(self._frames(selection, since)) as frames:
                    async for frame in frames:
                        yield frame
                        cursor = frame.cursor
                        sent += len(frame.message.messages)
                        missed += frame.message.missed
                        bind_log_fields(messages=sent, missed=missed)
                yield last(cursor, random.uniform(*_COME_BACK_SECONDS))  # noqa: S311 (it spreads load)

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

    async def _frames(self, selection: Selection, since: Positions | None) -> AsyncGenerator[EventsFrame]:
        """Yields the responses after the first one, until the stream is ended."""
        loop, endings = asyncio.get_running_loop(), self._endings
        ends_at = loop.time() + _LONGEST_SECONDS
        with self._window_of(selection) as window:
            number, until = window.end, self._topics.published
            while since is not None and not self._is_over(endings, ends_at):
                if since == until and number >= window.first:
                    break
                if since == until:  # the window has moved on meanwhile: what it had is in the topics
                    number, until = window.end, self._topics.published
                async with self._catching_up:
                    passage = await self._topics.passage(since, until)
                since = passage.positions
                yield selection.response(passage.messages, cursor_of(since), trimmed=passage.is_trimmed)
            while not self._is_over(endings, ends_at):
                if number < window.first:
                    missed, number = window.first - number, window.first
                    yield position(window.left, missed=missed)
                elif (found := window.at(number)) is not None:
                    number = found.end
                    yield found.frame
                elif not await _within(window.changed, min(_HEARTBEAT_SECONDS, ends_at - loop.time())):
                    yield position(self._topics.cursor)

    def _is_over(self, endings: int, ends_at: float) -> bool:
        return self._is_draining or self._endings != endings or asyncio.get_running_loop().time() >= ends_at

    def _publish(self, messages: Sequence[Live]) -> None:
        now = asyncio.get_running_loop().time()
        for selection, window in self._windows.items():
            window.expire(now)
            response = selection.response(messages, self._topics.cursor)
            if count := len(response.message.messages):
                window.add(response, count, now, _WINDOW_BYTES // len(self._windows))

    def _end_all(self) -> None:
        self._endings += 1
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
    def _counted(self, who: Caller) -> Generator[None]:
        """Counts a stream.

        Raises:
            Overloaded: there are too many.
        """
        key = (who.client, who.scope, who.user)
        if not who.internal and self._open[key] >= self._most_per_caller:
            raise Overloaded(f"this caller has {self._most_per_caller} streams open: close one first")
        if self._open.total() >= self._most:
            raise Overloaded("there are too many streams; try again later")
        self._open[key] += 1
        try:
            yield
        finally:
            self._open[key] -= 1
            if not self._open[key]:
                del self._open[key]


async def _within(event: asyncio.Event, seconds: float) -> bool:
    """Waits for an event, at most so long; returns whether it is set."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    return event.is_set()
