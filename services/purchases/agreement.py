"""Whether the ledger agrees with the shop about an order, to the cent. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Final, NamedTuple

from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.comparison_pb2 import OrderBalance

from services.purchases.money import exact
from services.purchases.reconciliation import reconcile
from services.purchases.reports import purchase_claim
from services.purchases.statuses import PAID, Status


class Kind(StrEnum):
    """How the shop and the ledger differ about an order."""

    MISSING_HERE = "missing here"
    """The shop has a paid order that the ledger does not have."""
    MISSING_THERE = "missing there"
    """The ledger has a paid order that the shop does not have: it was deleted."""
    DIFFERENT = "different"


class Figures(NamedTuple):
    """What an order amounts to."""

    status: Status
    currency: str
    amount: Decimal
    paid: Decimal
    refunded: Decimal

    @property
    def is_sale(self) -> bool:
        """True for an order that counts as a sale, though it may be refunded."""
        return self.status in PAID


@dataclass(frozen=True, slots=True)
class Difference:
    """An order about which the shop and the ledger differ."""

    order_id: str
    kind: Kind
    values: Mapping[str, tuple[str, str]]
    """What differs, as the shop and as the ledger has it; empty for what one of them does not have."""


_NOTHING: Final[Mapping[str, str]] = dict.fromkeys(Figures._fields, "")


def shop_figures(purchase: pb.Purchase, site_currency: str) -> Figures:
    """What an order amounts to if nothing but the shop's report of it counts.

    Args:
        purchase: the order as the shop reports it now.
        site_currency: the currency of an order without one.

    Raises:
        InvalidRequest: the payment status is unknown.
        KeyError: the currency is unknown.
    """
    state = reconcile([purchase_claim(purchase, purchase.currency.upper() or site_currency)]).state
    return _figures(state.status, state.currency, state.amount, state.paid_amount, state.refunded_amount)


def ledger_figures(balance: OrderBalance) -> Figures:
    """What an order amounts to in the ledger."""
    amounts = map(Decimal, (balance.amount, balance.paid_amount, balance.refunded_amount))
    return _figures(Status(balance.payment_status), balance.currency, *amounts)


def difference(order_id: str, shop: Figures | None, ledger: Figures | None) -> Difference | None:
    """How the shop and the ledger differ about an order; None if they agree.

    An order that is no sale need not be known to the other side: the shop may have deleted it, or never reported it.

    Args:
        order_id: the shop's number.
        shop: what it amounts to in the shop; None if the shop does not have it.
        ledger: what it amounts to in the ledger; None if that does not have it.
    """
    if shop is None or ledger is None:
        known = shop or ledger
        if known is None or not known.is_sale:
            return None
        return Difference(order_id, Kind.MISSING_HERE if ledger is None else Kind.MISSING_THERE, _values(shop, ledger))
    return None if shop == ledger else Difference(order_id, Kind.DIFFERENT, _values(shop, ledger))


def _figures(status: Status, currency: str, *amounts: Decimal) -> Figures:
    """Figures with their amounts in the minor unit of the currency, as they are shown."""
    return Figures(status, currency, *(exact(amount, currency) for amount in amounts))


def _values(shop: Figures | None, ledger: Figures | None) -> Mapping[str, tuple[str, str]]:
    theirs, ours = _texts(shop), _texts(ledger)
    return {name: (theirs[name], ours[name]) for name in Figures._fields if theirs[name] != ours[name]}


def _texts(figures: Figures | None) -> Mapping[str, str]:
    return _NOTHING if figures is None else {name: str(value) for name, value in figures._asdict().items()}
