"""What an answer of the Graph API means. Pure.

Reference: https://developers.facebook.com/docs/graph-api/guides/error-handling
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from services.destinations.kind import Outcome, Result

_OK: Final = 200
_BUSY: Final = 429
_FAILED: Final = 500
_NO_ACCESS: Final = frozenset({10, 102, 190, *range(200, 300)})
"""The token is invalid, expired, or has no permission."""
_GONE: Final = (100, 33)
"""No such dataset, or none that this token may see."""
_RATE_LIMITS: Final = frozenset({4, 17, 32, 341, 613, *range(80000, 80015)})
_TRANSIENT: Final = frozenset({1, 2})
INVALID: Final = 100
"""A parameter is invalid: of a batch, nothing was processed."""


class Answer(NamedTuple):
    """An answer to a batch of events."""

    result: Result
    is_invalid: bool = False
    """Meta refuses the batch for the contents of some of its events."""


def read(status: int, body: object, sent: int) -> Answer:
    """Reads an answer.

    Args:
        status: the status of HTTP.
        body: the JSON of the answer; None if it is none.
        sent: the number of events of the request.
    """
    fields: Mapping[str, Any] = cast("Mapping[str, Any]", body) if isinstance(body, dict) else {}
    error = fields.get("error")
    if isinstance(error, dict):
        return _error(cast("Mapping[str, Any]", error), status)
    if status == _OK and fields.get("events_received") == sent:
        return Answer(Result(Outcome.DELIVERED, "received"))
    if status == _OK:
        return Answer(Result(Outcome.RETRY, "the answer does not confirm all events"))
    outcome = Outcome.RETRY if status == _BUSY or status >= _FAILED else Outcome.REJECTED
    return Answer(Result(outcome, f"HTTP {status}"))


def _error(error: Mapping[str, Any], status: int) -> Answer:
    """The meaning of an error. Its texts are not repeated: they may quote what was sent."""
    code, subcode = (value if isinstance(value := error.get(name), int) else 0 for name in ("code", "error_subcode"))
    detail = f"HTTP {status}, Graph error {code}" + (f"/{subcode}" if subcode else "")
    if code in _NO_ACCESS or (code, subcode) == _GONE:
        return Answer(Result(Outcome.UNAUTHORIZED, detail))
    if code in _RATE_LIMITS | _TRANSIENT or error.get("is_transient") is True or status >= _FAILED:
        return Answer(Result(Outcome.RETRY, detail))
    return Answer(Result(Outcome.REJECTED, detail), is_invalid=code == INVALID)
