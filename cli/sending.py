"""Sends many requests over a few connections, with a progress bar."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import Final, TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from cli.errors import CommandFailed

CONNECTIONS: Final = 8
"""Connections to the gateway, as a busy shop's PHP workers would hold."""
PATIENCE_SECONDS: Final = 60.0
"""How long a request is repeated, and how long the mesh may make no progress."""

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
    """Sends each request once, in about their order.

    Args:
        requests: what to send.
        send: sends one.
        what: what the progress bar counts, such as `events`.
        console: where the progress bar is.
        weigh: how many of these a request holds.

    Raises:
        CommandFailed: one could not be sent; the rest is given up.
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
