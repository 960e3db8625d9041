"""Purchases through a real channel, a real log and each kind of database."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator
from dataclasses import asdict
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from io import StringIO
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import grpc
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc.error_details_pb2 import BadRequest
from google.rpc.status_pb2 import Status
from pmp.identity.v1.change_pb2 import AliasChanged, IdentityChanged, MergeChanged
from pmp.log.v1 import log_pb2
from pmp.purchases.v1 import change_pb2
from pmp.purchases.v1 import purchases_pb2 as pb
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub
from rich.console import Console
from sqlalchemy import func, select, text
from sqlalchemy.event import listens_for, remove

from cli.errors import CommandFailed
from cli.rates import import_rates
from kit.database.transactions import transact
from kit.log.consume.consumer import Consumer
from kit.log.publish.outbox import prepare_heads
from kit.log.publish.relay import Relay
from kit.log.publish.state_topic import StateTopic
from kit.log.streams import START
from kit.migrate import migrate
from kit.people.keys.seals import BILLING_CONTEXT, EMAIL_CONTEXT, VISITOR_CONTEXT
from kit.people.persons import project_identity
from kit.people.subjects.data import SubjectData
from kit.people.subjects.retention import Retention, expiries
from kit.rules import PageKey
from kit.service.resources import Resources
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.purchases.composition import ROLE
from services.purchases.deadlines import HOLD_PERIOD, HeldReportExpiry
from services.purchases.exchange import Quote
from services.purchases.messages import TOPIC
from services.purchases.models import EntryRow, LineRow, PurchaseRow, RateRow, ReportRow
from services.purchases.order_ids import purchase_id_of
from services.purchases.orders import new_row
from services.purchases.personal import personal_tables
from services.purchases.publishing import RepublishErased
from services.purchases.recorder import MAX_HELD_REPORTS
from services.purchases.repository import Filter, Rates, list_query
from tests.databases import newest_database
from tests.roles import serving, settings_for

PAYLOADS = Path(__file__).parent.parent / "payloads"
NOW = datetime.now(UTC).replace(microsecond=0)
YESTERDAY = NOW - timedelta(days=1)


def purchase(**fields: Any) -> dict[str, Any]:
    return {"order_id": "1", "timestamp": YESTERDAY.isoformat(), "user_id": "42", "amount": 100, "currency": "USD", **fields}


def golden(name: str) -> dict[str, Any]:
    return json.loads((PAYLOADS / f"purchases.{name}.json").read_text())


class Shop:
    """The service, and its relay step by step."""

    def __init__(self, runtime: ServiceRuntime, resources: Resources, channel: grpc.aio.Channel) -> None:
        self.settings = runtime.settings
        self.sessions = runtime.sessions
        self.database = runtime.database
        self.log = runtime.log
        self.topic = StateTopic(TOPIC, runtime.settings.log_partitions)
        self.keys, self.hasher = runtime.keys, runtime.keys.hasher
        self.resources = resources
        self.stub: Any = PurchasesServiceStub(channel)

    def replica(self) -> ServiceRuntime:
        """Another process that serves the same database."""
        return ROLE.compose(settings_for(ROLE, self.settings), self.resources)

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
        """Publishes changes on the topic of identity, and lets the service apply them."""
        topic = StateTopic("identity", self.settings.log_partitions)
        await prepare_heads(self.sessions, "identity", self.settings.log_partitions)

        async def publish(session: Any) -> None:
            await topic.publish(session, [(change.alias.subject or change.merge.merged_user_id, change) for change in changes])

        await transact(self.sessions, publish)
        relay = Relay(self.sessions, self.log, "identity", keep=timedelta(hours=1))
        consumer = Consumer(self.sessions, self.log, "identity", project_identity)
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
def settings(settings: Settings, request: pytest.FixtureRequest) -> Settings:
    """The settings, with those that a test overrides."""
    return settings.model_copy(update=getattr(request, "param", {}))


@pytest.fixture
async def shop(settings: Settings, resources: Resources) -> AsyncIterator[Shop]:
    async with newest_database(settings, TOPIC):
        runtime = ROLE.compose(settings_for(ROLE, settings), resources)
        async with serving(runtime) as channel:
            yield Shop(runtime, resources, channel)


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
    payload = golden("TrackPurchase")
    answer = await shop.track(payload)
    assert (answer.success, answer.duplicate) == (True, False)
    for name in (answer.purchase_id, payload["order_id"]):
        shown = MessageToDict(await shop.get(name), preserving_proto_field_name=True)
        assert shown["purchase_id"] == answer.purchase_id
        same = (
            *("order_id", "user_id", "session_id", "currency", "amount", "payment_method", "timestamp", "paid_at", "metadata", "lines"),
            *("discount_total", "tax_total", "shipping_total", "coupon_codes", "country", "referral_code"),
        )
        assert {field: shown[field] for field in same} == {field: payload[field] for field in same}
        assert (shown["billing_address"], shown["utm_attribution"]) == (payload["billing_address"], payload["utm_parameters"])
        assert (shown["payment_status"], shown["paid_amount"]) == ("completed", 228.9)
        [entry] = shown["entries"]
        assert (entry["kind"], entry["amount"], entry["timestamp"]) == ("sale", 228.9, payload["paid_at"])
    async with shop.sessions() as session:
        row = (await session.scalars(select(PurchaseRow))).one()
        report = (await session.scalars(select(ReportRow))).one()
    assert (row.wordpress_order_id, row.product_id, row.product_name, row.product_type) == (1016, "201", "PMP exam preparation", "course")
    assert (row.subject, row.site, row.email_hash) == ("wordpress:42", "shop", shop.hasher.fingerprint("ADA@example.org"))
    assert (report.reference, report.source, report.status, report.amount) == (payload["id"], "plugin", "completed", Decimal("228.9"))
    assert {"paid_amount", "entries", "lines"} <= set(report.changed.split(","))


async def test_what_is_published_is_the_whole_state_and_the_history_is_the_same(shop: Shop) -> None:
    await shop.rates((date(2026, 11, 20), "USD", "1.15"))
    answer = await shop.track(golden("TrackPurchase"))
    refund = await shop.refund("1016", "1017", 29.9, 29.9)
    assert (refund.purchase_id, refund.booked_amount) == (answer.purchase_id, 29.9)
    *_, message = await shop.published()
    assert (message.purchase_id, message.order_id, message.subject) == (answer.purchase_id, "1016", "wordpress:42")
    assert (message.amount, message.paid_amount, message.refunded_amount, message.currency) == ("228.90", "228.90", "29.90", "EUR")
    assert (message.base_currency, message.base_net_amount) == ("USD", "228.85")
    lines = [(line.product_id, line.quantity, line.amount, [*line.course_ids]) for line in message.lines]
    assert lines == [("201", 1, "199.00", ["77", "78"]), ("305", 2, "29.90", [])]
    assert [(entry.kind, entry.reference, entry.amount, entry.base_amount) for entry in message.entries] == [
        (change_pb2.ENTRY_KIND_SALE, "", "228.90", "263.24"),
        (change_pb2.ENTRY_KIND_PARTIAL_REFUND, "1017", "-29.90", "-34.39"),
    ]
    assert message.payment_status == change_pb2.PAYMENT_STATUS_PARTIALLY_REFUNDED
    assert (await shop.keys.decryptor([message.sealed_email])).open(message.sealed_email, context=EMAIL_CONTEXT) == "ada@example.org"
    decryptor = await shop.keys.decryptor([message.sealed_billing, message.sealed_visitor])
    sent = golden("TrackPurchase")
    assert json.loads(decryptor.open(message.sealed_billing, context=BILLING_CONTEXT)) == sent["billing_address"]
    visitor = json.loads(decryptor.open(message.sealed_visitor, context=VISITOR_CONTEXT))
    assert visitor == {name: value for name, value in sent["metadata"].items() if name not in {"customer_note", "items"}}
    assert message.utm_attribution.campaign == "spring"
    assert (message.discount_total, message.tax_total, message.shipping_total) == ("20.00", "36.54", "4.90")
    assert (message.base_discount_total, message.base_tax_total, message.base_shipping_total) == ("23.00", "42.02", "5.64")
    assert ([*message.coupon_codes], message.country, message.referral_code) == (["spring10"], "GB", "PARTNER7")
    assert await shop.history() == [message]


async def test_personal_values_are_sealed_at_rest_and_on_the_topic(shop: Shop) -> None:
    await shop.track(golden("TrackPurchase"))
    await shop.relay()
    async with shop.sessions() as session:
        rows = [
            repr(row)
            for table in ("purchases", "purchase_notices", "outbox", "topic_state")
            for row in await session.execute(text(f"SELECT * FROM {table}"))  # noqa: S608
        ]
    entries = [entry.pack for p in range(4) for entry in await shop.log.read(TOPIC, p, START, limit=10, block_ms=1)]
    for personal in ("ada@", "Lovelace", "SW1Y", "7946", "1234567890.1732096530", "987654321", "Firefox"):
        assert not [row for row in rows if personal in row]
        assert not [pack for pack in entries if personal.encode() in pack]


async def test_a_guest_is_known_by_e_mail_and_session(shop: Shop) -> None:
    await shop.track(purchase(user_id="", email="Guest@Example.org", session_id="s1"))
    await shop.track(purchase(user_id="", session_id="s2", order_id="2"))
    emailed, browsed = await shop.published()
    if emailed.order_id == "2":
        emailed, browsed = browsed, emailed
    assert emailed.subject == f"email:{shop.hasher.fingerprint('guest@example.org').hex()}"
    assert (emailed.session_id, browsed.subject) == ("s1", "session:s2")
    await shop.track(purchase(user_id="7", session_id="s1"))
    assert (await shop.published())[-1].subject in {"wordpress:7", "session:s2"}
    assert (await shop.get()).user_id == "7"


async def test_a_refund_of_an_erased_order_counts_once_whenever_it_is_reported_and_nothing_personal_of_it_stays(shop: Shop) -> None:
    await shop.track(purchase(id="lovelace-1", payment_method="Lovelace's wallet", utm_parameters={"campaign": "lovelace"}))
    await shop.refund("1", "refund-of-lovelace", 10, reason="Lovelace asked", source="lovelace")
    after = {"purchases": RepublishErased(shop.topic)}
    data = SubjectData(shop.database, shop.keys, shop.topic, personal_tables(shop.hasher, "keep"), after)
    await data.erase(["wordpress:42"], "erased:" + "0" * 32)
    refunds = [("refund-of-lovelace", 10), ("second-of-lovelace", 5)] * 2
    answers = [await shop.refund("1", reference, amount, reason="Lovelace asked", source="lovelace") for reference, amount in refunds]
    assert [answer.duplicate for answer in answers] == [True, False, True, True]
    assert (await shop.get()).refunded_amount == 15
    async with shop.sessions() as session:
        tables = (PurchaseRow, EntryRow, ReportRow)
        kept = repr([tuple(row) for table in tables for row in await session.execute(select(*table.__table__.columns))])
    assert "lovelace" not in kept.casefold()
    assert "lovelace" not in str(await shop.history()).casefold()


@pytest.mark.parametrize("nobody", ["0", "null", "[object Object]", " "])
async def test_an_order_of_nobodys_id_reaches_its_buyer_by_other_identifiers(shop: Shop, nobody: str) -> None:
    await shop.track(purchase(user_id=nobody, email="Ada@example.org", session_id="undefined"))
    shown = await shop.get()
    assert (shown.user_id, shown.session_id) == ("", "")
    [change] = await shop.published()
    assert change.subject == f"email:{shop.hasher.fingerprint('ada@example.org').hex()}"
    billed = {"street": "12 Dorset Street"}
    await shop.track(purchase(order_id="2", user_id=nobody, billing_address=billed))
    assert ((await shop.get("2")).user_id, (await shop.get("2")).paid_amount) == ("", 100), "the sale counts without a buyer"
    await shop.track(purchase(order_id="2", user_id=nobody, email="Ada@example.org"))
    assert (await shop.published())[-1].subject == change.subject
    assert await shop.orders(user_id="0" if nobody == "0" else "null") == [], "nobody's orders are not everybody's"


@pytest.mark.parametrize(
    ("currency", "reported", "kept"),
    [("USD", 19.99, "19.99"), ("USD", "19.99", "19.99"), ("jpy", 1999.5, "2000"), ("KWD", 1.2345, "1.235"), ("EUR", 2.675, "2.68")],
)
async def test_an_amount_is_exact_in_its_currency(shop: Shop, currency: str, reported: object, kept: str) -> None:
    await shop.track(purchase(currency=currency, amount=reported))
    [message] = await shop.published()
    assert (message.amount, message.entries[0].amount, message.currency) == (kept, kept, currency.upper())
    assert (await shop.get()).amount == float(kept)


async def test_an_amount_in_no_currency_is_refused(shop: Shop) -> None:
    for code in ("ABC", "XAU", "XTS"):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await shop.track(purchase(currency=code))
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "ISO 4217" in violations(raised.value)["purchase.currency"]
    await shop.track(purchase(currency=""))
    assert (await shop.get()).currency == "USD"


async def test_late_repeated_and_out_of_order_reports_are_one_sale(shop: Shop) -> None:
    first = await shop.track(purchase(payment_status="pending", id="n1"))
    await shop.status("1", "processing", reference="evt_1", timestamp=NOW.isoformat())
    late = await shop.track(purchase(payment_status="pending", id="n1"))
    again = await shop.track(purchase(payment_status="completed", id="n2", paid_at=NOW.isoformat()))
    assert (first.duplicate, late.duplicate, again.duplicate) == (False, True, True)
    assert first.purchase_id == late.purchase_id == again.purchase_id
    answer = await shop.status("1", "wc-failed")
    assert (answer.duplicate, answer.payment_status) == (True, "completed")
    order = await shop.get()
    assert (balance(order), booked(order)) == (("completed", 100, 0), [("sale", "", 100)])
    assert order.paid_at.ToDatetime(UTC) == NOW
    assert await shop.count(ReportRow) == 5
    assert len(await shop.published()) == 2


async def test_what_one_report_leaves_out_another_adds_and_the_first_paid_one_fixes_the_lines(shop: Shop) -> None:
    lines = [{"product_id": "a", "amount": 60}, {"product_id": "b", "product_type": "guide", "quantity": 2, "amount": 40}]
    await shop.track(purchase(source="webhook", user_id="", session_id="s1", metadata={"intent": "pi_1"}))
    await shop.track(purchase(source="plugin", lines=lines, email="a@example.org", metadata={"intent": "other", "coupon": "X"}))
    answer = await shop.track(purchase(source="page", lines=lines[:1], is_test=True))
    order = await shop.get()
    assert not answer.duplicate
    assert [(line.product_id, line.product_type, line.quantity, line.amount) for line in order.lines] == [
        ("a", "other", 1, 60),
        ("b", "guide", 2, 40),
    ]
    assert (order.user_id, order.session_id, order.is_test) == ("42", "s1", True)
    assert MessageToDict(order.metadata) == {"intent": "pi_1", "coupon": "X"}
    assert (await shop.published())[-1].excluded


async def test_lines_follow_the_order_until_it_is_paid(shop: Shop) -> None:
    await shop.track(purchase(payment_status="pending", amount=0, product_id="a"))
    await shop.track(
        purchase(payment_status="pending", amount=30, lines=[{"product_id": "b", "amount": 10}, {"product_id": "c", "amount": 20}])
    )
    await shop.track(purchase(payment_status="pending", amount=10, product_id="b", product_name="B"))
    order = await shop.get()
    assert (order.amount, [(line.product_id, line.product_name, line.amount) for line in order.lines]) == (10, [("b", "B", 10)])
    await shop.track(purchase(amount=10, product_id="b", product_name="other"))
    await shop.track(purchase(amount=10, product_id="z"))
    assert [line.product_name for line in (await shop.get()).lines] == ["other"]
    assert await shop.count(LineRow) == 1


def breakdown(order: pb.RecordedPurchase) -> tuple[float | None, float | None, list[str], str]:
    discount, tax = (getattr(order, name) if order.HasField(name) else None for name in ("discount_total", "tax_total"))
    return discount, tax, [*order.coupon_codes], order.country


async def test_what_an_order_consists_of_follows_its_reports_until_it_is_paid(shop: Shop) -> None:
    await shop.track(purchase(payment_status="pending", discount_total=5, coupon_codes=["Five", "five ", "A"]))
    assert breakdown(await shop.get()) == (5, None, ["a", "five"], "")
    await shop.track(purchase(payment_status="pending", discount_total=0))
    assert breakdown(await shop.get()) == (0, None, [], "")
    await shop.track(purchase(discount_total=10.005, coupon_codes=["ten"], tax_total=16, country="de"))
    fixed = 10.01, 16, ["ten"], "DE"
    assert breakdown(await shop.get()) == fixed
    assert (await shop.track(purchase(discount_total=99, coupon_codes=["other"], country="US"))).duplicate
    assert breakdown(await shop.get()) == fixed
    assert not (await shop.track(purchase(shipping_total=4.9, payment_status="pending"))).duplicate, "what was not known yet is added"
    assert ((await shop.get()).shipping_total, (await shop.get()).disputed) == (4.9, False)


async def test_what_an_order_consists_of_is_that_of_the_newest_report(shop: Shop) -> None:
    await shop.track(reported(5, discount_total=5, coupon_codes=["five"], tax_total=19, billing_address={"country": "ch"}))
    await shop.track(reported(2, discount_total=2, tax_total=2, country="US"))
    assert breakdown(await shop.get()) == (5, 19, ["five"], "CH")
    await shop.track(reported(6, discount_total=0))
    assert breakdown(await shop.get()) == (0, 19, [], "CH"), "what a report does not state stays"
    await shop.track(reported(7))
    assert breakdown(await shop.get()) == (0, 19, [], "CH")
    assert (await shop.published())[-1].base_tax_total == "19.00"


async def test_an_odd_country_or_total_is_left_out_and_the_order_is_kept(shop: Shop) -> None:
    odd = {
        "country": "Germany",
        "billing_address": {"country": "Deutschland"},
        "tax_total": "none",
        "discount_total": -5,
        "shipping_total": 4,
    }
    answer = await shop.call(pb.TrackPurchaseRequest(json_body=HttpBody(data=json.dumps(purchase(**odd)).encode())))
    found = {fault.field: fault.description for fault in answer.faults}
    assert found.pop("country") == "country must be two letters: left out"
    assert found.keys() == {"tax_total", "discount_total"}
    order = await shop.get()
    assert (order.amount, order.shipping_total, breakdown(order)) == (100, 4, (None, None, [], ""))


async def test_of_an_erased_order_its_coupons_and_its_partner_go_and_its_totals_stay(shop: Shop) -> None:
    await shop.track(golden("TrackPurchase"))
    after = {"purchases": RepublishErased(shop.topic)}
    data = SubjectData(shop.database, shop.keys, shop.topic, personal_tables(shop.hasher, "keep"), after)
    await data.erase(["wordpress:42"], f"erased:{'0' * 32}")
    await shop.track(purchase(order_id="1016", coupon_codes=["spring10"], referral_code="PARTNER7"))
    *_, message = await shop.published()
    assert ([*message.coupon_codes], message.referral_code) == ([], "")
    assert (message.discount_total, message.tax_total, message.shipping_total, message.country) == ("20.00", "36.54", "4.90", "GB")


async def test_an_order_was_placed_at_the_earliest_reported_time_and_its_sale_fixes_that(shop: Shop) -> None:
    for hours in (1, 3, 2):
        await shop.track(purchase(payment_status="pending", timestamp=(NOW - timedelta(hours=hours)).isoformat()))
    assert (await shop.get()).timestamp.ToDatetime(UTC) == NOW - timedelta(hours=3)
    await shop.track(purchase(timestamp=(NOW - timedelta(hours=4)).isoformat()))
    await shop.track(purchase(timestamp=(NOW - timedelta(hours=5)).isoformat(), paid_at=NOW.isoformat()))
    order = await shop.get()
    assert order.timestamp.ToDatetime(UTC) == order.paid_at.ToDatetime(UTC) == NOW - timedelta(hours=4)


async def test_a_refund_that_woocommerce_and_stripe_report_counts_once(shop: Shop) -> None:
    await shop.track(purchase())
    refunds = [("17", 10, 10), ("re_1", 10, 10), ("18", 15.5, 25.5), ("re_2", 15.5, 25.5), ("17", 10, 25.5)]
    answers = [await shop.refund("1", *each, source="x") for each in refunds]
    assert [(answer.booked_amount, answer.duplicate) for answer in answers] == [(10, False), (0, True), (15.5, False), (0, True), (0, True)]
    order = await shop.get()
    assert balance(order) == ("partially_refunded", 100, 25.5)
    assert booked(order) == [("sale", "", 100), ("partial_refund", "17", -10), ("partial_refund", "18", -15.5)]
    await shop.track(purchase(payment_status="refunded", refunded_total=100))
    order = await shop.get()
    assert (balance(order), sum(entry.amount for entry in order.entries)) == (("refunded", 100, 100), 0)


async def test_a_refund_says_what_was_returned_where_it_is_read_and_published(shop: Shop) -> None:
    payload = golden("RefundPurchase")
    await shop.track(golden("TrackPurchase"))
    assert not (await shop.call(ParseDict({"id": "1016", "refund": payload}, pb.RefundPurchaseRequest()))).duplicate
    _, entry = MessageToDict(await shop.get("1016"), preserving_proto_field_name=True, always_print_fields_with_no_presence=True)["entries"]
    assert (entry["reference"], entry["amount"], entry["lines"]) == ("1017", -29.9, payload["lines"])
    published = (await shop.published())[-1].entries[-1]
    assert [(line.product_id, line.quantity, line.amount) for line in published.lines] == [("305", 2, "29.90"), ("201", 0, "0.00")]
    assert (await shop.history())[-1].entries[-1] == published


async def test_totals_of_payments_add_up_and_a_refund_that_failed_is_taken_back(shop: Shop) -> None:
    await shop.track(purchase(reported_at=YESTERDAY.isoformat(), refunded_total=0))
    of_stripe: dict[str, Any] = {"source": "stripe", "provider": True}
    for payment, amount in (("ch_1", 40), ("ch_2", 60)):
        total = {"payment": payment, "timestamp": YESTERDAY.isoformat(), **of_stripe}
        assert (await shop.refund("1", f"{payment}:{amount}", amount, amount, **total)).booked_amount == amount
    failed: dict[str, Any] = {"deleted": True, "payment": "ch_1", "timestamp": NOW.isoformat(), **of_stripe}
    for known in (False, True):
        assert (await shop.refund("1", "re_1", 40, **failed)).duplicate == known
    order = await shop.get()
    assert (balance(order), order.disputed, order.entries[-1].reason) == (("partially_refunded", 100, 60), False, "refund_failed")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await shop.call(ParseDict({"id": "1", "refund": {"reference": "re_2", **failed}}, pb.RefundPurchaseRequest()))
    assert violations(raised.value) == {"refund": "refunded_total is required with provider, and amount if the refund failed"}


async def test_the_references_of_stripes_refunds_so_far_name_their_payment(shop: Shop) -> None:
    for reference, source in (("ch_1:3000", "stripe"), ("REF1", "paypal"), ("a:b", "another")):
        await shop.refund("9", reference, 30, 30, source=source, provider=True)
    older = [("purchase_entries", "returned_lines"), ("purchase_notices", "returned_lines"), ("purchase_notices", "payment")]
    async with shop.sessions.begin() as session:
        for table, column in older:
            await session.execute(text(f"ALTER TABLE {table} DROP COLUMN {column}"))
        await session.execute(text("UPDATE alembic_version SET version_num = 'purchases_0007' WHERE version_num LIKE 'purchases%'"))
    await migrate(TOPIC, shop.settings.database(TOPIC))
    async with shop.sessions() as session:
        payments = {row.reference: row.payment for row in await session.execute(select(ReportRow.reference, ReportRow.payment))}
    assert payments == {"ch_1:3000": "ch_1", "REF1": "", "a:b": ""}


async def test_an_order_as_woocommerce_fires_it_from_first_to_last_hook(shop: Shop) -> None:
    """The order of hooks as WooCommerce 11.0.1 was seen to fire them; the plugin's queue may report some of them late."""
    course = {"product_id": "201", "product_type": "course"}
    for status, amount in (("pending", 0), ("pending", 199), ("processing", 199), ("completed", 199)):
        await shop.track(purchase(payment_status=status, amount=amount, **course))
    await shop.refund("1", "17", 10, 10)
    await shop.status("1", "refunded")
    await shop.track(purchase(payment_status="refunded", amount=199, refunded_total=199, **course))
    assert (await shop.refund("1", "18", 189, 199)).duplicate
    await shop.track(purchase(payment_status="pending", amount=0, **course))
    order = await shop.get()
    assert (balance(order), order.disputed) == (("refunded", 199, 199), False)
    assert booked(order) == [("sale", "", 199), ("partial_refund", "17", -10), ("partial_refund", "", -189)]
    assert [(line.product_id, line.amount) for line in order.lines] == [("201", 199)]


async def test_more_than_was_paid_is_booked_up_to_it_and_disputed(shop: Shop) -> None:
    await shop.track(purchase())
    answers = [await shop.refund("1", reference, 70) for reference in ("1", "2")]
    assert [answer.booked_amount for answer in answers] == [70, 30]
    order = await shop.get()
    assert (balance(order), order.disputed) == (("refunded", 100, 100), True)


async def test_a_refund_of_nothing_is_accepted_and_read_again(shop: Shop) -> None:
    await shop.track(purchase())
    answer = await shop.refund("1", "17", 0)
    assert (answer.success, answer.booked_amount) == (True, 0)
    assert (await shop.refund("1", "17", 12.5)).booked_amount == 12.5
    assert booked(await shop.get()) == [("sale", "", 100), ("partial_refund", "17", -12.5)]


async def test_a_chargeback_after_a_partial_refund_takes_back_only_the_rest(shop: Shop) -> None:
    await shop.track(purchase())
    await shop.refund("1", "17", 30, 30)
    answer = await shop.status("1", "charged_back", reference="dp_1")
    assert (answer.payment_status, answer.duplicate) == ("charged_back", False)
    order = await shop.get()
    assert booked(order)[1:] == [("partial_refund", "17", -30), ("chargeback", "dp_1", -70)]
    assert (await shop.status("1", "charged_back", reference="dp_1")).duplicate
    assert (await shop.published())[-1].payment_status == change_pb2.PAYMENT_STATUS_CHARGED_BACK


async def test_what_was_not_paid_is_no_revenue(shop: Shop) -> None:
    for number, status in enumerate(("pending", "on-hold", "checkout-draft", "failed", "cancelled"), start=1):
        await shop.track(purchase(order_id=str(number), payment_status=status))
    messages = await shop.published()
    assert {(message.paid_amount, message.base_net_amount, len(message.entries)) for message in messages} == {("0.00", "0.00", 0)}
    assert not any(message.HasField("paid_at") for message in messages)
    assert await shop.count(EntryRow) == 0
    assert sorted(await shop.orders(payment_status="failed")) == ["4", "5"]


async def test_another_paid_amount_changes_nothing_and_is_for_a_person_to_look_at(shop: Shop) -> None:
    await shop.track(purchase())
    await shop.track(purchase(amount=120))
    await shop.track(purchase(currency="EUR"))
    order = await shop.get()
    assert (order.amount, order.paid_amount, order.currency, order.disputed) == (100, 100, "USD", True)
    async with shop.sessions() as session:
        reports = (await session.scalars(select(ReportRow).order_by(ReportRow.id))).all()
    assert [(report.amount, report.currency, report.changed) for report in reports[1:]] == [(120, "USD", "disputed"), (100, "EUR", "")]


async def test_two_hundred_of_one_report_at_once_are_one_sale(shop: Shop) -> None:
    answers = await asyncio.gather(*(shop.track(purchase(product_id="a", email="a@example.org")) for _ in range(200)))
    assert len({answer.purchase_id for answer in answers}) == 1
    assert sorted(answer.duplicate for answer in answers) == [False] + [True] * 199
    order = await shop.get()
    assert (balance(order), booked(order), len(order.lines)) == (("completed", 100, 0), [("sale", "", 100)], 1)
    assert await shop.count(ReportRow) == 200
    assert len(await shop.published()) == 1


async def test_fifty_orders_reported_three_times_in_any_order_by_three_sources_are_fifty_sales(shop: Shop) -> None:
    calls: list[Any] = []
    refunds: list[Any] = []
    for number in range(50):
        name, amount = str(number), 10 + number + 0.99
        order = purchase(order_id=name, amount=amount, product_id="a")
        for source in ("plugin", "page", "webhook"):
            status = "pending" if source == "page" and number % 3 == 0 else "processing"
            calls.append(shop.track({**order, "source": source, "id": f"{source}-{name}", "payment_status": status}))
        if number % 2:
            refunds += [shop.refund(name, f"{number}", 5, 5), shop.refund(name, f"re_{number}", 5, 5), shop.refund(name, f"{number}", 5, 5)]
        if number % 5 == 0:
            refunds += [shop.status(name, "refunded"), shop.status(name, "refunded")]
    sending = asyncio.Semaphore(16)

    async def send(call: Any) -> None:
        async with sending:
            await call

    for round_ in (calls, refunds):
        random.Random(3).shuffle(round_)  # noqa: S311
        await asyncio.gather(*(send(call) for call in round_))
    newest = {message.order_id: message for message in await shop.history()}
    assert len(newest) == 50
    assert await shop.count(EntryRow, EntryRow.kind == "sale") == 50
    for number in range(50):
        message, amount = newest[str(number)], Decimal(10 + number) + Decimal("0.99")
        back = amount if number % 5 == 0 else Decimal(5) if number % 2 else Decimal(0)
        assert (Decimal(message.paid_amount), Decimal(message.refunded_amount)) == (amount, back)
        assert sum(Decimal(entry.amount) for entry in message.entries) == amount - back == Decimal(message.base_net_amount)
        assert not (await shop.get(message.purchase_id)).disputed
    last: dict[str, change_pb2.PurchaseChanged] = {message.order_id: message for message in await shop.published()}
    assert last == newest


async def test_two_replicas_with_a_report_at_the_same_instant_make_one_sale(shop: Shop) -> None:
    async with serving(shop.replica()) as channel:
        second: Any = PurchasesServiceStub(channel)
        for number in range(20):
            request = ParseDict({"purchase": purchase(order_id=str(number), product_id="a")}, pb.TrackPurchaseRequest())
            calls: list[Any] = [shop.call(request), second.TrackPurchase(request, metadata=shop.metadata())]
            answers: list[pb.TrackPurchaseResponse] = await asyncio.gather(*calls)
            assert {answer.duplicate for answer in answers} == {False, True}
            assert len({answer.purchase_id for answer in answers}) == 1
    assert (await shop.count(PurchaseRow), await shop.count(EntryRow), await shop.count(LineRow)) == (20, 20, 20)
    assert len(await shop.published()) == 20


async def test_a_report_is_recorded_in_few_statements(shop: Shop) -> None:
    statements: list[str] = []

    @listens_for(shop.database.engine.sync_engine, "before_cursor_execute")
    def note(*arguments: Any) -> None:
        if not str(arguments[2]).startswith("BEGIN"):
            statements.append(arguments[2])

    order = purchase(product_id="a", email="a@example.org")
    for call, most in ((shop.track(order), 10), (shop.track(order), 6), (shop.refund("1", "17", 10), 11), (shop.refund("2", "18", 1), 3)):
        statements.clear()
        await call
        assert len(statements) <= most, statements
    remove(shop.database.engine.sync_engine, "before_cursor_execute", note)


async def test_one_order_reported_in_all_ways_at_once_is_exact(shop: Shop) -> None:
    await shop.track(purchase(payment_status="pending"))
    calls: list[Any] = []
    for _ in range(10):
        calls += [shop.track(purchase()), shop.status("1", "completed"), shop.refund("1", "17", 10, 10), shop.refund("1", "re_1", 10, 10)]
        calls += [shop.refund("1", "18", 20, 30), shop.track(purchase(refunded_total=30))]
    random.Random(7).shuffle(calls)  # noqa: S311
    await asyncio.gather(*calls)
    order = await shop.get()
    assert balance(order) == ("partially_refunded", 100, 30)
    assert sum(entry.amount for entry in order.entries) == 70


async def test_a_shop_is_asked_by_its_own_numbers(shop: Shop) -> None:
    own = await shop.track(purchase())
    inside = await shop.track(purchase(), scope="internal")
    assert (inside.purchase_id, inside.duplicate) == (own.purchase_id, True)
    assert shop.settings.site_name == "shop"


async def test_a_crash_between_commit_and_publishing_loses_and_repeats_nothing(shop: Shop) -> None:
    for number in range(10):
        await shop.track(purchase(order_id=str(number)))
    assert not [entry for p in range(4) for entry in await shop.log.read(TOPIC, p, START, limit=10, block_ms=1)]
    assert sorted(message.order_id for message in await shop.published()) == sorted(str(number) for number in range(10))
    await shop.track(purchase(order_id="1"))
    assert len(await shop.published()) == 10


async def test_an_order_is_priced_at_the_rate_of_its_day_or_of_the_last_before_it(shop: Shop) -> None:
    day = YESTERDAY.date()
    await shop.rates(
        (day - timedelta(days=2), "JPY", "160"), (day - timedelta(days=2), "USD", "1.25"), (day + timedelta(days=1), "JPY", "1")
    )
    await shop.track(purchase(currency="JPY", amount=1280))
    order = await shop.get()
    assert (order.rate, order.base_currency, order.base_net_amount, order.entries[0].base_amount) == (128, "USD", 10, 10)
    await shop.rates((day, "JPY", "1"), (day, "USD", "1"))
    await shop.refund("1", "17", 640)
    order = await shop.get()
    assert (order.rate, order.base_net_amount, order.entries[1].base_amount) == (128, 5, -5)
    await shop.track(purchase(order_id="2"))
    assert ((await shop.get("2")).rate, (await shop.get("2")).base_net_amount) == (1, 100)


async def test_without_a_rate_an_order_is_kept_and_marked(shop: Shop) -> None:
    await shop.rates((YESTERDAY.date() - timedelta(days=8), "EUR", "1"), (YESTERDAY.date() - timedelta(days=8), "USD", "1.1"))
    await shop.track(purchase(currency="EUR"))
    await shop.refund("1", "17", 10)
    order = await shop.get()
    assert (order.HasField("rate"), order.HasField("base_net_amount")) == (False, False)
    assert [entry.HasField("base_amount") for entry in order.entries] == [False, False]
    message = (await shop.published())[-1]
    assert (message.base_net_amount, message.entries[0].base_amount, message.paid_amount) == ("", "", "100.00")
    await shop.rates((YESTERDAY.date(), "USD", "1.5"))
    assert (await shop.refund("1", "17", 10)).duplicate
    order = await shop.get()
    assert (order.base_net_amount, [entry.base_amount for entry in order.entries]) == (135, [150, -15])


async def test_imported_rates_price_the_orders_that_had_none_and_publish_them(shop: Shop, tmp_path: Path) -> None:
    day = YESTERDAY.date()
    for number in range(5):
        await shop.track(purchase(order_id=str(number), currency="EUR", amount=10 + number))
    await shop.refund("1", "17", 1)
    await shop.track(purchase(order_id="gold", currency="ZMW"))
    await shop.track(purchase(order_id="pending", currency="EUR", payment_status="pending"))
    file = tmp_path / "eurofxref-hist.csv"
    file.write_text(f"Date,USD,JPY,ZMW,\n{day + timedelta(days=1)},9,9,N/A,\n{day},1.15,160.5,N/A,\n")
    before = len(await shop.published())
    out = StringIO()
    await import_rates(file, shop.settings.database_url, Console(file=out, width=200))
    assert f"4 rates from {day} to {day + timedelta(days=1)}; 5 orders that had none are priced." in out.getvalue()
    assert "1 paid orders still have no rate" in out.getvalue()
    published = await shop.published()
    messages = {message.order_id: message for message in published}
    assert len(published) == before + 5
    assert {name: message.base_net_amount for name, message in messages.items()} == {
        "gold": "",
        "pending": "0.00",
        "0": "11.50",
        "1": "11.50",
        "2": "13.80",
        "3": "14.95",
        "4": "16.10",
    }
    assert [entry.base_amount for entry in messages["1"].entries] == ["12.65", "-1.15"]
    assert not (await shop.get("gold")).HasField("rate")
    await import_rates(file, shop.settings.database_url, Console(file=out, width=200))
    assert len(await shop.published()) == before + 5
    file.write_text(f"Date,USD,\n{day},2,\n")
    await import_rates(file, shop.settings.database_url, Console(file=out, width=200))
    assert (await shop.get("0")).base_net_amount == 11.5
    await shop.refund("1", "17", 11)
    assert (await shop.get("1")).base_net_amount == 0


async def test_a_malformed_file_of_rates_loads_nothing(shop: Shop, tmp_path: Path) -> None:
    file = tmp_path / "rates.csv"
    file.write_text("Date,USD,JPY,\n2026-11-20,1.15,160.5,\n2026-11-19,1.14,abc,\n")
    with pytest.raises(CommandFailed, match="nothing was loaded: line 3: 'abc' is no rate of JPY"):
        await import_rates(file, shop.settings.database_url, Console(file=StringIO()))
    assert await shop.count(RateRow) == 0


async def test_test_and_staff_orders_are_left_out_unless_asked_for(shop: Shop) -> None:
    await shop.track(purchase(order_id="1", is_test=True))
    await shop.track(purchase(order_id="2", is_staff=True))
    await shop.track(purchase(order_id="3"))
    assert await shop.orders() == ["3"]
    assert sorted(await shop.orders(include_excluded=True)) == ["1", "2", "3"]
    await shop.track(purchase(order_id="4", is_test=True, is_staff=True))
    assert {message.order_id: message.excluded for message in await shop.published()} == {"1": True, "2": True, "3": False, "4": True}
    reasons = {message.order_id: [*message.exclusions] for message in await shop.published()}
    assert reasons == {
        "1": [change_pb2.EXCLUSION_TEST],
        "2": [change_pb2.EXCLUSION_STAFF],
        "3": [],
        "4": [change_pb2.EXCLUSION_TEST, change_pb2.EXCLUSION_STAFF],
    }


async def test_orders_are_listed_newest_first_by_pages_and_choice(shop: Shop) -> None:
    for number in range(25):
        at = NOW - timedelta(hours=number // 3)
        await shop.track(purchase(order_id=str(number), timestamp=at.isoformat(), product_id=f"p{number % 2}", user_id=str(number % 5)))
    every = await shop.orders(page_size=4)
    assert sorted(every, key=int) == [str(number) for number in range(25)]
    assert [int(name) // 3 for name in every] == sorted(number // 3 for number in range(25))
    assert set(await shop.orders(page_size=3, product_id="p1")) == {str(number) for number in range(1, 25, 2)}
    assert set(await shop.orders(user_id="03")) == {"3", "8", "13", "18", "23"}
    since, until = NOW - timedelta(hours=3), NOW - timedelta(hours=1)
    assert set(await shop.orders(**{"from": since.isoformat(), "to": until.isoformat()})) == {str(number) for number in range(6, 12)}
    page = await shop.list(page_size=500)
    assert (len(page.purchases), page.next_page_token) == (25, "")
    assert not page.purchases[0].HasField("billing_address")


async def test_a_persons_orders_join_and_leave_with_changes_of_identity(shop: Shop) -> None:
    await shop.track(purchase(order_id="1", user_id="42"))
    await shop.track(purchase(order_id="2", user_id="", session_id="s1"))
    await shop.track(purchase(order_id="3", user_id="u-ada"))
    assert await shop.orders(user_id="u-ada") == ["3"]
    linked = [IdentityChanged(alias=AliasChanged(subject=identifier, user_id=user, linked_at=Timestamp(seconds=9))) for identifier, user in
              (("wordpress:42", "u-ada"), ("session:s1", "u-eve"))]  # fmt: skip
    await shop.identify(*linked, IdentityChanged(merge=MergeChanged(merged_user_id="u-eve", user_id="u-ada")))
    assert sorted(await shop.orders(user_id="u-ada")) == sorted(await shop.orders(user_id="42")) == ["1", "2", "3"]
    assert {(await shop.get(name)).person_id for name in "123"} == {"u-ada"}
    await shop.identify(IdentityChanged(merge=MergeChanged(merged_user_id="u-eve", user_id="u-ada", undone=True)))
    assert sorted(await shop.orders(user_id="42")) == ["1", "3"]
    assert (await shop.get("2")).person_id == "u-eve"
    assert len(await shop.published()) == 3


OLD = Timestamp(seconds=1)
KEPT = {"site_retention_tables": {"purchases.purchases": timedelta(days=1095)}}

BROKEN: list[tuple[Message, str, str]] = [
    (ParseDict({"purchase": purchase(order_id="")}, pb.TrackPurchaseRequest()), "purchase.order_id", "required"),
    (ParseDict({"purchase": purchase(order_id=" 1")}, pb.TrackPurchaseRequest()), "purchase.order_id", "pattern"),
    (ParseDict({"purchase": purchase(amount=None)}, pb.TrackPurchaseRequest()), "purchase.amount", "required"),
    (pb.RefundPurchaseRequest(id="1", refund=pb.Refund(reference="a")), "refund", "amount is required"),
    (ParseDict({"purchase": purchase(paid_at="2001-01-01T00:00:00Z")}, pb.TrackPurchaseRequest()), "purchase.paid_at", "1095 days"),
    (ParseDict({"purchase": purchase(user_id="")}, pb.TrackPurchaseRequest()), "purchase", "user_id, email or session_id"),
    (ParseDict({"purchase": purchase(amount=-1)}, pb.TrackPurchaseRequest()), "purchase.amount", "greater than or equal"),
    (ParseDict({"purchase": purchase(amount="NaN")}, pb.TrackPurchaseRequest()), "purchase.amount", "finite"),
    (ParseDict({"purchase": purchase(payment_status="shipped")}, pb.TrackPurchaseRequest()), "purchase.payment_status", "none of pending"),
    (
        ParseDict({"purchase": purchase(timestamp=(NOW + timedelta(days=2)).isoformat())}, pb.TrackPurchaseRequest()),
        "purchase.timestamp",
        "24 hours",
    ),
    (ParseDict({"purchase": purchase(paid_at="2001-01-01T00:00:00Z")}, pb.TrackPurchaseRequest()), "purchase.paid_at", "retention"),
    (
        ParseDict({"purchase": purchase(billing_address={"x": "x" * 16_400})}, pb.TrackPurchaseRequest()),
        "purchase.billing_address",
        "16384",
    ),
    (ParseDict({"purchase": purchase(metadata={"a": [[[[[[[[]]]]]]]]})}, pb.TrackPurchaseRequest()), "purchase.metadata", "8 levels"),
    (ParseDict({"purchase": purchase(lines=[{"amount": 1}])}, pb.TrackPurchaseRequest()), "purchase.lines[0].product_id", "required"),
    (pb.TrackPurchaseRequest(), "purchase", "required"),
    (pb.RefundPurchaseRequest(id="1", refund=pb.Refund(amount=1)), "refund.reference", "required"),
    (pb.RefundPurchaseRequest(id="1", refund=pb.Refund(reference="a", amount=-1)), "refund.amount", "greater than or equal"),
    (
        pb.RefundPurchaseRequest(id="1", refund=pb.Refund(reference="a", amount=1, timestamp=OLD)),
        "refund.timestamp",
        "retention",
    ),
    (pb.UpdatePaymentStatusRequest(id="1"), "payment_status", "required"),
    (pb.UpdatePaymentStatusRequest(id="1", payment_status="gone"), "payment_status", "none of pending"),
    (pb.UpdatePaymentStatusRequest(id="1", payment_status="paid", timestamp=Timestamp(seconds=1)), "timestamp", "retention"),
    (pb.GetPurchaseRequest(id=" a b"), "id", "pattern"),
    (pb.ListPurchasesRequest(page_size=501), "page_size", "500"),
    (pb.ListPurchasesRequest(payment_status="gone"), "payment_status", "in"),
    (pb.ListPurchasesRequest(page_token="nonsense"), "page_token", "next_page_token"),
    (pb.ListPurchasesRequest(page_token="OTk5OTk5OTk5OTk5OTk5OTk5OTkgeA"), "page_token", "next_page_token"),
]


@pytest.mark.parametrize("settings", [KEPT], indirect=True)
async def test_a_broken_rule_names_its_field_and_keeps_nothing(shop: Shop) -> None:
    await shop.track(purchase())
    for request, field, words in BROKEN:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await shop.call(request, scope="admin")
        assert raised.value.code() is grpc.StatusCode.INVALID_ARGUMENT, request
        found = violations(raised.value)
        assert field in found, (request, found)
        assert words in found[field]
    assert (await shop.count(PurchaseRow), await shop.count(ReportRow)) == (1, 1)


async def test_an_unknown_purchase_is_not_found(shop: Shop) -> None:
    refund, purchase_id = pb.Refund(reference="17", amount=1), purchase_id_of("shop", "404")
    for request in (
        pb.GetPurchaseRequest(id="404"),
        pb.GetPurchaseRequest(id=purchase_id),
        pb.RefundPurchaseRequest(id=purchase_id, refund=refund),
        pb.UpdatePaymentStatusRequest(id=purchase_id, payment_status="paid"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await shop.call(request)
        assert raised.value.code() is grpc.StatusCode.NOT_FOUND
    assert not (await shop.list(user_id="nobody")).purchases


@pytest.mark.parametrize(
    ("request_", "scopes"),
    [
        (ParseDict({"purchase": purchase()}, pb.TrackPurchaseRequest()), {"site", "admin", "internal"}),
        (pb.RefundPurchaseRequest(id="1", refund=pb.Refund(reference="17", amount=1)), {"site", "admin", "internal"}),
        (pb.UpdatePaymentStatusRequest(id="1", payment_status="paid"), {"site", "admin", "internal"}),
        (pb.GetPurchaseRequest(id="1"), {"site", "admin", "internal"}),
        (pb.ListPurchasesRequest(), {"read", "admin", "internal"}),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Message) else "",
)
async def test_a_scope_opens_what_it_is_for(shop: Shop, request_: Message, scopes: set[str]) -> None:
    await shop.track(purchase())
    opened: set[str] = set()
    for scope in ("track", "site", "read", "admin", "internal"):
        try:
            await shop.call(request_, scope=scope)
            opened.add(scope)
        except grpc.aio.AioRpcError as error:
            assert error.code() is grpc.StatusCode.PERMISSION_DENIED  # noqa: PT017
    assert opened == scopes


async def test_the_history_is_for_the_mesh_alone(shop: Shop) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in shop.stub.ListPurchaseChanges(pb.ListPurchaseChangesRequest(), metadata=shop.metadata("admin")):
            pass
    assert raised.value.code() is grpc.StatusCode.PERMISSION_DENIED


LISTINGS: list[tuple[Filter, str]] = [
    (Filter(), "idx_timestamp"),
    (Filter(since=NOW - timedelta(hours=9), until=NOW), "idx_timestamp"),
    (Filter(identifiers=["wordpress:7"]), "idx_subject"),
    (Filter(status="failed"), "idx_payment_status"),
    (Filter(product_id="p7"), "idx_product_id"),
]


@pytest.mark.parametrize("database_url", ["mariadb"], indirect=True)
async def test_listings_use_indexes(shop: Shop) -> None:
    line = {"number": 1, "product_name": "", "product_type": "other", "quantity": 1, "amount": Decimal(1)}
    async with shop.sessions.begin() as session:
        for number in range(3000):
            row = new_row("shop", str(number), "USD", NOW)
            row.timestamp = row.created_at = row.updated_at = NOW - timedelta(minutes=number)
            row.subject, row.payment_status = f"wordpress:{number // 3}", "completed" if number % 50 else "failed"
            row.amount, row.currency, row.disputed = Decimal(1), "USD", False
            session.add_all([PurchaseRow(**asdict(row)), LineRow(purchase_id=row.id, product_id=f"p{number % 300}", **line)])
    async with shop.sessions.begin() as session:
        await session.execute(text("ANALYZE TABLE purchases, purchase_lines"))
        connection = await session.connection()
        for chosen, index in LISTINGS:
            for after in (None, PageKey(NOW - timedelta(minutes=30), "x")):
                query = list_query(chosen, after, 51).compile(dialect=connection.dialect, compile_kwargs={"render_postcompile": True})
                values = tuple(query.params[name] for name in query.positiontup or ())
                plan = [dict(row) for row in (await connection.exec_driver_sql(f"EXPLAIN {query}", values)).mappings()]
                assert index in {step["key"] for step in plan}, (chosen, plan)
                assert not [step for step in plan if step["type"] == "ALL" and step["table"] in ("purchases", "purchase_lines")], plan


DAY = timedelta(days=1)


def reported(day: int, **fields: Any) -> dict[str, Any]:
    """An order as the shop's plugin reports it: placed on day 0, read on a day."""
    placed = NOW - 40 * DAY
    paid = {"paid_at": (placed + DAY).isoformat()} if fields.pop("paid", True) else {}
    at = {"timestamp": placed.isoformat(), "reported_at": (placed + day * DAY).isoformat()}
    return purchase(source="plugin", payment_status="processing", refunded_total=0) | at | paid | fields


def since(order: pb.RecordedPurchase) -> list[tuple[str, float, str, int]]:
    """The ledger, with days since the order was placed."""
    placed = order.timestamp.ToDatetime(UTC)
    return [(entry.kind, entry.amount, entry.reason, (entry.timestamp.ToDatetime(UTC) - placed).days) for entry in order.entries]


async def test_cash_on_delivery_that_nobody_paid_is_no_revenue(shop: Shop) -> None:
    order = purchase(order_id="b03", amount=75, payment_method="cod", payment_status="processing")
    first = await shop.track(order)
    cancelled = await shop.track({**order, "payment_status": "cancelled"})
    assert (first.duplicate, cancelled.duplicate) == (False, False)
    assert (balance(await shop.get("b03")), booked(await shop.get("b03"))) == (("failed", 0, 0), [])
    await shop.track({**order, "order_id": "b04"})
    assert (await shop.status("b04", "processing")).payment_status == "pending"
    await shop.track({**order, "order_id": "b04", "payment_status": "completed"})
    assert booked(await shop.get("b04")) == [("sale", "", 75)]


async def test_what_the_shop_takes_back_of_a_paid_order_is_a_dated_correction(shop: Shop) -> None:
    cases = {
        "bounced": [reported(9, payment_status="failed", reason="bounced")],
        "cancelled": [reported(9, payment_status="cancelled")],
        "trashed": [reported(9, payment_status="cancelled", reason="trashed")],
        "deleted": [reported(9, payment_status="cancelled", reason="deleted")],
        "restored": [reported(9, payment_status="cancelled", reason="trashed"), reported(12)],
        "edited": [reported(9, amount=41.1)],
    }
    for reason, later in cases.items():
        for reports in ([reported(2), *later], [*later, reported(2)], [*reversed(later), reported(2), *later]):
            order_id = f"{reason}-{later.index(later[0])}-{reports[0]['reported_at'][:10]}-{len(reports)}"
            for each in reports:
                await shop.track({**each, "order_id": order_id})
            order, [message] = await shop.get(order_id), [each for each in await shop.history() if each.order_id == order_id]
            assert not order.disputed
            assert reason in {entry.reason for entry in order.entries}
            days: dict[int, float] = {}
            for _, amount, _, day in since(order):
                days[day] = round(days.get(day, 0) + amount, 2)
            due = {"edited": {1: 100, 9: -58.9}, "restored": {1: 100, 9: -100, 12: 100}}.get(reason, {1: 100, 9: -100})
            assert {day: amount for day, amount in days.items() if amount} == due, (reason, since(order))
            assert order.sold_at.ToDatetime(UTC) == NOW - 39 * DAY
            assert message.HasField("paid_at") == (reason in {"edited", "restored"})
            assert Decimal(message.base_net_amount) == Decimal(str(sum(due.values()))).quantize(Decimal("0.01"))


async def test_a_refund_that_the_shop_deleted_makes_room_for_the_right_one(shop: Shop) -> None:
    await shop.track(purchase())
    assert (await shop.refund("1", "501", 40, 40)).booked_amount == 40
    assert not (await shop.refund("1", "501", 0, 0, deleted=True)).duplicate
    assert (await shop.refund("1", "502", 10, 10)).booked_amount == 10
    order = await shop.get()
    assert (balance(order), order.disputed) == (("partially_refunded", 100, 10), False)
    assert sum(entry.amount for entry in order.entries) == 90
    assert (await shop.refund("1", "501", 40, 40)).duplicate
    assert balance(await shop.get()) == ("partially_refunded", 100, 10)


async def test_a_shop_and_a_payment_provider_that_contradict_each_other_are_for_a_person_to_look_at(shop: Shop) -> None:
    await shop.track(reported(1, payment_status="pending", paid=False))
    await shop.status("1", "succeeded", source="webhook", timestamp=(NOW - 38 * DAY).isoformat())
    assert balance(await shop.get()) == ("completed", 100, 0)
    await shop.track(reported(5, payment_status="cancelled", paid=False))
    order = await shop.get()
    assert (balance(order), order.disputed) == (("failed", 0, 0), True)


async def test_an_order_whose_buyer_is_anonymised_is_published_without_one(shop: Shop) -> None:
    await shop.track(reported(2))
    await shop.track(reported(9, user_id="", payment_status="refunded", refunded_total=100))
    await shop.track(reported(9, user_id="", order_id="2"))
    assert balance(await shop.get()) == ("refunded", 100, 100)
    assert {message.order_id: message.subject.partition(":")[0] for message in await shop.published()} == {
        "1": "wordpress",
        "2": "purchase",
    }


async def test_lines_and_flags_are_those_of_the_newest_report(shop: Shop) -> None:
    lines = [{"product_id": "a", "amount": 120}, {"product_id": "gift-card", "amount": -20}]
    many = [{"product_id": str(number), "amount": 0.4} for number in range(250)]
    await shop.track(reported(5, lines=many, is_test=True))
    await shop.track(reported(2, lines=lines))
    assert (len((await shop.get()).lines), (await shop.get()).is_test) == (250, True)
    await shop.track(reported(6, lines=lines))
    assert (await shop.get()).is_test, "the report does not state it"
    await shop.track(reported(7, lines=lines, is_test=False))
    order = await shop.get()
    assert ([(line.product_id, line.amount) for line in order.lines], order.is_test) == ([("a", 120), ("gift-card", -20)], False)
    assert await shop.count(LineRow) == 2


@pytest.mark.parametrize(
    ("currency", "reported", "kept"),
    [
        *((code, 10.5, "10.50") for code in ("BGN", "HRK", "VEF", "ZMK", "GGP", "JEP", "IMP", "PRB", "IRT")),
        ("BYR", 10.5, "11"),
        ("BTC", 0.00012345, "0.00012345"),
    ],
)
async def test_a_sale_is_kept_in_any_currency_of_today_or_once(shop: Shop, currency: str, reported: float, kept: str) -> None:
    await shop.track(purchase(currency=currency, amount=reported))
    [message] = await shop.published()
    assert (message.amount, message.paid_amount, message.entries[0].amount, message.base_net_amount) == (kept, kept, kept, "")
    assert (await shop.get()).amount == float(kept)


async def test_an_order_is_named_as_the_shop_numbers_it(shop: Shop) -> None:
    for order_id, quoted in (("2017/06/05-123", "2017%2F06%2F05-123"), ("#1016", "%231016"), ("Bestellung-ß", "Bestellung-ß")):
        await shop.track(purchase(order_id=order_id))
        assert (await shop.refund(quoted, "17", 5, 5)).booked_amount == 5
        assert (await shop.get(order_id)).order_id == order_id
        assert not (await shop.status(quoted, "refunded")).waiting


async def test_sales_have_no_retention_of_events(shop: Shop) -> None:
    await shop.track(purchase(timestamp=(NOW - 4000 * DAY).isoformat(), paid_at=(NOW - 7 * DAY).isoformat()))
    await shop.refund("1", "17", 10, timestamp=(NOW - 3000 * DAY).isoformat())
    assert balance(await shop.get()) == ("partially_refunded", 100, 10)


@pytest.mark.parametrize("settings", [KEPT], indirect=True)
async def test_a_shop_may_bound_how_long_sales_are_kept(shop: Shop, settings: Settings) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await shop.track(purchase(timestamp=(NOW - 1200 * DAY).isoformat()))
    assert violations(raised.value) == {
        "purchase.timestamp": "purchase.timestamp is older than the site's retention "
        "(PMP_SITE_RETENTION_TABLES, purchases.purchases: 1095 days)"
    }
    await shop.track(purchase(timestamp=(NOW - 1094 * DAY).isoformat()))
    await shop.track(purchase(order_id="2", product_id="a"))
    retention = Retention(settings, TOPIC, shop.sessions, expiries(personal_tables(shop.hasher, "keep")), shop.topic)
    assert await retention.look(NOW) == {"purchases": 0}
    assert await retention.look(NOW + 2 * DAY) == {"purchases": 1}
    assert (await shop.count(PurchaseRow), await shop.count(EntryRow), await shop.count(ReportRow), await shop.count(LineRow)) == (
        1,
        1,
        1,
        1,
    )
    assert [message.order_id for message in await shop.history()] == ["2"]


async def test_a_refund_reported_before_its_order_is_held_for_it(shop: Shop) -> None:
    refund, status = await shop.refund("1", "17", 30, 30), await shop.status("1", "completed", timestamp=YESTERDAY.isoformat())
    assert (refund.waiting, refund.booked_amount, status.waiting, status.payment_status) == (True, 0, True, "")
    with pytest.raises(grpc.aio.AioRpcError, match="2 refunds or statuses wait for it"):
        await shop.get()
    assert (await shop.orders(include_excluded=True), await shop.published()) == ([], [])
    await shop.track(purchase(payment_status="pending", currency="JPY", amount=100.4))
    order = await shop.get()
    assert (balance(order), booked(order)) == (("partially_refunded", 100, 30), [("sale", "", 100), ("partial_refund", "", -30)])
    assert (await shop.refund("1", "17", 30, 30)).duplicate
    assert [message.subject for message in await shop.history()] == ["wordpress:42"]


async def test_held_reports_are_bounded(shop: Shop) -> None:
    for number in range(MAX_HELD_REPORTS):
        assert (await shop.refund("1", f"r{number}", 1)).waiting
    with pytest.raises(grpc.aio.AioRpcError, match="100 notices wait for it"):
        await shop.refund("1", "another", 1)
    await shop.track(purchase(order_id="2"))
    expiry = HeldReportExpiry(shop.sessions)
    assert await expiry.expire(datetime.now(UTC)) == 0
    assert await expiry.expire(datetime.now(UTC) + HOLD_PERIOD) == 1
    assert (await shop.count(PurchaseRow), await shop.count(ReportRow)) == (1, 1)


@pytest.mark.parametrize("settings", [{"site_timezone": ZoneInfo("Pacific/Auckland")}], indirect=True)
async def test_the_rate_of_an_order_is_that_of_the_shops_day(shop: Shop, tmp_path: Path) -> None:
    placed = datetime(2026, 11, 9, 22, tzinfo=UTC)
    await shop.rates(*((date(2026, 11, day), code, units) for day, code, units in ((9, "USD", "1"), (10, "USD", "2"))))
    await shop.track(purchase(currency="EUR", timestamp=placed.isoformat()))
    assert (await shop.get()).base_net_amount == 200
    await shop.track(purchase(order_id="2", currency="KWD", timestamp=placed.isoformat()))
    file, out = tmp_path / "rates.csv", StringIO()
    file.write_text("date,currency,rate\n2026-11-11,KWD,0.5\n")
    await import_rates(file, shop.settings.database_url, Console(file=out, width=200))
    assert "order 2 of 2026-11-10 in KWD" in out.getvalue()
    file.write_text("date,currency,rate\n2026-11-10,KWD,0.25\n")
    await import_rates(file, shop.settings.database_url, Console(file=out, width=200))
    assert (await shop.get("2")).base_net_amount == 800


async def test_orders_are_found_by_the_date_of_their_sale_and_of_their_corrections(shop: Shop) -> None:
    await shop.track(reported(2))
    await shop.track(reported(9, order_id="2", amount=60))
    await shop.track(reported(9, payment_status="cancelled"))
    await shop.track(reported(9, order_id="3", payment_status="pending", paid=False))

    async def found(date: str, first: int, last: int) -> list[str]:
        period = {"from": (NOW - 40 * DAY + first * DAY).isoformat(), "to": (NOW - 40 * DAY + last * DAY).isoformat()}
        return sorted(await shop.orders(**period, date=date))

    assert await found("order", 0, 1) == ["1", "2", "3"]
    assert (await found("sale", 0, 1), await found("sale", 1, 2)) == ([], ["1", "2"])
    assert (await found("entry", 1, 2), await found("entry", 9, 10)) == (["1", "2"], ["1"])


DAYS_AGO = [(NOW - days * DAY).isoformat() for days in range(60)]
"""Times: so many days ago."""


async def test_an_imported_sale_is_history_and_a_refund_of_today_is_not(shop: Shop) -> None:
    await shop.track(purchase(timestamp=DAYS_AGO[40], source="plugin", reported_at=DAYS_AGO[40], historical=True))
    assert marks(await shop.get()) == (True, [True])
    await shop.refund("1", "r1", 10, 10, timestamp=DAYS_AGO[0], source="plugin", reported_at=DAYS_AGO[0])
    assert marks(await shop.get()) == (True, [True, False])
    *_, message = await shop.published()
    assert (message.historical, [entry.historical for entry in message.entries]) == (True, [True, False])
    assert await shop.history() == [message]


@pytest.mark.parametrize("is_live_first", [True, False])
async def test_a_sale_of_today_is_live_whichever_of_an_import_and_the_shop_is_faster(shop: Shop, *, is_live_first: bool) -> None:
    reports = [{}, {"historical": True}]
    for report in reports if is_live_first else reversed(reports):
        await shop.track(purchase(timestamp=DAYS_AGO[1], source="plugin", reported_at=DAYS_AGO[1], **report))
    assert marks(await shop.get()) == (False, [False])
    assert (await shop.published())[-1].historical is False


async def test_an_old_sale_stays_history_when_the_shop_reports_its_order_again(shop: Shop) -> None:
    await shop.track(purchase(timestamp=DAYS_AGO[4], source="plugin", reported_at=DAYS_AGO[4], historical=True))
    await shop.track(purchase(timestamp=DAYS_AGO[4], source="plugin", reported_at=DAYS_AGO[0], payment_method="stripe"))
    assert marks(await shop.get()) == (True, [True])


async def test_an_imported_order_that_is_paid_today_is_a_sale_of_today(shop: Shop) -> None:
    order = purchase(timestamp=DAYS_AGO[9], source="plugin")
    await shop.track({**order, "payment_status": "pending", "reported_at": DAYS_AGO[9], "historical": True})
    assert marks(await shop.get()) == (True, [])
    await shop.track({**order, "payment_status": "completed", "paid_at": DAYS_AGO[0], "reported_at": DAYS_AGO[0]})
    assert marks(await shop.get()) == (False, [False])


async def test_a_backfilled_refund_of_a_live_order_is_history_by_itself(shop: Shop) -> None:
    await shop.track(purchase(timestamp=DAYS_AGO[9]))
    await shop.refund("1", "r1", 10, 10, timestamp=DAYS_AGO[8], historical=True)
    assert marks(await shop.get()) == (False, [False, True])


def marks(order: pb.RecordedPurchase) -> tuple[bool, list[bool]]:
    """What is history of an order: itself, and each of its entries."""
    return order.historical, [entry.historical for entry in order.entries]
