from __future__ import annotations

import asyncio
from datetime import timedelta

from kit.log.redis_log import RedisLog
from kit.one_time import OneTimeValues


async def test_of_many_who_ask_at_once_one_gets_the_value(log: RedisLog) -> None:
    values = OneTimeValues(log.redis, "test", timedelta(minutes=5))
    await values.put("id", "value")
    taken = await asyncio.gather(*(values.take("id") for _ in range(50)))
    assert [each for each in taken if each is not None] == ["value"]


async def test_a_value_that_nobody_took_in_time_is_gone(log: RedisLog) -> None:
    values = OneTimeValues(log.redis, "test", timedelta(milliseconds=50))
    await values.put("id", "value")
    await asyncio.sleep(0.1)
    assert await values.take("id") is None
    assert await log.redis.dbsize() == 0


async def test_purposes_and_ids_are_apart(log: RedisLog) -> None:
    await OneTimeValues(log.redis, "one", timedelta(minutes=5)).put("id", "value")
    assert await OneTimeValues(log.redis, "other", timedelta(minutes=5)).take("id") is None
    assert await OneTimeValues(log.redis, "one", timedelta(minutes=5)).take("other") is None
