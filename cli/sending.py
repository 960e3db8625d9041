"""Sends many requests over a few connections, with a progress bar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import CommandFailed

CONNECTIONS: Final = 8
"""Connections to the gateway, as many as the PHP workers of a busy shop have."""
PATIENCE_SECONDS: Final = 60.0
"""How long a request is retried, and how long the mesh may make no progress."""

_Request = TypeVar("_Request")


def _one(_request: object) -> int:
    return 1


async def send_all(
    requests: Sequence[_Request],
    send: Callable[[_Request], Awaitable[None]],
    what: str,
    console: Console,
    *,
    weigh: Callable[[_Request], int] = _one,
) -> None:
    """Sends each request once, roughly in order.

    Args:
        requests: the requests to send.
        send: sends one of them.
        what: unit of the progress bar, such as `events`.
        console: console of the progress bar.
        weigh: number of units in a request.

    Raises:
        CommandFailed: a request could not be sent; the others are dropped.
    """
    todo: Iterator[_Request] = iter(requests)
    columns = (TextColumn("sending"), BarColumn(), MofNCompleteColumn(), TextColumn(what), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=sum(map(weigh, requests)))

        async def connection() -> None:
            for request in todo:
                await send(request)
                progress.advance(task, weigh(request))

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(CONNECTIONS):
                    group.create_task(connection())
        except* CommandFailed as failures:
            failure = failures.exceptions[0]
        else:
            return
    raise failure
