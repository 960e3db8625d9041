"""Replicas share the partitions of a topic, and one takes over from another."""

from __future__ import annotations

import asyncio
from pathlib import Path

from kit.log.leases import Leases
from kit.log.redis.opening import open_log
from kit.log.redis_log import RedisLog
from tests.servers import PrivateRedis


def member(log: RedisLog, partitions: int = 6, *, seconds: float = 5.0) -> Leases:
    return Leases(log, "intake", "ingestion", partitions, seconds=seconds)


async def settled(*members: Leases) -> list[set[int]]:
    """What each holds after everybody has looked a few times."""
    held: list[set[int]] = []
    for _ in range(3):
        held = [await each.tick() for each in members]
    return held


async def test_one_member_holds_all_partitions(log: RedisLog) -> None:
    assert await member(log).tick() == set(range(6))


async def test_two_members_hold_half_each(log: RedisLog) -> None:
    first, second = member(log), member(log)
    await first.tick()
    one, other = await settled(first, second)
    assert one | other == set(range(6))
    assert (len(one), len(other)) == (3, 3)


async def test_three_members_hold_a_third_each_and_nothing_together(log: RedisLog) -> None:
    held = await settled(member(log), member(log), member(log))
    assert sorted(partition for each in held for partition in each) == list(range(6))
    assert [len(each) for each in held] == [2, 2, 2]


async def test_what_can_not_be_divided_leaves_nobody_without_work(log: RedisLog) -> None:
    held = await settled(*(member(log, 4) for _ in range(3)))
    assert sorted(len(each) for each in held) == [1, 1, 2]
    assert set[int]().union(*held) == {0, 1, 2, 3}


async def test_more_members_than_partitions_leave_some_waiting(log: RedisLog) -> None:
    held = await settled(*(member(log, 2) for _ in range(3)))
    assert sorted(len(each) for each in held) == [0, 1, 1]


async def test_groups_and_topics_do_not_take_from_each_other(log: RedisLog) -> None:
    other = Leases(log, "intake", "another", 6)
    assert await member(log).tick() == await other.tick() == set(range(6))


async def test_the_leases_of_a_dead_member_are_taken_over_when_they_run_out(log: RedisLog) -> None:
    dead, alive = member(log, seconds=0.2), member(log, seconds=0.2)
    await settled(dead, alive)
    for _ in range(40):
        held = await alive.tick()
        if held == set(range(6)):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("no member took over")


async def test_released_leases_are_free_at_once(log: RedisLog) -> None:
    leaving, staying = member(log), member(log)
    await settled(leaving, staying)
    await leaving.release()
    assert await staying.tick() == set(range(6))


async def test_a_lease_that_ran_out_and_is_anothers_is_neither_renewed_nor_released(log: RedisLog) -> None:
    slow, quick = member(log, 2, seconds=0.05), member(log, 2, seconds=30)
    await slow.tick()
    await asyncio.sleep(0.2)
    assert await quick.tick() == {0}
    assert await slow.tick() == {1}
    await slow.release()
    assert await quick.tick() == {0, 1}


async def test_without_redis_who_works_goes_on(tmp_path: Path) -> None:
    server = PrivateRedis(tmp_path)
    server.start()
    try:
        async with open_log(server.url) as log:
            leases = member(log)
            assert await leases.tick() == set(range(6))
            server.kill()
            assert await leases.tick() == set(range(6))
            await leases.release()
    finally:
        server.kill()


async def test_a_member_that_is_ended_while_it_asks_leaves_no_connection(redis_server: PrivateRedis) -> None:
    before = asyncio.all_tasks()
    async with open_log(redis_server.url) as log:
        asking = asyncio.create_task(member(log).tick())
        await asyncio.sleep(0)
        asking.cancel()
        await asyncio.wait([asking])
    assert asyncio.all_tasks() <= before, "it would connect again"
