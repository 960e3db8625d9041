"""What a shop says of its orders, however it is asked."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Protocol

from google.protobuf.json_format import ParseDict, ParseError
from pmp.purchases.v1.purchases_pb2 import Purchase

from cli.errors import CommandFailed
from cli.importing.shop_orders import SOURCE as PLUGIN
from services.destinations.received.shop_orders import SOURCE as WEBHOOKS

SOURCES: Final = frozenset({PLUGIN, WEBHOOKS})
"""The sources under which a shop's own orders are reported: by its plugin or an import, and by WooCommerce's webhooks."""


@dataclass(frozen=True, slots=True)
class Reports:
    """An order's reports, as the shop would make them now."""

    purchase: Mapping[str, Any]
    refunds: Sequence[Mapping[str, Any]]

    @property
    def order(self) -> Purchase:
        """The order.

        Raises:
            CommandFailed: it is no report of an order.
        """
        return order_of_report(self.purchase)


@dataclass(frozen=True, slots=True)
class Read:
    """Reports that were read together."""

    at: str
    """When, by the shop's clock, in RFC 3339."""
    reports: Mapping[str, Reports] = field(default_factory=dict[str, Reports])
    """By number; the shop has no order of a number that is missing."""


class Shop(Protocol):
    """A shop that can be asked for its orders. Close it when done.

    Its methods raise `CommandFailed` where the shop does not answer, or not as expected.
    """

    async def close(self) -> None:
        """Closes the connections."""
        ...

    def pages(self, since: datetime, until: datetime) -> AsyncIterator[Sequence[Purchase]]:
        """The orders that were placed from `since` on and before `until`, as far as they decide what an order amounts to."""
        ...

    async def read(self, order_ids: Collection[str]) -> Read:
        """The reports of orders as they are now."""
        ...

    def source(self, known: Collection[str]) -> str:
        """The source under which an order is reported, given the sources that have reported it before."""
        ...


def order_of_report(payload: Mapping[str, Any]) -> Purchase:
    """The order of a report as JSON.

    Raises:
        CommandFailed: it is no report of an order.
    """
    try:
        return ParseDict(dict(payload), Purchase(), ignore_unknown_fields=True)
    except ParseError as error:
        raise CommandFailed(f"order {payload.get('order_id', '?')} of the shop can't be read: {error}") from error
