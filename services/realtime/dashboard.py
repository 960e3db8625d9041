"""Streams of the figures of the moment: computed once for all of them, and only while somebody looks."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import tzinfo
from typing import Final, TypeAlias

from pmp.ingestion.v1.event_pb2 import EventStored
from pmp.realtime.v1 import realtime_pb2 as pb

from kit.boundary.caller import caller
from kit.streams.stream import Frame, Offer
from services.realtime.board import Board, changed
from services.realtime.cursor import Positions
from services.realtime.lifetime import Lifetimes, come_back_seconds
from services.realtime.messages import Live
from services.realtime.today import TodaysOrders
from services.realtime.topics import Topics
from services.realtime.visits import MINUTES

DashboardFrame: TypeAlias = Frame[pb.StreamDashboardResponse]

_EVENTS: Final = "events"
_PACE_SECONDS: Final = 0.25
"""From one response to the next."""
_FADE_SECONDS: Final = 1.0
"""When figures are looked at again though nothing came: those of the last minutes fade."""


class Dashboard:
    """The streams of figures of a process.

    Args:
        topics: from which the figures follow.
        orders: today's, as of before the topics are followed.
        lifetimes: of all streams of the process.
        timezone: in which the shop's day begins.
    """

    def __init__(self, topics: Topics, orders: TodaysOrders, lifetimes: Lifetimes, timezone: tzinfo) -> None:
        self._topics = topics
        self._orders = orders
        self._lifetimes = lifetimes
        self._timezone = timezone
        self._board: Board | None = None
        """None while nobody looks."""
        self._early: list[Live] | None = None
        """What is published while the figures are being made; None at other times."""
        self._arrived = asyncio.Event()
        self._changed = asyncio.Event()
        """Set, and replaced, with each version."""
        self._version = 0
        self._all: DashboardFrame
        self._delta: DashboardFrame
        self._updating: asyncio.Task[None] | None = None
        self._streams = 0
        self._starting = asyncio.Lock()
        topics.listen(self._add, self._lost)

    def end(self) -> None:
        """Ends all streams, also those that are opened from now on."""
        self._lifetimes.end_all(for_good=True)
        self._wake()

    async def open(self, _request: pb.StreamDashboardRequest, _offer: Offer | None = None) -> AsyncGenerator[DashboardFrame]:
        """Streams the figures.

        Raises:
            Overloaded: there are too many streams.
            Unavailable: purchases does not answer.
            ConnectionError: the log is down.
        """
        who = caller()
        with self._lifetimes.stream((who.client, who.scope, who.user)) as lifetime:
            async with self._topics.reading(), self._current():
                seen = self._version
                yield self._all
                while not lifetime.is_over:
                    if seen == self._version:
                        if not await lifetime.wait(self._changed) and not lifetime.is_over:
                            yield _heartbeat()
                        continue
                    # A reader that was too slow for a change is sent all figures: nothing is kept for it.
                    frame = self._delta if seen + 1 == self._version else self._all
                    seen = self._version
                    yield frame
                yield _last(come_back_seconds())

    @asynccontextmanager
    async def _current(self) -> AsyncGenerator[None]:
        """Keeps the figures current while the block lasts."""
        async with self._starting:
            if not self._streams:
                await self._start()
            self._streams += 1
        try:
            yield
        finally:
            self._streams -= 1
            if not self._streams:
                self._stop()

    async def _start(self) -> None:
        """Makes the figures from the orders of today and the events of the last minutes."""
        now, until, board = time.time(), self._topics.published, Board(self._timezone)
        self._early = []
        try:
            # The newest state of an order counts: those of the topic are as new, or newer.
            board.sales.put([sale async for sale in self._orders.since(board.sales.midnight(now))])
            beginning = await self._topics.positions_at(_EVENTS, lambda payload: _is_before(payload, now - 60 * MINUTES))
            after: Positions = {each: min(position, until[each]) for each, position in beginning.items()}
            while after != until:
                passage = await self._topics.passage(after, until)
                after = passage.positions
                board.add(passage.messages, now)
            board.add(self._early, now)
        finally:
            self._early = None
        self._board = board
        self._show(board.figures(time.time()))
        self._updating = asyncio.create_task(self._update(board))

    def _stop(self) -> None:
        self._board = None
        if self._updating is not None:
            self._updating.cancel()
            self._updating = None

    async def _update(self, board: Board) -> None:
        while True:
            await asyncio.sleep(_PACE_SECONDS)
            with suppress(TimeoutError):
                async with asyncio.timeout(_FADE_SECONDS - _PACE_SECONDS):
                    await self._arrived.wait()
            self._arrived.clear()
            figures = board.figures(time.time())
            if (delta := changed(self._all.message, figures)) is not None:
                self._delta = Frame(delta)
                self._show(figures)

    def _show(self, figures: pb.StreamDashboardResponse) -> None:
        self._all = Frame(figures)
        self._version += 1
        self._wake()

    def _add(self, messages: Sequence[Live]) -> None:
        if self._early is not None:
            self._early += messages
        elif self._board is not None and messages:
            self._board.add(messages, time.time())
            self._arrived.set()

    def _lost(self) -> None:
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def _is_before(payload: bytes, seconds: float) -> bool:
    return EventStored.FromString(payload).received_at.seconds < seconds


def _heartbeat() -> DashboardFrame:
    response = pb.StreamDashboardResponse()
    response.at.GetCurrentTime()
    return Frame(response)


def _last(come_back_after: float) -> DashboardFrame:
    response = pb.StreamDashboardResponse()
    response.at.GetCurrentTime()
    response.come_back_after.FromMilliseconds(round(come_back_after * 1000))
    return Frame(response, come_back_after=come_back_after)
