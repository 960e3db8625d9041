"""Reads a trace from the backend of a cluster: from Jaeger or from Tempo, which have the same path for it.

https://www.jaegertracing.io/docs/latest/architecture/apis/, https://grafana.com/docs/tempo/latest/api_docs/#query.
"""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus
from typing import Any, Final

import httpx

from cli.errors import CommandFailed
from cli.traces.spans import Span, of_jaeger, of_otlp

_PATH: Final = "/api/traces/{}"
_SECONDS: Final = 20.0


async def fetch(url: str, trace_id: str) -> list[Span]:
    """Returns the spans of a trace; none if the backend does not know it.

    Args:
        url: address of Jaeger's query service or of Tempo.
        trace_id: in hex.

    Raises:
        CommandFailed: the backend does not answer, or with something else.
    """
    try:
        async with httpx.AsyncClient(timeout=_SECONDS, trust_env=False) as client:
            answer = await client.get(f"{url.rstrip('/')}{_PATH.format(trace_id)}", headers={"accept": "application/json"})
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return []
        answer.raise_for_status()
        return [*_spans(answer.json())]
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CommandFailed(f"the backend of the traces does not answer: {_reason(error)}") from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise CommandFailed("the backend answered, but not with a trace: is it Jaeger or Tempo?") from error


def _spans(document: Any) -> Iterator[Span]:
    if "data" in document:
        return of_jaeger(document)
    if "batches" in document or "resourceSpans" in document:
        return of_otlp(document)
    raise KeyError("data")


def _reason(error: Exception) -> str:
    """What went wrong; the address may contain a password."""
    return f"HTTP {error.response.status_code}" if isinstance(error, httpx.HTTPStatusError) else type(error).__name__
