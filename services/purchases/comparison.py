"""The rpcs by which the ledger is compared with the shop, and the gauges of what the newest comparison found."""

from __future__ import annotations

from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from pmp.purchases.v1 import comparison_pb2 as pb
from pmp.purchases.v1.comparison_pb2_grpc import ComparisonServiceServicer
from sqlalchemy.ext.asyncio import AsyncSession
from typing_extensions import override

from kit.boundary.caller import Context, bind_log_fields
from kit.database.transactions import Sessions, transact
from kit.rules import ANY_AGE, Period, check, page_key, page_token, wrong_time
from kit.server import run_every
from kit.settings import Settings
from kit.telemetry.gauges import Gauge
from kit.telemetry.names import Metric
from kit.times import timestamp
from services.purchases.balance_store import Balance, Balances, Comparison, Comparisons
from services.purchases.money import exact

_PAGE: Final = 500
_LOOK_SECONDS: Final = 15.0
_TIMES: Final = ("checked_at", "from", "to")


class MetricName(Metric):
    """The metrics of comparisons."""

    DIFFERENT = "pmp.comparison.different", "{order}"
    AGE = "pmp.comparison.age", "s"


class ComparisonServicer(ComparisonServiceServicer):
    """Shows balances, and keeps the outcomes of comparisons."""

    def __init__(self, settings: Settings, sessions: Sessions) -> None:
        self._site = settings.site_name
        self._sessions = sessions

    @override
    async def ListBalances(self, request: pb.ListBalancesRequest, context: Context) -> pb.ListBalancesResponse:
        after = page_key(request.page_token, lambda text: str(UUID(text)))
        since, limit = getattr(request, "from"), request.page_size or _PAGE  # a keyword of Python
        async with self._sessions.reading() as session:
            balances = Balances(session)
            if request.order_ids:
                found = await balances.of(self._site, request.order_ids)
                return pb.ListBalancesResponse(balances=[_message(*each) for each in found])
            found = await balances.page(
                since.ToDatetime(UTC) if request.HasField("from") else None,
                request.to.ToDatetime(UTC) if request.HasField("to") else None,
                after,
                limit + 1,
            )
        page, last = found[:limit], found[limit - 1][0] if len(found) > limit else None
        bind_log_fields(orders=len(page))
        return pb.ListBalancesResponse(
            balances=[_message(*each) for each in page], next_page_token=page_token(last.timestamp, last.id) if last else ""
        )

    @override
    async def AddComparison(self, request: pb.AddComparisonRequest, context: Context) -> pb.AddComparisonResponse:
        given = request.comparison
        check(*(wrong_time(f"comparison.{name}", getattr(given, name), Period.of(ANY_AGE)) for name in _TIMES))
        comparison = Comparison(
            shop=given.shop,
            checked_at=given.checked_at.ToDatetime(UTC),
            since=getattr(given, "from").ToDatetime(UTC),
            until=given.to.ToDatetime(UTC),
            orders=given.orders,
            found=given.found,
            different=given.different,
        )

        async def work(session: AsyncSession) -> None:
            await Comparisons(session).add(comparison)

        await transact(self._sessions, work)
        return pb.AddComparisonResponse(success=True)

    @override
    async def GetNewestComparison(self, request: pb.GetNewestComparisonRequest, context: Context) -> pb.GetNewestComparisonResponse:
        async with self._sessions.reading() as session:
            newest = await Comparisons(session).newest()
        return pb.GetNewestComparisonResponse(comparison=None if newest is None else _comparison(newest))


class ComparisonGauges:
    """Gauges of the newest comparison; none as long as there was none. Every replica reports the same."""

    def __init__(self, sessions: Sessions) -> None:
        self._sessions = sessions
        self._different = Gauge(MetricName.DIFFERENT, "Orders that differ from the shop's after the newest comparison.")
        self._age = Gauge(MetricName.AGE, "Time since the newest comparison with the shop.")

    async def run(self) -> None:
        """Sets the gauges every 15 seconds, until cancelled."""
        await run_every(lambda: self.look(datetime.now(UTC)), _LOOK_SECONDS, "comparisons not looked at")

    async def look(self, now: datetime) -> None:
        """Sets the gauges."""
        async with self._sessions.reading() as session:
            newest = await Comparisons(session).newest()
        if newest is not None:
            self._different.set(newest.different)
            self._age.set((now - newest.checked_at).total_seconds())


def _message(balance: Balance, sources: Collection[str]) -> pb.OrderBalance:
    return pb.OrderBalance(
        purchase_id=balance.id,
        order_id=balance.order_id,
        timestamp=timestamp(balance.timestamp),
        payment_status=balance.payment_status,
        currency=balance.currency,
        amount=f"{exact(balance.amount, balance.currency):f}",
        paid_amount=f"{exact(balance.paid_amount, balance.currency):f}",
        refunded_amount=f"{exact(balance.refunded_amount, balance.currency):f}",
        sources=sorted(sources),
    )


def _comparison(outcome: Comparison) -> pb.Comparison:
    message = pb.Comparison(
        shop=outcome.shop,
        checked_at=timestamp(outcome.checked_at),
        to=timestamp(outcome.until),
        orders=outcome.orders,
        found=outcome.found,
        different=outcome.different,
    )
    getattr(message, "from").CopyFrom(timestamp(outcome.since))
    return message
