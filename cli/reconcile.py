"""`pmp reconcile`: compares the shop's orders with the ledger, and has the shop's report recorded where they differ."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, Final

from pmp.purchases.v1.comparison_pb2 import OrderBalance
from pmp.purchases.v1.purchases_pb2 import Purchase

from cli.errors import CommandFailed
from cli.ledger import Ledger
from cli.shop_reports import SOURCES, Reports, Shop
from kit.errors import InvalidRequest
from kit.times import LIVE_FOR
from services.purchases.agreement import Difference, Figures, Kind, difference, ledger_figures, shop_figures

_ROUNDS: Final = 3
"""How often differences are healed: an order may change in the shop while it is compared."""
_FEW_DELETED: Final = 10
_DELETED_SHARE: Final = 0.05
_MANY_MISSING: Final = 100
_LOOKED_UP: Final = 20
"""Orders that are looked up one by one before many are: a shop may need a request for each that it does not have."""
_TAKEN_OVER: Final = (
    *("timestamp", "order_id", "amount", "currency", "payment_method", "paid_at", "lines", "is_test", "is_staff"),
    *("discount_total", "tax_total", "shipping_total", "coupon_codes", "country"),
)
"""What the report of a deleted order has in common with the order that the mesh knows."""


@dataclass(frozen=True, slots=True)
class Found:
    """An order that differed at first."""

    difference: Difference
    left: bool = True
    """It still differs."""
    reason: str = ""
    """Why it was not healed, if that is known."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of a comparison."""

    orders: int
    """Number of orders that were compared."""
    found: Sequence[Found] = ()

    @property
    def left(self) -> int:
        """Number of orders that still differ."""
        return sum(each.left for each in self.found)


@dataclass(frozen=True, slots=True)
class _Examined:
    """Orders as both sides have them now."""

    differences: Mapping[str, Difference] = field(default_factory=dict[str, Difference])
    reports: Mapping[str, Reports] = field(default_factory=dict[str, Reports])
    sources: Mapping[str, Collection[str]] = field(default_factory=dict[str, Collection[str]])
    """The sources that have reported an order before."""
    read_at: str = ""


class Reconciler:
    """Compares a shop with a ledger.

    Args:
        currency: of orders without one.
        show: is called with the number of orders that were read so far.
    """

    def __init__(self, shop: Shop, ledger: Ledger, currency: str, show: Callable[[int], None]) -> None:
        self._shop = shop
        self._ledger = ledger
        self._currency = currency
        self._show = show

    async def run(self, since: datetime, until: datetime, *, heals: bool, deletes: bool) -> Outcome:
        """Compares the orders of a period.

        Args:
            since: the orders were placed at this time or later.
            until: the orders were placed before this time.
            heals: whether the shop's reports are recorded where the two differ.
            deletes: whether even many orders that the shop does not have any more are recorded as deleted.

        Raises:
            CommandFailed: one of the two does not answer.
        """
        orders, suspects, only_here = await self._suspects(since, until)
        # None of them is looked up, and so none recorded as deleted.
        lacking: Mapping[str, Difference] = {}
        if not deletes and await self._lacks(only_here, orders):
            lacking = only_here
        examined = await self._examine(suspects | (only_here.keys() - lacking.keys()))
        found = {number: Found(each) for number, each in examined.differences.items()}
        if heals:
            reasons, kept = await self._heal(examined, orders, deletes=deletes)
            left = kept.differences
            found = {
                number: replace(each, left=number in left, reason=reasons.get(number, "") if number in left else "")
                for number, each in found.items()
            }
        found |= {number: Found(each, reason=_why_lacking(len(lacking))) for number, each in lacking.items()}
        return Outcome(orders, [found[number] for number in sorted(found, key=_by_number)])

    async def _suspects(self, since: datetime, until: datetime) -> tuple[int, set[str], Mapping[str, Difference]]:
        """Compares the orders of a period as they are listed.

        Returns:
            The number of orders, the numbers of those that the shop has and that differ, and the differences of those that are in the
            period here only.
        """
        balances: dict[str, tuple[Figures, bool]] = {}
        async for balance in self._ledger.balances(since, until):
            balances[balance.order_id] = ledger_figures(balance), not SOURCES.isdisjoint(balance.sources)
        orders, suspects = 0, set[str]()
        async for page in self._shop.pages(since, until):
            for order in page:
                ours, _ = balances.pop(order.order_id, (None, False))
                if difference(order.order_id, self._figures(order), ours):
                    suspects.add(order.order_id)
            self._show(orders := orders + len(page))
        # An order that the shop has never reported may be of another system.
        missing = {number: difference(number, None, figures) for number, (figures, is_shops) in balances.items() if is_shops}
        only_here = {number: each for number, each in missing.items() if each is not None}
        return orders + len(only_here), suspects, only_here

    async def _lacks(self, only_here: Mapping[str, Difference], orders: int) -> bool:
        """Whether the shop lacks many orders, and has none of a few of them: it may be another shop."""
        if len(only_here) <= max(_MANY_MISSING, _DELETED_SHARE * orders):
            return False
        few = sorted(only_here, key=_by_number)[:: len(only_here) // _LOOKED_UP]
        return not (await self._shop.read(few)).reports

    async def _examine(self, numbers: Collection[str]) -> _Examined:
        """Compares single orders anew, whenever they were placed."""
        if not numbers:
            return _Examined()
        read = await self._shop.read(numbers)
        balances = await self._ledger.balances_of(numbers)
        differences: dict[str, Difference] = {}
        for number in numbers:
            reports = read.reports.get(number)
            found = difference(number, self._figures(reports.order) if reports else None, _figures(balances.get(number)))
            if found:
                differences[number] = found
        return _Examined(differences, read.reports, {number: each.sources for number, each in balances.items()}, read.at)

    async def _heal(self, examined: _Examined, orders: int, *, deletes: bool) -> tuple[Mapping[str, str], _Examined]:
        """Has the shop's reports recorded until nothing differs, or a round changes nothing more.

        Returns:
            Why orders were not healed, by number, and what differs in the end.
        """
        reasons: dict[str, str] = {}
        for _ in range(_ROUNDS):
            deleted = [number for number, each in examined.differences.items() if each.kind is Kind.MISSING_THERE]
            if len(deleted) > max(_FEW_DELETED, _DELETED_SHARE * orders) and not deletes:
                reasons |= dict.fromkeys(deleted, _why_lacking(len(deleted)))
                deleted = []
            existing = [number for number in examined.differences if number in examined.reports]
            if not existing and not deleted:
                break
            reasons |= await self._record(examined, existing, [await self._deletion(number, examined) for number in deleted])
            before, examined = examined.differences, await self._examine(list(examined.differences))
            if examined.differences.items() <= before.items():
                break
        return reasons, examined

    async def _record(self, examined: _Examined, numbers: Sequence[str], deletions: Sequence[Mapping[str, Any]]) -> Mapping[str, str]:
        """Records reports, refunds first: otherwise the status refunded would be booked without their references and dates."""
        refused: dict[str, str] = {}
        purchases: list[Mapping[str, Any]] = []
        for number in numbers:
            reports, source = examined.reports[number], self._shop.source(examined.sources.get(number, ()))
            purchases.append(_marked(reports.purchase, source))
            for refund in reports.refunds:
                if reason := await self._ledger.refund(number, _marked(refund, source)):
                    refused[number] = reason
        refused |= await self._ledger.record([*purchases, *deletions])
        return refused

    async def _deletion(self, number: str, examined: _Examined) -> Mapping[str, Any]:
        """The report of an order that the shop does not have any more, as the plugin reports one that is being deleted."""
        known = await self._ledger.order(number)
        return {
            **{name: known[name] for name in _TAKEN_OVER if known.get(name) not in (None, "", [])},
            "id": f"wc-order-{number}-deleted",
            "payment_status": "cancelled",
            "reason": "deleted",
            "refunded_total": known.get("refunded_amount", 0),
            "reported_at": examined.read_at,
            "source": self._shop.source(examined.sources[number]),
        }

    def _figures(self, order: Purchase) -> Figures:
        try:
            return shop_figures(order, self._currency)
        except (InvalidRequest, KeyError) as error:
            raise CommandFailed(f"order {order.order_id} of the shop can't be compared: {error}") from error


def _figures(balance: OrderBalance | None) -> Figures | None:
    return None if balance is None else ledger_figures(balance)


def _marked(report: Mapping[str, Any], source: str) -> Mapping[str, Any]:
    """A report under a source, marked as history if it comes too late for what follows from sales and refunds as they happen."""
    at = max(datetime.fromisoformat(report[name]) for name in ("timestamp", "paid_at") if report.get(name))
    return {**report, "source": source, "historical": datetime.now(UTC) - at > LIVE_FOR}


def _why_lacking(count: int) -> str:
    return f"the shop lacks {count} orders: if it is the right shop, and no older copy of it, add --deleted"


def _by_number(number: str) -> tuple[int, str]:
    """Sorts numbers of orders by their value."""
    return len(number), number
