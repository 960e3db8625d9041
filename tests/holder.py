"""A service with one rpc that others call, and a caller as services are."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from pmp.privacy.v1 import privacy_pb2
from pmp.privacy.v1.privacy_pb2_grpc import SubjectDataServiceServicer, add_SubjectDataServiceServicer_to_server

from kit.registry import Part
from kit.server import Server
from kit.settings import Settings
from services.gdpr.holders import Holders

HOLDER = "identity"


class Holder(SubjectDataServiceServicer):
    """Erases nothing."""

    async def Erase(self, request: privacy_pb2.EraseRequest, context: Any) -> privacy_pb2.EraseResponse:  # noqa: ARG002
        """Answers."""
        return privacy_pb2.EraseResponse()


@asynccontextmanager
async def running_holder(settings: Settings) -> AsyncGenerator[None]:
    """Runs it, with the boundary and the ports of a service."""
    holder: Any = Holder()  # pyright: ignore[reportAbstractUsage]  (the other rpcs are not called)
    server = Server(settings, [Part(HOLDER, [(add_SubjectDataServiceServicer_to_server, holder)])])
    server.listen(settings.listen)
    await server.listen_for_probes(settings.health_listen)
    await server.start()
    await server.set_serving(HOLDER, serving=True)
    try:
        yield
    finally:
        await server.drain(0, 0)


async def erase(caller: Settings) -> None:
    """Calls it, as gdpr does.

    Raises:
        Unavailable: it refuses or does not answer.
    """
    await Holders(caller, [HOLDER]).erase(HOLDER, dry_run=True)


@asynccontextmanager
async def repeated(call: Callable[[], Awaitable[object]]) -> AsyncGenerator[list[object]]:
    """Calls without a pause, three at once, as long as the block lasts; any failure ends it. Yields the answers."""
    answers: list[object] = []

    async def go_on() -> None:
        while True:
            answers.append(await call())
            await asyncio.sleep(0.01)

    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(go_on()) for _ in range(3)]
        yield answers
        for task in tasks:
            task.cancel()


async def answered(answers: list[object], number: int = 20) -> None:
    """Waits for so many more answers."""
    wanted = len(answers) + number
    async with asyncio.timeout(60):
        while len(answers) < wanted:  # noqa: ASYNC110  (those who answer don't know of it)
            await asyncio.sleep(0.01)
