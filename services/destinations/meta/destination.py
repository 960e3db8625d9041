"""The kind `meta`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final

import orjson
from pmp.purchases.v1.change_pb2 import PurchaseChanged
from typing_extensions import override

from kit.people.privacy import Purpose
from services.destinations.answers import retry_after
from services.destinations.kind import Destination, Erasure, Message, Outcome, Outgoing, Result, Wanted
from services.destinations.meta.graph import Answer, read
from services.destinations.meta.mapping import NAMES, event
from services.destinations.meta.options import MetaOptions
from services.destinations.occasions import Happened, happened

_WINDOW: Final = timedelta(days=7)
_ON_THE_WAY: Final = timedelta(minutes=5)
"""One event that is too old when the request arrives costs all others of it."""


class Meta(Destination[MetaOptions]):
    """A dataset of Meta. It recognises an event that is sent again by its id and name, for 48 hours."""

    options_type: ClassVar[type[Any]] = MetaOptions
    consent: Purpose | None = "third_party_sharing"
    window: ClassVar[timedelta | None] = _WINDOW - _ON_THE_WAY
    needs_profile: ClassVar[bool] = True
    most_at_once: ClassVar[int] = 20
    """Meta takes 1000. If it refuses all of them, they are found in 39 requests, in the time of one attempt."""

    @override
    def wanted(self, message: Message) -> Iterable[Wanted]:
        for each in happened(message):
            name = NAMES.get(each.occasion)
            if name in self.options.events:
                yield Wanted(name, each.key, each.at, each.order_by, is_historical=False)

    @override
    async def send(self, deliveries: Sequence[Outgoing]) -> Sequence[Result]:
        now = datetime.now(UTC)
        results: dict[int, Result] = {}
        events: dict[int, Mapping[str, Any]] = {}
        for index, each in enumerate(deliveries):
            occasion = next((occasion for occasion in happened(each.message) if occasion.key == each.wanted.key), None)
            if occasion is not None and _is_too_old(occasion, now):
                results[index] = Result(Outcome.EXPIRED)
            elif occasion is None or (built := event(each, occasion, self.options, now)) is None:
                results[index] = Result(Outcome.WITHHELD, "nothing by which Meta could find the person, or shared against its will")
            else:
                events[index] = built
        if events:
            results |= await self._sent(events)
        return [results[index] for index in range(len(deliveries))]

    @override
    async def test(self) -> Result:
        # Without an event nothing is stored, and the credentials are checked before the missing events are.
        answer = await self._post([])
        return Result(Outcome.DELIVERED, "the credentials are accepted") if answer.is_invalid else answer.result

    @override
    async def erase(self, person: Erasure) -> Result | None:
        return None

    @override
    def uses_profile(self, message: Message) -> bool:
        return not isinstance(message, PurchaseChanged)

    @override
    def is_repeatable(self, wanted: Wanted) -> bool:
        return True

    async def _sent(self, events: Mapping[int, Mapping[str, Any]]) -> Mapping[int, Result]:
        """Sends events, and finds those for which Meta refuses them by halving: in at most two requests for each, less one."""
        answer = await self._post([*events.values()])
        if not answer.is_invalid or len(events) == 1:
            return dict.fromkeys(events, answer.result)
        each, half = [*events.items()], len(events) // 2
        return {**await self._sent(dict(each[:half])), **await self._sent(dict(each[half:]))}

    async def _post(self, events: Sequence[Mapping[str, Any]]) -> Answer:
        options = self.options
        code = {"test_event_code": options.test_event_code} if options.test_event_code else {}
        response = await self.http.post(
            f"{options.endpoint}/{options.version}/{options.dataset_id}/events",
            content=orjson.dumps({"data": events, "access_token": options.access_token.get_secret_value(), **code}),
            headers={"content-type": "application/json"},
        )
        try:
            body = response.json()
        except ValueError:
            body = None
        answer = read(response.status_code, body, len(events))
        if answer.result.outcome is not Outcome.RETRY:
            return answer
        return answer._replace(result=answer.result._replace(retry_after=retry_after(response.headers, datetime.now(UTC))))


def _is_too_old(occasion: Happened, now: datetime) -> bool:
    return now - occasion.at > _WINDOW - _ON_THE_WAY


KIND: Final = Meta
