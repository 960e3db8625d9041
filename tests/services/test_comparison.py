"""Balances of orders, and the outcomes of comparing them with the shop, through a real channel and each kind of database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from pmp.purchases.v1 import comparison_pb2 as pb
from pmp.purchases.v1 import purchases_pb2
from pmp.purchases.v1.comparison_pb2_grpc import ComparisonServiceStub
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub
from sqlalchemy import text

from kit.rules import PageKey
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from kit.telemetry.setup import telemetry
from services.purchases.balance_store import balances_query
from services.purchases.comparison import ComparisonGauges, MetricName
from services.purchases.composition import ROLE
from services.purchases.messages import TOPIC
from services.purchases.models import PurchaseRow
from services.purchases.orders import new_row
from tests.databases import newest_database
from tests.roles import serving, settings_for

NOW = datetime.now(UTC).replace(microsecond=0)
on_sqlite = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""For what does not depend on the database."""


class Ledger:
    """The service, as callers of the gateway reach it."""

    def __init__(self, runtime: ServiceRuntime, channel: grpc.aio.Channel) -> None:
        self.sessions = runtime.sessions
        self._token = runtime.settings.mesh_token.get_secret_value()
        self._comparisons: Any = ComparisonServiceStub(channel)
        self._purchases: Any = PurchasesServiceStub(channel)

    async def call(self, request: Message, scope: str) -> Any:
        stub = self._purchases if request.DESCRIPTOR.file.name.endswith("purchases.proto") else self._comparisons
        metadata = (("x-pmp-mesh-token", self._token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope))
        return await getattr(stub, type(request).__name__.removesuffix("Request"))(request, metadata=metadata)

    async def track(self, number: int, **fields: Any) -> None:
        at = NOW - timedelta(hours=number)
        order = {"order_id": str(number), "timestamp": at.isoformat(), "user_id": "42", "amount": 19.9, "currency": "EUR", **fields}
        await self.call(ParseDict({"purchase": order}, purchases_pb2.TrackPurchaseRequest()), "site")

    async def balances(self, **fields: Any) -> pb.ListBalancesResponse:
        return await self.call(ParseDict(fields, pb.ListBalancesRequest()), "read")

    async def add(self, at: datetime, different: int, shop: str = "woocommerce") -> pb.AddComparisonResponse:
        comparison = {"shop": shop, "checked_at": at.isoformat(), "from": (at - timedelta(days=90)).isoformat(), "to": at.isoformat()}
        body = {"comparison": {**comparison, "orders": 10, "found": 3, "different": different}}
        return await self.call(ParseDict(body, pb.AddComparisonRequest()), "admin")

    async def newest(self) -> pb.GetNewestComparisonResponse:
        return await self.call(pb.GetNewestComparisonRequest(), "read")


@pytest.fixture
async def ledger(settings: Settings, resources: Resources) -> AsyncIterator[Ledger]:
    runtime = ROLE.compose(settings_for(ROLE, settings), resources)
    async with newest_database(settings, TOPIC), serving(runtime) as channel:
        yield Ledger(runtime, channel)


async def test_balances_of_a_period_come_page_by_page_the_oldest_first(ledger: Ledger) -> None:
    for number in range(5):
        await ledger.track(number)
    period = {"from": (NOW - timedelta(hours=3)).isoformat(), "to": NOW.isoformat()}
    first = await ledger.balances(**period, page_size=2)
    second = await ledger.balances(**period, page_size=2, page_token=first.next_page_token)
    assert [[each.order_id for each in page.balances] for page in (first, second)] == [["3", "2"], ["1"]]
    assert second.next_page_token == ""


async def test_a_balance_has_exact_amounts_and_the_sources_of_its_order(ledger: Ledger) -> None:
    await ledger.track(1, source="plugin", is_test=True)
    await ledger.track(1, source="page")
    refund = {"reference": "r1", "amount": 0.1, "source": "stripe", "refunded_total": 0.1}
    await ledger.call(ParseDict({"id": "1", "refund": refund}, purchases_pb2.RefundPurchaseRequest()), "site")
    [balance] = (await ledger.balances()).balances
    assert (balance.payment_status, balance.currency) == ("partially_refunded", "EUR")
    assert (balance.amount, balance.paid_amount, balance.refunded_amount) == ("19.90", "19.90", "0.10")
    assert list(balance.sources) == ["page", "plugin"]


async def test_balances_are_found_by_the_shops_numbers(ledger: Ledger) -> None:
    for number in range(3):
        await ledger.track(number)
    found = await ledger.balances(order_ids=["2", "0", "unknown"])
    assert [each.order_id for each in found.balances] == ["2", "0"]


async def test_an_order_for_which_reports_are_held_has_no_balance(ledger: Ledger) -> None:
    refund = {"reference": "r1", "amount": 1, "source": "stripe"}
    await ledger.call(ParseDict({"id": "9", "refund": refund}, purchases_pb2.RefundPurchaseRequest()), "site")
    assert not (await ledger.balances()).balances
    assert not (await ledger.balances(order_ids=["9"])).balances


async def test_the_newest_comparison_is_kept_once(ledger: Ledger) -> None:
    assert not (await ledger.newest()).HasField("comparison")
    for _ in range(2):
        await ledger.add(NOW, 1)
        await ledger.add(NOW - timedelta(days=1), 7)
    newest = (await ledger.newest()).comparison
    assert (newest.shop, newest.orders, newest.found, newest.different) == ("woocommerce", 10, 3, 1)
    assert newest.checked_at.ToDatetime(UTC) == NOW
    async with ledger.sessions.reading() as session:
        assert await session.scalar(text("SELECT count(*) FROM shop_comparisons")) == 2


@on_sqlite
async def test_a_comparison_that_is_none_is_refused(ledger: Ledger) -> None:
    for at, shop in ((NOW, ""), (NOW, "Woo Commerce"), (NOW + timedelta(days=2), "woocommerce")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ledger.add(at, 0, shop)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


@on_sqlite
async def test_each_call_wants_its_scope(ledger: Ledger) -> None:
    for request, scope in (
        (pb.ListBalancesRequest(), "site"),
        (pb.GetNewestComparisonRequest(), "track"),
        (pb.AddComparisonRequest(), "read"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await ledger.call(request, scope)
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


@on_sqlite
async def test_gauges_show_the_newest_comparison_once_there_is_one(ledger: Ledger, settings: Settings) -> None:
    reader = InMemoryMetricReader()
    with telemetry(settings, TOPIC, readers=[reader]):
        gauges = ComparisonGauges(ledger.sessions)

        async def seen() -> dict[str, float]:
            await gauges.look(NOW)
            metrics: Any = reader.get_metrics_data()
            scopes = [scope for each in metrics.resource_metrics for scope in each.scope_metrics] if metrics else []
            shown = [metric for scope in scopes for metric in scope.metrics if metric.name in set(MetricName)]
            return {metric.name: point.value for metric in shown for point in metric.data.data_points}

        assert await seen() == {}
        await ledger.add(NOW - timedelta(hours=2), 4)
        assert await seen() == {MetricName.DIFFERENT: 4, MetricName.AGE: 7200}


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
async def test_balances_are_read_by_index(ledger: Ledger) -> None:
    async with ledger.sessions.begin() as session:
        for number in range(3000):
            row = new_row("shop", str(number), "USD", NOW)
            row.timestamp = row.created_at = row.updated_at = NOW - timedelta(minutes=number)
            row.subject, row.payment_status, row.amount, row.currency = "wordpress:1", "completed", Decimal(1), "USD"
            session.add(PurchaseRow(**asdict(row)))
    async with ledger.sessions.begin() as session:
        await session.execute(text("ANALYZE TABLE purchases"))
        connection = await session.connection()
        for after in (None, PageKey(NOW - timedelta(minutes=200), "x")):
            query = balances_query(NOW - timedelta(minutes=300), NOW, after, 51).compile(dialect=connection.dialect)
            values = tuple(query.params[name] for name in query.positiontup or ())
            [step] = [dict(row) for row in (await connection.exec_driver_sql(f"EXPLAIN {query}", values)).mappings()]
            assert (step["key"], step["type"]) == ("idx_timestamp", "range"), step
            assert "filesort" not in (step["Extra"] or ""), step
