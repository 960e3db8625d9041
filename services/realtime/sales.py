"""The sales of today: what each order adds to the figures of the day."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, tzinfo
from decimal import Decimal
from typing import Final

from pmp.purchases.v1.change_pb2 import EntryKind, PurchaseChanged

from kit.rules import DECIMALS, minor_unit

_MINUTE_SECONDS: Final = 60


@dataclass(frozen=True, slots=True)
class Sale:
    """An order as far as the figures of a day need it."""

    purchase_id: str
    currency: str
    sold_at: float
    """When it was first paid, in seconds since 1970; 0 if it never was."""
    entries: tuple[tuple[float, Decimal], ...]
    """Its ledger: seconds since 1970 and the signed amount."""

    @classmethod
    def of(cls, order: PurchaseChanged) -> Sale:
        """Returns the sale of an order; an excluded one has no entries and was never sold."""
        if order.excluded:
            return cls(order.purchase_id, order.currency, 0.0, ())
        sold_at = float(order.sold_at.seconds)
        entries = (
            (sold_at if entry.kind == EntryKind.ENTRY_KIND_SALE else float(entry.timestamp.seconds), Decimal(entry.amount))
            for entry in order.entries
        )
        return cls(order.purchase_id, order.currency, sold_at, tuple(entries))


class Sales:
    """The sales of the shop's current day.

    Args:
        timezone: in which the day begins.
    """

    def __init__(self, timezone: tzinfo) -> None:
        self._timezone = timezone
        self._sales: dict[str, Sale] = {}

    def midnight(self, now: float) -> float:
        """Returns when the day of a time began, both in seconds since 1970."""
        local = datetime.fromtimestamp(now, UTC).astimezone(self._timezone)
        return local.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()

    def put(self, sales: Iterable[Sale]) -> None:
        """Adds orders, or replaces what is known of them."""
        self._sales |= {sale.purchase_id: sale for sale in sales}

    def expire(self, now: float) -> None:
        """Removes orders that add nothing to the day or to the last minute."""
        since = min(self.midnight(now), now - _MINUTE_SECONDS)
        idle = [each.purchase_id for each in self._sales.values() if not any(at >= since for at, _ in each.entries)]
        for purchase_id in idle:
            del self._sales[purchase_id]

    def paid_since(self, seconds: float) -> int:
        """Number of orders that were paid at a time or later."""
        return sum(each.sold_at >= seconds for each in self._sales.values())

    def paid_today(self, now: float) -> int:
        """Number of orders that were paid today."""
        return self.paid_since(self.midnight(now))

    def paid_in_last_minute(self, now: float) -> int:
        """Number of orders that were paid within the last minute."""
        return self.paid_since(now - _MINUTE_SECONDS)

    def revenue(self, now: float) -> Mapping[str, str]:
        """Returns the sums of today's entries as text, by currency."""
        midnight = self.midnight(now)
        sums: dict[str, Decimal] = defaultdict(Decimal)
        for sale in self._sales.values():
            for at, amount in sale.entries:
                if at >= midnight:
                    sums[sale.currency] += amount
        return {currency: _text(sums[currency], currency) for currency in sorted(sums)}


def _text(amount: Decimal, currency: str) -> str:
    return f"{amount.quantize(minor_unit(currency)) if currency in DECIMALS else amount:f}"
