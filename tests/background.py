"""Background work that tests start and end."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import Any


@asynccontextmanager
async def running(work: Coroutine[Any, Any, None]) -> AsyncGenerator[asyncio.Task[None]]:
    """Runs work within the block, at whose end it is cancelled."""
    task = asyncio.create_task(work)
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def until(holds: Callable[[], object], seconds: float = 60.0) -> None:
    """Waits until something holds; raises TimeoutError if it does not in time."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 (what is waited for sets no event)
            await asyncio.sleep(0.01)


async def eventually(holds: Callable[[], Awaitable[object]], seconds: float = 60.0) -> None:
    """Waits until a condition holds.

    Raises:
        TimeoutError: it did not in time.
    """
    for _ in range(round(seconds / 0.05)):
        if await holds():
            return
        await asyncio.sleep(0.05)
    raise TimeoutError
