"""Calls of the gateway that respect `retry-after`: a temporary refusal is retried when the gateway says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import httpx
import stamina

from cli.credentials import Credentials
from cli.errors import CommandFailed

BUSY: Final = frozenset({429, 502, 503, 504})
"""Statuses after which the same request is sent again."""
ANSWER_SECONDS: Final = 10.0
"""Timeout of one attempt."""


class Busy(Exception):
    """The mesh does not accept requests at the moment."""

    def __init__(self, answer: httpx.Response) -> None:
        super().__init__(f"{answer.status_code} {answer.text.strip()}")
        after = answer.headers.get("retry-after", "")
        self.retry_after = float(after) if after.isdecimal() else None
        """Seconds to wait, if the mesh said so."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The gateway's final answer."""

    response: httpx.Response
    """The HTTP response."""
    attempts: int
    """Number of attempts. If it is more than one, an earlier answer may have been lost after its work was done."""


async def call(
    client: httpx.AsyncClient,
    credentials: Credentials,
    path: str,
    *,
    body: Mapping[str, object] | None = None,
    patience: float,
    answer_seconds: float = ANSWER_SECONDS,
) -> Answer:
    """Calls the gateway (POST with a body, else GET) until it gives a final answer, for at most `patience` seconds.

    Args:
        client: connections to it.
        credentials: of the caller.
        path: of the call, with its query.
        body: JSON to post.
        patience: how long it is asked again, in seconds.
        answer_seconds: timeout of one attempt.

    Raises:
        CommandFailed: it gave none.
    """
    request = client.build_request(
        "GET" if body is None else "POST", f"{credentials.url}{path}", json=body, headers=credentials.headers(), timeout=answer_seconds
    )
    try:
        async for attempt in stamina.retry_context(on=_pause, attempts=None, timeout=patience):
            with attempt:
                return Answer(await _send(client, request), attempt.num)
    except (httpx.TransportError, Busy) as error:
        reason = str(error) or type(error).__name__
        message = f"{credentials.url} accepted nothing for {patience:g} s ({reason}): see `pmp status`"
        raise CommandFailed(message) from error
    raise AssertionError  # unreachable: the loop ends with an answer or an error


def connect(connections: int = 1) -> httpx.AsyncClient:
    """A client with this many connections. It ignores the environment's proxies: the mesh is called at its own address."""
    # Each command reports its retries itself; stamina's log lines would interrupt its output.
    stamina.instrumentation.set_on_retry_hooks([])
    return httpx.AsyncClient(
        limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections), timeout=ANSWER_SECONDS, trust_env=False
    )


async def _send(client: httpx.AsyncClient, request: httpx.Request) -> httpx.Response:
    answer = await client.send(request)
    if answer.status_code in BUSY:
        raise Busy(answer)
    return answer


def _pause(error: Exception) -> bool | float:
    """Whether to retry, and after how many seconds if the mesh said so."""
    if isinstance(error, Busy):
        return error.retry_after or True
    return isinstance(error, httpx.TransportError)
