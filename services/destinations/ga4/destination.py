"""The kind `ga4`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import httpx
import orjson
from typing_extensions import override

from kit.people.privacy import Purpose
from services.destinations.answers import retry_after
from services.destinations.ga4.deletion import UserDeletion
from services.destinations.ga4.mapping import ENGAGEMENT_MS, NAMES, body
from services.destinations.ga4.options import Ga4Options
from services.destinations.kind import Destination, Erasure, Message, Outcome, Outgoing, Result, Wanted
from services.destinations.occasions import happened

_USERS: Final = frozenset({"user", "wordpress"})
_CREDENTIALS: Final = frozenset({401, 403})
_BUSY: Final = 429
_FAILED: Final = 500
_SUCCESS: Final = range(200, 300)
_PROBE: Final = {
    "client_id": "1.1",
    "validation_behavior": "ENFORCE_RECOMMENDATIONS",
    "events": [{"name": "page_view", "params": {"session_id": "1", "engagement_time_msec": ENGAGEMENT_MS}}],
}


class Ga4(Destination[Ga4Options]):
    """A property of Google Analytics 4.

    Each request is about one browser, and browsers seldom have two deliveries due at once: one delivery is one request.
    """

    options_type: ClassVar[type[Any]] = Ga4Options
    consent: Purpose | None = "analytics_tracking"
    window: ClassVar[timedelta | None] = timedelta(hours=72)
    most_requests: ClassVar[int] = 16

    def __init__(self, name: str, options: Ga4Options, http: httpx.AsyncClient) -> None:
        super().__init__(name, options, http)
        self._deletion = UserDeletion(options.property_id, options.admin_endpoint, http)

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        for each in happened(message):
            name = NAMES[each.occasion]
            if name in self.options.events:
                yield Wanted(name, each.key, each.at, each.order_by, is_historical=False)

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        return [await self._send(each) for each in deliveries]

    @override
    async def test(self) -> Result:
        response = await self._post("/debug/mp/collect", _PROBE)
        if response.status_code not in _SUCCESS:
            return _result(response)
        problems = [str(each.get("validationCode", "unknown")) for each in response.json().get("validationMessages", ())]
        if problems:
            return Result(Outcome.REJECTED, ", ".join(problems))
        return Result(Outcome.DELIVERED, "Google's validator accepts the payload; it does not check the credentials")

    @override
    async def erase(self, person: Erasure) -> Result | None:
        account = self.options.account
        if account is None:
            return None
        user_ids = [value for kind, _, value in (each.partition(":") for each in person.identifiers) if kind in _USERS]
        for user_id in user_ids:
            result = _result(await self._deletion.delete(user_id, account))
            if result.outcome is not Outcome.DELIVERED:
                return result
        return Result(Outcome.DELIVERED, "by user id") if user_ids else None

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return wanted.name == "purchase"

    async def _send(self, outgoing: Outgoing) -> Result:
        occasion = next((each for each in happened(outgoing.message) if each.key == outgoing.wanted.key), None)
        payload = None if occasion is None else body(outgoing, occasion, self.options, datetime.now(UTC))
        if payload is None:
            return Result(Outcome.WITHHELD, "no client id of Google Analytics")
        response = await self._post("/mp/collect", payload)
        return _result(response)

    async def _post(self, path: str, payload: Any) -> httpx.Response:
        options = self.options
        return await self.http.post(
            f"{options.endpoint}{path}",
            params={"measurement_id": options.measurement_id, "api_secret": options.api_secret.get_secret_value()},
            content=orjson.dumps(payload),
            headers={"content-type": "application/json"},
        )


def _result(response: httpx.Response) -> Result:
    """What an answer means: any 2xx is received, whatever Google makes of it."""
    status = response.status_code
    detail = f"HTTP {status}"
    if status in _SUCCESS:
        return Result(Outcome.DELIVERED, detail)
    if status in _CREDENTIALS:
        return Result(Outcome.UNAUTHORIZED, detail)
    if status == _BUSY:
        return Result(Outcome.RETRY, detail, retry_after(response.headers, datetime.now(UTC)))
    # Google's servers may have taken it before they failed.
    return Result(Outcome.RETRY, detail, is_ambiguous=True) if status >= _FAILED else Result(Outcome.REJECTED, detail)


KIND: Final = Ga4
