"""Deletes persons at the destinations: each is asked until it gave a final answer, which is kept."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx
import structlog
from pmp.destinations.v1 import destinations_pb2 as pb
from sqlalchemy.ext.asyncio import AsyncSession

from kit.database.transactions import Sessions, transact
from services.destinations.kind import Destination, Erasure, Outcome, Result
from services.destinations.repository import Deliveries, Destinations, Erasures

_log = structlog.get_logger(__name__)

_SECONDS: Final = 30.0
_NO_WAY: Final = "offers no way to delete a person; nothing more is sent"
_FORMER: Final = "is not configured any more: delete the person there by hand"
_UNDER_WAY: Final = "waits for an attempt under way"
"""Of a delivery that was about to be sent when its message was deleted: it would bring the person back."""
_WORDS: Final = {
    Outcome.DELIVERED: "deleted",
    Outcome.WITHHELD: "knows no such person",
    Outcome.EXPIRED: "knows no such person any more",
    Outcome.REJECTED: "refused the deletion",
}
"""What final outcomes mean. One that is not final is asked for again."""


class Erasing:
    """Deletes persons at the destinations.

    Args:
        destinations: by name.
    """

    def __init__(self, sessions: Sessions, destinations: Mapping[str, Destination[Any]]) -> None:
        self._sessions = sessions
        self._destinations = destinations

    async def erase(self, request: pb.ErasePersonRequest) -> pb.ErasePersonResponse:
        """Asks those destinations that have not given a final answer, all at once."""
        async with self._sessions.reading() as session:
            known = await Erasures(session).answers(request.request)
            states = await Destinations(session).all()
            busy = await Deliveries(session).under_way_without_message(self._destinations, datetime.now(UTC))
        person = Erasure(list(request.names), list(request.emails))
        left = [name for name in sorted(self._destinations) if name not in known]
        asked = {name: (_UNDER_WAY, False) for name in left if name in busy}
        free = [name for name in left if name not in busy]
        asked |= dict(zip(free, await asyncio.gather(*(self._ask(name, person) for name in free)), strict=True))
        former = [name for name, row in states.items() if row.delivered and name not in self._destinations and name not in known]
        asked |= dict.fromkeys(former, (_FORMER, True))
        answers = {name: (answer, True) for name, answer in known.items()} | asked
        final = {name: answer for name, (answer, is_final) in asked.items() if is_final}

        async def keep(session: AsyncSession) -> None:
            for name, answer in sorted(final.items()):
                await Erasures(session).add(request.request, name, answer, datetime.now(UTC))

        if final:
            await transact(self._sessions, keep)
        given = [
            pb.ErasureAnswer(destination=name, answer=answer, is_final=is_final) for name, (answer, is_final) in sorted(answers.items())
        ]
        return pb.ErasePersonResponse(is_done=all(each.is_final for each in given), answers=given)

    async def _ask(self, name: str, person: Erasure) -> tuple[str, bool]:
        """Returns a destination's answer, and whether it is final."""
        try:
            async with asyncio.timeout(_SECONDS):
                result = await self._destinations[name].erase(person)
        except (httpx.HTTPError, TimeoutError) as error:
            return f"does not answer: {type(error).__name__}", False
        except Exception as error:  # noqa: BLE001 (a defect of one kind must not keep a person at the others)
            _log.error("erasure failed", destination=name, error=type(error).__name__, exc_info=True)
            return f"failed: {type(error).__name__}", False
        return (_NO_WAY, True) if result is None else _in_words(result)


def _in_words(result: Result) -> tuple[str, bool]:
    if word := _WORDS.get(result.outcome):
        return f"{word} ({result.detail})" if result.detail else word, True
    return result.detail or result.outcome.value, False
