"""What an import would change: the mesh's own rules, held against records that are not sent, and what it knows already."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

import httpx
import orjson
from google.protobuf.descriptor import Descriptor
from pmp.identity.v1.identity_pb2 import RegisterUsersRequest
from pmp.ingestion.v1.ingestion_pb2 import TrackEventsRequest
from pmp.purchases.v1.purchases_pb2 import Purchase, TrackPurchasesRequest

from cli.calls import call
from cli.credentials import Credentials
from cli.errors import CommandFailed
from cli.importing.items import NAMES, Item, Kind, Reject
from cli.importing.sending import PATIENCE_SECONDS, Verdicts
from kit.boundary.items import NOTHING, ItemsReader
from kit.boundary.nobody import NOBODY
from kit.errors import InvalidRequest
from kit.rules import ANY_AGE, Period
from services.purchases.reports import check_purchase

_MOST: Final = 500
"""Records that the rules are applied to at once, as of a call."""
_BASE_CURRENCY: Final = "USD"
"""Stands for the shop's base currency, which is always a known one."""
_HALF_A_CENT: Final = 0.005


class Preview:
    """A mesh that is asked what it knows, and sent nothing.

    Args:
        client: connections to its gateway.
        site: makes credentials of the shop's server.
    """

    def __init__(self, client: httpx.AsyncClient, site: Callable[[], Credentials]) -> None:
        self._client = client
        self._site = site
        requests: Mapping[Kind, Any] = {
            Kind.USERS: RegisterUsersRequest,
            Kind.PURCHASES: TrackPurchasesRequest,
            Kind.EVENTS: TrackEventsRequest,
        }
        self._requests = requests
        self._readers = {kind: ItemsReader(_descriptor(request), kind.value, UTC) for kind, request in requests.items()}

    async def send(self, items: Sequence[Item]) -> Verdicts:
        """What would become of some records.

        Raises:
            CommandFailed: the mesh does not answer.
        """
        verdicts = Verdicts()
        for kind in Kind:
            for start in range(0, len(own := [item for item in items if item.kind is kind]), _MOST):
                await self._look(kind, own[start : start + _MOST], verdicts)
        return verdicts

    async def _look(self, kind: Kind, items: Sequence[Item], verdicts: Verdicts) -> None:
        broken = self._broken(kind, items) if kind in self._readers else dict[int, str]()
        verdicts.rejects += [Reject(items[number].origin, reason) for number, reason in broken.items()]
        left = [item for number, item in enumerate(items) if number not in broken]
        effects = await asyncio.gather(*(self._effect(item) for item in left))
        for effect in [*effects, *(["rejected"] * len(broken))]:
            verdicts.counts[f"{NAMES[kind]} {effect}"] += 1

    def _broken(self, kind: Kind, items: Sequence[Item]) -> Mapping[int, str]:
        """The records that the mesh would reject, by their number, with the reason."""
        request = self._requests[kind]()
        request.json_body.data = orjson.dumps({kind.value: [item.body for item in items]})
        found = self._readers[kind].read(request, NOBODY)
        broken: dict[int, str] = {}
        for number, record in enumerate(getattr(request, kind.value)):
            violations = found.notes.get(number, NOTHING).broken(found.broken.get(number, ()))
            if kind is Kind.PURCHASES and not violations:
                violations = _violations(record)
            if violations:
                broken[number] = "; ".join(f"{each.field}: {each.description}" for each in violations)
        return broken

    async def _effect(self, item: Item) -> str:
        if item.kind is Kind.EVENTS:
            return "new or known"
        if item.kind is Kind.USERS:
            user = item.body.get("wordpress_id")
            return "known" if user and await self._found(f"/api/v1/users/{user}") else "new, or known by the address"
        order = await self._found(f"/api/v1/purchases/{quote(item.order_id or str(item.body['order_id']), safe='')}")
        if item.kind is Kind.REFUNDS:
            entries: Sequence[Mapping[str, Any]] = order["purchase"].get("entries", ()) if order else ()
            return "known" if any(entry.get("reference") == item.body["reference"] for entry in entries) else "new"
        return "new" if order is None else ("known" if _is_same(order["purchase"], item.body) else "changed")

    async def _found(self, path: str) -> Mapping[str, Any] | None:
        answer = (await call(self._client, self._site(), path, patience=PATIENCE_SECONDS)).response
        if answer.status_code == HTTPStatus.NOT_FOUND:
            return None
        if not answer.is_success:
            raise CommandFailed(f"the mesh refused a question: {answer.status_code} {answer.text.strip()[:300]}")
        return answer.json()


def _descriptor(request: Any) -> Descriptor:
    return request.DESCRIPTOR


def _violations(purchase: Purchase) -> Sequence[Any]:
    """What the rules of the contract can't express."""
    try:
        check_purchase("", purchase, b"", _BASE_CURRENCY, Period.of(ANY_AGE))
    except InvalidRequest as refusal:
        return refusal.violations
    return ()


def _is_same(known: Mapping[str, Any], body: Mapping[str, Any]) -> bool:
    """Whether an order has the money of a report already."""
    currency = body.get("currency") or known["currency"]
    refunded = body.get("refunded_total", 0.0)
    same_amount = abs(known["amount"] - body["amount"]) < _HALF_A_CENT and abs(known.get("refunded_amount", 0.0) - refunded) < _HALF_A_CENT
    return known["currency"] == currency and same_amount and ("paid_at" in known) == ("paid_at" in body)
