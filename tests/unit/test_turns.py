"""Calls go before followers, followers are never stopped, and a turn is never lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager

from kit.database.turns import Turns

Turn = Callable[[], AbstractAsyncContextManager[None]]


class Order:
    """The turns in the order in which they began; each ends when the test lets it."""

    def __init__(self) -> None:
        self.began: list[str] = []
        self._ends: dict[str, asyncio.Event] = {}

    def ask(self, turn: Turn, name: str) -> asyncio.Task[None]:
        self._ends[name] = asyncio.Event()

        async def work() -> None:
            async with turn():
                self.began.append(name)
                await self._ends[name].wait()

        return asyncio.create_task(work())

    async def end(self, *names: str) -> None:
        for name in names:
            self._ends[name].set()
            await settle()


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_calls_have_their_turns_in_order_and_before_followers_that_came_first() -> None:
    turns, order = Turns(one_at_a_time=True), Order()
    tasks = [order.ask(turns.call, "a"), order.ask(turns.follower, "f"), order.ask(turns.call, "b"), order.ask(turns.call, "c")]
    await settle()
    assert order.began == ["a"]
    await order.end("a", "b", "c", "f")
    await asyncio.gather(*tasks)
    assert order.began == ["a", "b", "c", "f"]


async def test_a_follower_has_its_turn_however_many_calls_there_are() -> None:
    turns, order = Turns(one_at_a_time=True), Order()
    names = [f"{number}" for number in range(20)]
    tasks = [order.ask(turns.call, names[0]), order.ask(turns.follower, "f"), *(order.ask(turns.call, name) for name in names[1:])]
    await settle()
    await order.end(*names, "f")
    await asyncio.gather(*tasks)
    assert order.began.index("f") == 9


async def test_calls_that_may_run_together_wait_for_nobody_and_followers_wait_for_them() -> None:
    turns, order = Turns(one_at_a_time=False), Order()
    tasks = [order.ask(turns.follower, "f"), order.ask(turns.call, "a"), order.ask(turns.call, "b"), order.ask(turns.follower, "g")]
    await settle()
    assert order.began == ["f", "a", "b"]
    await order.end("a")
    assert order.began == ["f", "a", "b"]
    await order.end("b")
    assert order.began == ["f", "a", "b", "g"]
    await order.end("f", "g")
    await asyncio.gather(*tasks)


async def test_followers_alone_run_together_unless_there_is_one_writer() -> None:
    for one_at_a_time, at_once in ((False, ["f", "g"]), (True, ["f"])):
        turns, order = Turns(one_at_a_time=one_at_a_time), Order()
        tasks = [order.ask(turns.follower, "f"), order.ask(turns.follower, "g")]
        await settle()
        assert order.began == at_once
        await order.end("f", "g")
        await asyncio.gather(*tasks)


async def test_who_goes_away_while_waiting_takes_no_turn() -> None:
    turns, order = Turns(one_at_a_time=True), Order()
    first, gone, last = (order.ask(turns.call, name) for name in ("first", "gone", "last"))
    await settle()
    gone.cancel()
    await order.end("first", "last")
    await asyncio.gather(first, gone, last, return_exceptions=True)
    assert order.began == ["first", "last"]


async def test_who_goes_away_as_the_turn_comes_gives_it_on() -> None:
    turns, order = Turns(one_at_a_time=True), Order()
    for turn in (turns.call, turns.follower):
        async with turns.call():
            gone = order.ask(turn, "gone")
            await settle()
        gone.cancel()  # its turn has come, and it has not run since
        await settle()
        assert gone.cancelled()
        next_one = order.ask(turns.follower, "next")
        await order.end("next")
        await next_one
    assert order.began == ["next", "next"]
