"""As many calls are under way as are answered in time, and no fewer than make progress; what nobody waits for gives way to them."""

from __future__ import annotations

import asyncio

import pytest

from kit.errors import Overloaded
from kit.overload import CallsInProgress, Limit


def room(limit: Limit) -> int:
    """How many more calls it takes in; takes them in."""
    taken = 0
    while True:
        try:
            limit.begin()
        except Overloaded:
            return taken
        taken += 1


def test_there_is_no_more_room_than_was_said() -> None:
    limit = Limit(40, slow=1)
    assert room(limit) == 40
    with pytest.raises(Overloaded, match="try again later"):
        limit.begin()
    limit.end(0, 0.1)
    assert room(limit) == 1


def test_slow_calls_leave_less_room_once_for_all_that_were_under_way() -> None:
    limit = Limit(1000, slow=1)
    for _ in range(100):
        limit.begin()
    for _ in range(100):
        limit.end(began=0, now=5)
    assert room(limit) == 70


def test_quick_calls_give_the_room_back_while_it_is_used() -> None:
    limit = Limit(100, slow=1)
    room(limit)
    for _ in range(100):
        limit.end(began=0, now=5)
    assert room(limit) == 70
    for _ in range(20):
        limit.end(began=6, now=6.1)
        limit.begin()
    for _ in range(70):
        limit.end(began=6, now=6.1)
    assert room(limit) == 100


def test_however_slow_calls_are_some_are_taken() -> None:
    limit = Limit(1000, slow=1)
    for round_ in range(20):
        began = 10.0 * round_
        for _ in range(room(limit)):
            limit.end(began, began + 9)
    assert room(limit) == 16


def test_room_for_a_few_stays_what_it_is() -> None:
    limit = Limit(4, slow=1)
    for _ in range(room(limit)):
        limit.end(0, 9)
    assert room(limit) == 4


async def test_work_gives_way_until_the_last_call_ends() -> None:
    calls, order = CallsInProgress(), list[str]()

    async def work(name: str) -> None:
        await calls.give_way()
        order.append(name)

    await work("before")
    calls.begin()
    calls.begin()
    waiting = [asyncio.create_task(work(name)) for name in ("one", "other")]
    await asyncio.sleep(0)
    calls.end()
    await asyncio.sleep(0)
    order.append("the first call has ended")
    calls.end()
    await asyncio.gather(*waiting)
    await work("after")
    assert order == ["before", "the first call has ended", "one", "other", "after"]


async def test_calls_that_never_end_hold_up_work_for_a_second() -> None:
    calls, loop = CallsInProgress(), asyncio.get_running_loop()
    calls.begin()
    for _ in range(2):
        began = loop.time()
        await calls.give_way()
        assert 0.9 < loop.time() - began < 10


async def test_who_gives_way_may_go_away() -> None:
    calls = CallsInProgress()
    calls.begin()
    waiting = asyncio.create_task(calls.give_way())
    await asyncio.sleep(0)
    waiting.cancel()
    calls.end()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    await calls.give_way()
