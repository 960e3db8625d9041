"""Purchases through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged
from pmp.log.v1 import log_pb2
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub, add_PurchasesServiceServicer_to_server
from sqlalchemy import func, select, text

from kit.database import Database, transact
from kit.interceptors import Boundary
from kit.log.consume import Consumer
from kit.log.redis_log import RedisLog, open_log
from kit.log.streams import START
from kit.outbox import Relay, StateTopic, prepare_heads
from kit.persons import learn
from kit.settings import Settings
from kit.vault import Vault
from services.purchases.exchange import Quote
from services.purchases.messages import EMAIL_CONTEXT, TOPIC
from services.purchases.models import EntryRow, LineRow, NoticeRow, PurchaseRow
from services.purchases.repository import Filter, PageKey, Purchases, Rates
from services.purchases.servicer import PurchasesServicer
from tests.conftest import newest_database

PAYLOADS = Path(__file__).parent.parent / "payloads"
NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = NOW - timedelta(days=1)
HISTORY = "ListPurchaseChanges"


def purchase(**fields: Any) -> dict[str, Any]:
    return {"order_id": "1", "timestamp": YESTERDAY.isoformat(), "user_id": "42", "amount": 100, "currency": "USD", **fields}


def golden(name: str) -> dict[str, Any]:
    return json.loads((PAYLOADS / f"purchases.{name}.json").read_text())


class Shop:
    """The service, and its relay step by step."""

    def __init__(self, settings: Settings, database: Database, log: RedisLog, channel: grpc.aio.Channel, topic: StateTopic) -> None:
        self.settings = settings
        self.sessions = database.sessions
        self.log = log
        self.topic = topic
        self.vault = Vault.from_settings(settings)
        self.stub: Any = PurchasesServiceStub(channel)

    def metadata(self, scope: str = "site") -> tuple[tuple[str, str], ...]:
        token = ("x-pmp-mesh-token", self.settings.mesh_token.get_secret_value())
        return (token,) if scope == "internal" else (token, ("x-pmp-client", "shop"), ("x-pmp-scope", scope))

    async def call(self, request: Message, *, scope: str = "site") -> Any:
        method = getattr(self.stub, type(request).__name__.removesuffix("Request"))
        return await method(request, metadata=self.metadata(scope))

    async def track(self, fields: dict[str, Any], *, scope: str = "site") -> pb.TrackPurchaseResponse:
        return await self.call(ParseDict({"purchase": fields}, pb.TrackPurchaseRequest()), scope=scope)

    async def refund(
        self, name: str, reference: str, amount: float, total: float | None = None, **fields: Any
    ) -> pb.RefundPurchaseResponse:
        refund = {"reference": reference, "amount": amount, "refunded_total": total, **fields}
        return await self.call(ParseDict({"id": name, "refund": refund}, pb.RefundPurchaseRequest()))

    async def status(self, name: str, status: str, **fields: Any) -> pb.UpdatePaymentStatusResponse:
        return await self.call(ParseDict({"id": name, "payment_status": status, **fields}, pb.UpdatePaymentStatusRequest()))

    async def get(self, name: str = "1") -> pb.RecordedPurchase:
        return (await self.call(pb.GetPurchaseRequest(id=name))).purchase

    async def list(self, **fields: Any) -> pb.ListPurchasesResponse:
        return await self.call(ParseDict(fields, pb.ListPurchasesRequest()), scope="read")

    async def orders(self, **fields: Any) -> list[str]:
        """Numbers of the orders of all pages."""
        found: list[str] = []
        token = ""
        while True:
            page = await self.list(**fields, page_token=token)
            found += [order.order_id for order in page.purchases]
            token = page.next_page_token
            if not token:
                return found

    async def relay(self) -> None:
        relay = Relay(self.sessions, self.log, TOPIC, keep=timedelta(hours=1))
        for partition in range(self.settings.log_partitions):
            while await relay.step(partition):
                pass

    async def published(self) -> list[change_pb2.PurchaseChanged]:
        await self.relay()
        partitions = range(self.settings.log_partitions)
        entries = [entry for p in partitions for entry in await self.log.read(TOPIC, p, START, limit=1000, block_ms=1)]
        records = [record for entry in entries for record in log_pb2.Pack.FromString(entry.pack).records]
        assert {record.type for record in records} <= {"pmp.purchases.v1.PurchaseChanged"}
        return [change_pb2.PurchaseChanged.FromString(record.payload) for record in records]

    async def history(self) -> list[change_pb2.PurchaseChanged]:
        found: list[change_pb2.PurchaseChanged] = []
        for partition in range(self.settings.log_partitions):
            request = pb.ListPurchaseChangesRequest(partition=partition)
            async for answer in self.stub.ListPurchaseChanges(request, metadata=self.metadata("internal")):
                found += answer.changes
        return found

    async def identify(self, *changes: IdentityChanged) -> None:
        """Publishes what identity tells on its topic, and lets the service learn it."""
        topic = StateTopic("identity", self.settings.log_partitions)
        await prepare_heads(self.sessions, "identity", self.settings.log_partitions)

        async def tell(session: Any) -> None:
            await topic.tell(session, [(change.alias.subject or change.merge.merged_user_id, change) for change in changes])

        await transact(self.sessions, tell)
        relay = Relay(self.sessions, self.log, "identity", keep=timedelta(hours=1))
        consumer = Consumer(self.sessions, self.log, "identity", learn)
        for partition in range(self.settings.log_partitions):
            while await relay.step(partition):
                pass
            while await consumer.step(partition, block_ms=1):
                pass

    async def rates(self, *quotes: tuple[date, str, str]) -> None:
        async with self.sessions.begin() as session:
            await Rates(session).store([Quote(day, currency, Decimal(units)) for day, currency, units in quotes], "test")

    async def count(self, model: Any, *conditions: Any) -> int:
        async with self.sessions() as session:
            return await session.scalar(select(func.count()).select_from(model).where(*conditions)) or 0


@pytest.fixture
async def shop(settings: Settings, log: RedisLog) -> AsyncIterator[Shop]:
    async with newest_database(settings, TOPIC) as database:
        topic = StateTopic(TOPIC, settings.log_partitions)
        await prepare_heads(database.sessions, TOPIC, settings.log_partitions)
        servicer = PurchasesServicer(settings, database.sessions, topic, Vault.from_settings(settings))
        server = grpc.aio.server(interceptors=[Boundary(settings.mesh_token.get_secret_value())])
        add_PurchasesServiceServicer_to_server(servicer, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            yield Shop(settings, database, log, channel, topic)
        await server.stop(0)


def booked(order: pb.RecordedPurchase) -> list[tuple[str, str, float]]:
    return [(entry.kind, entry.reference, entry.amount) for entry in order.entries]


def balance(order: pb.RecordedPurchase) -> tuple[str, float, float]:
    return (order.payment_status, order.paid_amount, order.refunded_amount)


def violations(error: grpc.aio.AioRpcError) -> dict[str, str]:
    bad = BadRequest()
    metadata = dict(error.trailing_metadata() or ())
    assert Status.FromString(metadata["grpc-status-details-bin"]).details[0].Unpack(bad)  # pyright: ignore[reportArgumentType]
    return {violation.field: violation.description for violation in bad.field_violations}


def test_the_golden_payload_has_every_field_of_a_purchase() -> None:
    assert set(golden("TrackPurchase")) == set(pb.Purchase.DESCRIPTOR.fields_by_name)


async def test_every_field_of_an_order_is_kept_and_shown(shop: Shop) -> None:
    told = golden("TrackPurchase")
    answer = await shop.track(told)
    assert (answer.success, answer.duplicate) == (True, False)
    for name in (answer.purchase_id, told["order_id"]):
        shown = MessageToDict(await shop.get(name), preserving_proto_field_name=True)
        assert shown["purchase_id"] == answer.purchase_id
        same = ("order_id", "user_id", "session_id", "currency", "amount", "payment_method", "timestamp", "paid_at", "metadata", "lines")
        assert {field: shown[field] for field in same} == {field: told[field] for field in same}
        assert (shown["billing_address"], shown["utm_attribution"]) == (told["billing_address"], told["utm_parameters"])
        assert (shown["payment_status"], shown["paid_amount"]) == ("completed", 228.9)
        [entry] = shown["entries"]
        assert (entry["kind"], entry["amount"], entry["timestamp"]) == ("sale", 228.9, told["paid_at"])
    async with shop.sessions() as session:
        row = (await session.scalars(select(PurchaseRow))).one()
        notice = (await session.scalars(select(NoticeRow))).one()
    assert (row.wordpress_order_id, row.product_id, row.product_name, row.product_type) == (1016, "201", "PMP exam preparation", "course")
    assert (row.subject, row.site, row.email_hash) == ("wordpress:42", "shop", shop.vault.fingerprint("ADA@example.org"))
    assert (notice.reference, notice.source, notice.status, notice.amount) == (told["id"], "plugin", "completed", Decimal("228.9"))
    assert {"paid_amount", "entries", "lines"} <= set(notice.changed.split(","))


async def test_what_is_published_is_the_whole_truth_and_the_history_tells_the_same(shop: Shop) -> None:
    await shop.rates((date(2026, 11, 20), "USD", "1.15"))
    answer = await shop.track(golden("TrackPurchase"))
    refund = await shop.refund("1016", "1017", 29.9, 29.9)
    assert (refund.purchase_id, refund.booked_amount) == (answer.purchase_id, 29.9)
    *_, told = await shop.published()
    assert (told.purchase_id, told.order_id, told.subject) == (answer.purchase_id, "1016", "wordpress:42")
    assert (told.amount, told.paid_amount, told.refunded_amount, told.currency) == ("228.90", "228.90", "29.90", "EUR")
    assert (told.base_currency, told.base_net_amount) == ("USD", "228.85")
    assert [(line.product_id, line.quantity, line.amount) for line in told.lines] == [("201", 1, "199.00"), ("305", 2, "29.90")]
    assert [(entry.kind, entry.reference, entry.amount, entry.base_amount) for entry in told.entries] == [
        (change_pb2.ENTRY_KIND_SALE, "", "228.90", "263.24"),
        (change_pb2.ENTRY_KIND_PARTIAL_REFUND, "1017", "-29.90", "-34.39"),
    ]
    assert told.payment_status == change_pb2.PAYMENT_STATUS_PARTIALLY_REFUNDED
    assert shop.vault.open(told.sealed_email, context=EMAIL_CONTEXT) == "ada@example.org"
    assert told.utm_attribution.campaign == "spring"
    assert await shop.history() == [told]


async def test_personal_values_are_sealed_at_rest_and_on_the_topic(shop: Shop) -> None:
    await shop.track(golden("TrackPurchase"))
    await shop.relay()
    async with shop.sessions() as session:
        rows = [
            repr(row)
            for table in ("purchases", "purchase_notices", "outbox", "topic_state")
            for row in await session.execute(text(f"SELECT * FROM {table}"))
        ]  # noqa: S608, E501
    entries = [entry.pack for p in range(4) for entry in await shop.log.read(TOPIC, p, START, limit=10, block_ms=1)]
    for personal in ("ada@", "Lovelace", "SW1Y", "7946"):
        assert not [row for row in rows if personal in row]
        assert not [pack for pack in entries if personal.encode() in pack]


async def test_a_guest_is_known_by_e_mail_and_visit(shop: Shop) -> None:
    await shop.track(purchase(user_id="", email="Guest@Example.org", session_id="s1"))
    await shop.track(purchase(user_id="", session_id="s2", order_id="2"))
    emailed, visited = await shop.published()
    if emailed.order_id == "2":
        emailed, visited = visited, emailed
    assert emailed.subject == f"email:{shop.vault.fingerprint('guest@example.org').hex()}"
    assert (emailed.session_id, visited.subject) == ("s1", "session:s2")
    await shop.track(purchase(user_id="7", session_id="s1"))
    assert (await shop.published())[-1].subject in {"wordpress:7", "session:s2"}
    assert (await shop.get()).user_id == "7"


@pytest.mark.parametrize(
    ("currency", "told", "kept"),
    [("USD", 19.99, "19.99"), ("USD", "19.99", "19.99"), ("jpy", 1999.5, "2000"), ("KWD", 1.2345, "1.235"), ("EUR", 2.675, "2.68")],
)
async def test_an_amount_is_exact_in_its_currency(shop: Shop, currency: str, told: object, kept: str) -> None:
    await shop.track(purchase(currency=currency, amount=told))
    [message] = await shop.published()
    assert (message.amount, message.entries[0].amount, message.currency) == (kept, kept, currency.upper())
    assert (await shop.get()).amount == float(kept)
