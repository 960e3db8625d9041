"""What answers and their headers mean, for all kinds: pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from services.destinations.kind import Outcome, Result

_BUSY: Final = {HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.TOO_MANY_REQUESTS}


def refused(status: int, code: str, wait: timedelta | None) -> Result:
    """Returns the result of a request that was refused.

    Args:
        status: of the answer. A redirection is taken for a busy vendor: none of its APIs redirects.
        code: the vendor's word for the error, for the operator; empty for none. Nothing else of an answer is shown: it may be personal.
        wait: how long the answer asks to wait.
    """
    detail = f"HTTP {status} {code}".rstrip()
    if status in _BUSY or status < HTTPStatus.BAD_REQUEST or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return Result(Outcome.RETRY, detail, wait)
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        return Result(Outcome.UNAUTHORIZED, detail)
    return Result(Outcome.REJECTED, detail)


def retry_after(headers: Mapping[str, str], now: datetime) -> timedelta | None:
    """Returns how long an answer asks to wait, by its header `retry-after` in seconds or as a date; None if it does not."""
    value = headers.get("retry-after", "").strip()
    if value.isdecimal() and value.isascii():
        return timedelta(seconds=min(int(value), 10**7))
    try:
        at = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(timedelta(0), at.replace(tzinfo=at.tzinfo or UTC) - now)
