"""Sends the records of an import to the gateway, in batches, and reads the verdicts."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson

from cli.calls import call
from cli.credentials import Credentials
from cli.errors import CommandFailed
from cli.importing.items import NAMES, Item, Kind, Reject

PATIENCE_SECONDS: Final = 300.0
"""How long one call is retried while the mesh is busy or restarts."""
MOST_IN_BATCH: Final = 200
"""Records of a call: the mesh takes up to 500."""
LEAST_IN_BATCH: Final = 25
"""Records of a call to a mesh that has no time: fewer take it hardly less, since a call waits for others more than for its records."""
ANSWER_SECONDS: Final = 30.0
"""Timeout of one attempt: longer than the gateway's own, which ends a call that it gives up."""
_SLOW_SECONDS: Final = 5.0
"""An answer that takes longer makes the next calls smaller, so that none is given up and done twice: a third of the gateway's time."""
MOST_BYTES: Final = 900_000
"""Bytes of a call: the gateway takes 1 MiB."""
_TOKEN_SECONDS: Final = 1800
"""How long a token is used, half of its life."""
_DATED: Final = "reported_at"
_SHOWN: Final = 3
"""Reasons of one record that are stated."""


@dataclass(slots=True)
class Verdicts:
    """What became of some records."""

    counts: Counter[str] = field(default_factory=Counter[str])
    """Numbers of records, as `orders new`."""
    rejects: list[Reject] = field(default_factory=list[Reject])


class Mesh:
    """A mesh that takes records.

    Args:
        client: connections to its gateway.
        credentials: makes credentials with a token of an hour.
    """

    def __init__(self, client: httpx.AsyncClient, credentials: Callable[[], Credentials]) -> None:
        self._client = client
        self._make = credentials
        self._credentials = credentials()
        self._made = time.monotonic()
        self._size = MOST_IN_BATCH

    async def send(self, items: Sequence[Item]) -> Verdicts:
        """Sends records: users, orders, events.

        Refunds that are dated by their source come before their orders, for which they wait, and others after them: so the ledger
        of an order gets each refund with its own date and reference.

        Raises:
            CommandFailed: the mesh does not answer, or refuses the caller.
        """
        verdicts = Verdicts()
        by_kind = {kind: [item for item in items if item.kind is kind] for kind in Kind}
        await self._batches(Kind.USERS, by_kind[Kind.USERS], verdicts)
        refunds = by_kind[Kind.REFUNDS]
        await self._refunds([refund for refund in refunds if _DATED in refund.body], verdicts)
        await self._batches(Kind.PURCHASES, by_kind[Kind.PURCHASES], verdicts)
        await self._refunds([refund for refund in refunds if _DATED not in refund.body], verdicts)
        await self._batches(Kind.EVENTS, by_kind[Kind.EVENTS], verdicts)
        return verdicts

    async def _refunds(self, refunds: Sequence[Item], verdicts: Verdicts) -> None:
        async with asyncio.TaskGroup() as group:
            for refund in refunds:
                group.create_task(self._refund(refund, verdicts))

    async def _batches(self, kind: Kind, items: Sequence[Item], verdicts: Verdicts) -> None:
        left = deque(items)
        while left:
            most = self._size
            batch = next_batch(left, most)
            began = time.monotonic()
            answer = await self._call(f"/api/v1/{kind}/batch", {kind.value: [item.body for item in batch]})
            self._size = next_size(self._size, most, time.monotonic() - began)
            if not answer.is_success:
                raise CommandFailed(f"the mesh refused a batch of {NAMES[kind]}: {answer.status_code} {answer.text.strip()[:300]}")
            for item, verdict in zip(batch, answer.json()["results"], strict=True):
                if verdict.get("success"):
                    verdicts.counts[f"{NAMES[kind]} {_effect(kind, verdict)}"] += 1
                else:
                    verdicts.counts[f"{NAMES[kind]} rejected"] += 1
                    verdicts.rejects.append(Reject(item.origin, _reasons(verdict.get("violations", ()))))

    async def _refund(self, item: Item, verdicts: Verdicts) -> None:
        answer = await self._call(f"/api/v1/purchases/{quote(item.order_id, safe='')}/refunds", item.body)
        if answer.is_success:
            verdicts.counts["refunds known" if answer.json().get("duplicate") else "refunds new"] += 1
        elif answer.status_code in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
            raise CommandFailed(f"the mesh refused the caller: {answer.status_code} {answer.text.strip()[:300]}")
        else:
            verdicts.counts["refunds rejected"] += 1
            verdicts.rejects.append(Reject(item.origin, _refusal(answer)))

    async def _call(self, path: str, body: Mapping[str, Any]) -> httpx.Response:
        if time.monotonic() - self._made > _TOKEN_SECONDS:
            self._credentials, self._made = self._make(), time.monotonic()
        answer = await call(self._client, self._credentials, path, body=body, patience=PATIENCE_SECONDS, answer_seconds=ANSWER_SECONDS)
        return answer.response


def next_size(size: int, asked: int, seconds: float) -> int:
    """How many records the next call may have: half as many after a slow answer, more after a quick one.

    Args:
        size: how many the next call would have.
        asked: how many the answered call might have: of several that were slow at the same time, one counts.
        seconds: how long its answer took.
    """
    if seconds > _SLOW_SECONDS:
        return max(LEAST_IN_BATCH, min(size, asked // 2))
    return min(MOST_IN_BATCH, size + LEAST_IN_BATCH) if seconds < _SLOW_SECONDS / 2 else size


def next_batch(left: deque[Item], most: int) -> list[Item]:
    """Takes the records of the next call."""
    batch: list[Item] = []
    size = 0
    while left and len(batch) < most and (not batch or size + len(orjson.dumps(left[0].body)) <= MOST_BYTES):
        size += len(orjson.dumps(left[0].body))
        batch.append(left.popleft())
    return batch


def _effect(kind: Kind, verdict: Mapping[str, Any]) -> str:
    """What a record did. Of an order, the mesh says that it changed something; of an event, only that it was taken."""
    if kind is Kind.USERS:
        return "new" if verdict.get("created") else "known"
    if kind is Kind.PURCHASES:
        return "known" if verdict.get("duplicate") else "new or changed"
    return "taken"


def _reasons(violations: Sequence[Mapping[str, str]]) -> str:
    reasons = [f"{each.get('field', '')}: {each.get('description', '')}".removeprefix(": ") for each in violations]
    return "; ".join(reasons[:_SHOWN]) or "it was refused"


def _refusal(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["message"])
    except (ValueError, KeyError, TypeError):
        return f"status {answer.status_code}"
