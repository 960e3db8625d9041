from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

from cli.embedded_redis import executable, write_configuration
from cli.processes import spawn
from cli.readiness import embedded_redis_ready
from tests.servers import free_port

PASSWORD = "its-own"


async def ready_in_the_end(port: int, password: str) -> bool:
    """Whether it is ready at one of some hundred looks."""
    for _ in range(200):
        if await embedded_redis_ready(port, password):
            return True
        await asyncio.sleep(0.05)
    return False


async def test_the_embedded_redis_is_ready_while_it_answers_to_its_password(tmp_path: Path) -> None:
    port, configuration = free_port(), tmp_path / "redis.conf"
    write_configuration(configuration, data=tmp_path, port=port, password=PASSWORD, memory=2**26)
    assert not await embedded_redis_ready(port, PASSWORD)
    redis = await spawn((str(executable()), str(configuration)), dict(os.environ), tmp_path / "redis.log")
    try:
        assert await ready_in_the_end(port, PASSWORD)
        assert not await embedded_redis_ready(port, "another")
        redis.send_signal(signal.SIGSTOP)
        assert not await embedded_redis_ready(port, PASSWORD)
        redis.send_signal(signal.SIGCONT)
        assert await ready_in_the_end(port, PASSWORD)
    finally:
        redis.kill()
        await redis.wait()
