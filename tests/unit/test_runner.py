"""Work on leased partitions: each goes on by itself, waits longer the more often it fails, and ends with its step."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import AbstractAsyncContextManager

import pytest
import structlog

from kit.log.leases import Leases
from kit.log.redis_log import RedisLog
from kit.log.runner import LeasedRunner, PartitionHalted, Step, unless, wait_until_set
from tests.background import running


def stepping(log: RedisLog, step: Step, partitions: int = 2) -> AbstractAsyncContextManager[asyncio.Task[None]]:
    return running(LeasedRunner(Leases(log, "intake", "tests", partitions, seconds=0.4)).run(step))


async def test_a_partition_that_fails_waits_longer_each_time_and_others_go_on(log: RedisLog) -> None:
    steps: dict[int, int] = defaultdict(int)

    async def step(partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        for partition in partitions:
            steps[partition] += 1
        await wait_until_set(stop, 0.01)
        return {0: ValueError()} if 0 in partitions else {}

    with structlog.testing.capture_logs() as lines:
        async with stepping(log, step):
            await asyncio.sleep(1)
    assert steps[0] < 8 < steps[1]
    waits = [line for line in lines if line["event"] == "partition waits"]
    assert {(line["topic"], line["group"], line["partition"], line["error"]) for line in waits} == {("intake", "tests", 0, "ValueError")}
    assert len(waits) == steps[0]
    assert waits[0]["seconds"] < 0.06 < waits[-1]["seconds"]


async def test_a_partition_that_was_halted_is_tried_again(log: RedisLog) -> None:
    halted, resumed = False, asyncio.Event()

    async def step(partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        nonlocal halted
        if not halted:
            halted = True
            return dict.fromkeys(partitions, PartitionHalted("an operator has to act"))
        resumed.set()
        await stop.wait()
        return {}

    with structlog.testing.capture_logs() as lines:
        async with stepping(log, step, partitions=1):
            await asyncio.wait_for(resumed.wait(), 20)
    assert [(line["log_level"], line["reason"]) for line in lines if line["event"] == "partition halted"] == [
        ("error", "an operator has to act")
    ]


async def test_a_step_under_way_is_finished_before_its_leases_are_given_back(log: RedisLog) -> None:
    begun, finished = asyncio.Event(), False

    async def step(_partitions: Collection[int], stop: asyncio.Event) -> Mapping[int, Exception]:
        nonlocal finished
        begun.set()
        await stop.wait()
        await asyncio.sleep(0.1)
        assert await log.redis.keys("*lease*")
        finished = True
        return {}

    async with stepping(log, step, partitions=1):
        await begun.wait()
    assert finished
    assert await log.redis.keys("*lease*") == []


async def test_work_is_cancelled_by_its_event_and_cleaned_up_before_that_returns() -> None:
    stop, cleaned = asyncio.Event(), False

    async def work() -> int:
        nonlocal cleaned
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.01)
            cleaned = True
        return 1

    waiting = asyncio.create_task(unless(stop, work()))
    await asyncio.sleep(0.01)
    stop.set()
    assert await waiting is None
    assert cleaned


async def test_work_that_ends_before_its_event_has_its_result_or_its_error() -> None:
    async def fails() -> None:
        raise KeyError("a defect")

    async def works() -> int:
        return 7

    assert await unless(asyncio.Event(), works()) == 7
    assert await unless(None, works()) == 7
    with pytest.raises(KeyError):
        await unless(asyncio.Event(), fails())


async def test_an_event_is_waited_for_at_most_so_long() -> None:
    event = asyncio.Event()
    assert not await wait_until_set(event, 0.01)
    assert not await wait_until_set(event, -1)
    event.set()
    assert await wait_until_set(event, 60)
    assert await wait_until_set(event, 0)
