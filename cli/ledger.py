"""The ledger of a mesh, through its gateway: balances of orders, and reports that correct them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlencode

import httpx
from google.protobuf.json_format import MessageToDict, Parse
from pmp.purchases.v1.comparison_pb2 import Comparison, ListBalancesResponse, OrderBalance
from pmp_mesh_client.tokens import Scope

from cli.calls import call
from cli.credentials import Credentials
from cli.errors import CommandFailed

_PATIENCE_SECONDS: Final = 60.0
_AT_ONCE: Final = 50
"""Orders of one call: their numbers are in the address, and their reports in a body."""


class Ledger:
    """Calls of a gateway.

    Args:
        client: from `cli.calls.connect`.
        credentials: makes credentials of a scope; those of an hour may end before the work does.
    """

    def __init__(self, client: httpx.AsyncClient, credentials: Callable[[Scope], Credentials]) -> None:
        self._client = client
        self._credentials = credentials

    async def balances(self, since: datetime, until: datetime) -> AsyncIterator[OrderBalance]:
        """The balances of the orders that were placed from `since` on and before `until`."""
        token = ""
        while True:
            page = await self._balances({"from": since.isoformat(), "to": until.isoformat(), "page_token": token})
            for balance in page.balances:
                yield balance
            if not (token := page.next_page_token):
                return

    async def balances_of(self, order_ids: Collection[str]) -> Mapping[str, OrderBalance]:
        """The balances of orders by the shop's number; unknown ones are left out."""
        numbers = sorted(order_ids)
        pages = [
            await self._balances([("order_ids", each) for each in numbers[start : start + _AT_ONCE]])
            for start in range(0, len(numbers), _AT_ONCE)
        ]
        return {balance.order_id: balance for page in pages for balance in page.balances}

    async def order(self, order_id: str) -> Mapping[str, Any]:
        """An order with its lines.

        Raises:
            CommandFailed: it is unknown.
        """
        return (await self._call(Scope.SITE, f"/api/v1/purchases/{quote(order_id, safe='')}"))["purchase"]

    async def record(self, purchases: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
        """Records reports of orders.

        Returns:
            Why an order was refused, by the shop's number.
        """
        refused: dict[str, str] = {}
        for start in range(0, len(purchases), _AT_ONCE):
            some = purchases[start : start + _AT_ONCE]
            verdicts = (await self._call(Scope.SITE, "/api/v1/purchases/batch", {"purchases": some}))["results"]
            refused |= {
                purchase["order_id"]: "; ".join(each["description"] for each in verdict["violations"])
                for purchase, verdict in zip(some, verdicts, strict=True)
                if not verdict.get("success")
            }
        return refused

    async def refund(self, order_id: str, refund: Mapping[str, Any]) -> str:
        """Records the report of a refund.

        Returns:
            Why it was refused; empty if it was not.
        """
        try:
            await self._call(Scope.SITE, f"/api/v1/purchases/{quote(order_id, safe='')}/refunds", refund)
        except CommandFailed as failure:
            return str(failure)
        return ""

    async def keep(self, comparison: Comparison) -> None:
        """Keeps the outcome of a comparison."""
        body = MessageToDict(comparison, preserving_proto_field_name=True)
        await self._call(Scope.ADMIN, "/api/v1/comparisons", body)

    async def _balances(self, query: Mapping[str, str] | Sequence[tuple[str, str]]) -> ListBalancesResponse:
        answer = await call(self._client, self._credentials(Scope.READ), f"/api/v1/balances?{urlencode(query)}", patience=_PATIENCE_SECONDS)
        return Parse(_checked(answer.response).content, ListBalancesResponse(), ignore_unknown_fields=True)

    async def _call(self, scope: Scope, path: str, body: Mapping[str, Any] | None = None) -> Mapping[str, Any]:
        answer = await call(self._client, self._credentials(scope), path, body=body, patience=_PATIENCE_SECONDS)
        return _checked(answer.response).json()


def _checked(response: httpx.Response) -> httpx.Response:
    if response.is_error:
        raise CommandFailed(f"the mesh answers HTTP {response.status_code}: {response.text.strip()}")
    return response
