"""Webhooks through real channels to the services that they concern, on each kind of database."""

from __future__ import annotations

import asyncio
import hmac
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from itertools import permutations
from math import factorial
from typing import Any

import grpc
import httpx
import pytest
from google.api.httpbody_pb2 import HttpBody
from google.protobuf.json_format import ParseDict
from pmp.destinations.v1 import webhooks_pb2 as pb
from pmp.destinations.v1.webhooks_pb2_grpc import WebhooksServiceStub
from pmp.gdpr.v1 import gdpr_pb2
from pmp.gdpr.v1.gdpr_pb2_grpc import GdprServiceStub
from pmp.identity.v1 import identity_pb2
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub
from pmp.purchases.v1 import purchases_pb2
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub
from pydantic import SecretStr
from sqlalchemy import delete, select, text

from kit.log.redis.opening import open_log
from kit.migrate import migrate
from kit.people.subjects.data import SubjectData
from kit.people.subjects.retention import Retention, expiries
from kit.registry import Part
from kit.server import Server
from kit.service.resources import Resources, open_resources
from kit.settings import KEYS_DATABASE, Settings
from services.destinations.composition import compose
from services.destinations.received.calls import Calls
from services.destinations.received.certificates import Certificates
from services.destinations.received.models import PaymentRow, WebhookRow
from services.destinations.received.personal import KEPT, RECEIVED
from services.destinations.received.sender import webhook_senders
from services.destinations.received.senders.paypal import PayPal
from services.destinations.received.store import PAYMENTS, Outcome, State, Webhooks
from services.destinations.received.worker import Worker
from services.destinations.settings import DestinationsSettings
from tests.databases import newest_database
from tests.gateway_probe.processes import running_gateway
from tests.paypal import PayPalDouble, running_paypal
from tests.received_webhooks import (
    BREVO_SECRET,
    KLAVIYO_SECRET,
    MAILCHIMP_SECRET,
    STRIPE_SECRET,
    WOOCOMMERCE_SECRET,
    Call,
    brevo,
    capture,
    charge,
    dispute,
    klaviyo,
    klaviyo_event,
    mailchimp,
    payment,
    paypal_dispute,
    paypal_event,
    refund,
    stripe_event,
    stripe_signature,
    woocommerce,
    woocommerce_order,
)
from tests.roles import ROLES, settings_for
from tests.servers import PrivateMariaDb, PrivateRedis, free_port

NOW = datetime.now(UTC).replace(microsecond=0)
START = NOW - timedelta(days=2)
PAID_AT = START + timedelta(minutes=1)
REFUNDED_AT = START + timedelta(hours=1)
LATER = timedelta(hours=7)
"""After every delay between two attempts."""
OTHERS = ("purchases", "identity", "gdpr")
"""The services that webhooks concern."""
Report = Callable[[], Awaitable[Any]]


@pytest.fixture(scope="module")
def paypal(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with running_paypal(tmp_path_factory.mktemp("paypal")) as double:
        yield double


class Shop:
    """The services that webhooks concern, on one port."""

    def __init__(self, settings: DestinationsSettings, resources: Resources, channel: grpc.aio.Channel, paypal: PayPalDouble) -> None:
        self.settings = settings
        self.paypal = paypal
        self.keys = resources.keys
        self.database = resources.database("destinations")
        self.webhooks: Any = WebhooksServiceStub(channel)
        self.purchases: Any = PurchasesServiceStub(channel)
        self.identity: Any = IdentityServiceStub(channel)
        self.gdpr: Any = GdprServiceStub(channel)
        self.worker = Worker(self.database.sessions, Calls(settings), resources.keys, settings.webhooks_wait)

    async def receive(self, call: Call) -> pb.ReceiveWebhookResponse:
        request = pb.ReceiveWebhookRequest(sender=call.sender, body=HttpBody(data=call.body))
        metadata = (*self.settings.mesh_metadata, ("x-pmp-client", "signed"), ("x-pmp-scope", "signed"), *call.headers.items())
        return await self.webhooks.ReceiveWebhook(request, metadata=metadata)

    async def receive_and_apply(self, call: Call) -> None:
        await self.receive(call)
        await self.apply()

    async def refusal(self, call: Call) -> tuple[grpc.StatusCode, str]:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await self.receive(call)
        return raised.value.code(), raised.value.details() or ""

    def from_paypal(self, body: bytes) -> Call:
        return Call("paypal", body, self.paypal.sign(body, datetime.now(UTC)))

    async def track(self, **fields: Any) -> None:
        purchase = {"timestamp": START.isoformat(), "user_id": "42", "amount": 100, "currency": "USD", "source": "plugin", **fields}
        await self.inside(self.purchases.TrackPurchase, ParseDict({"purchase": purchase}, purchases_pb2.TrackPurchaseRequest()))

    async def inside(self, method: Any, request: Any) -> Any:
        return await method(request, metadata=self.settings.mesh_metadata)

    async def order(self, order_id: str) -> purchases_pb2.RecordedPurchase:
        return (await self.inside(self.purchases.GetPurchase, purchases_pb2.GetPurchaseRequest(id=order_id))).purchase

    async def apply(self, after: timedelta = timedelta(0)) -> None:
        while await self.worker.work(datetime.now(UTC) + after):
            pass

    async def rows(self) -> list[WebhookRow]:
        async with self.database.sessions.reading() as session:
            return list(await session.scalars(select(WebhookRow).order_by(WebhookRow.id)))

    async def states(self) -> list[str]:
        return [row.state for row in await self.rows()]


@pytest.fixture(scope="module", params=["sqlite", "mariadb"])
async def running(
    request: pytest.FixtureRequest, paypal: PayPalDouble, redis_server: PrivateRedis, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Shop]:
    """One for the module: its tests are about different orders and persons."""
    url = f"sqlite+aiosqlite:///{tmp_path_factory.mktemp('webhooks')}/{{service}}.db"
    if request.param == "mariadb":
        mariadb: PrivateMariaDb = request.getfixturevalue("mariadb_server")
        url = mariadb.url.replace("{service}", "{service}_webhooks")
    address = f"127.0.0.1:{free_port()}"
    shared = Settings(
        listen=address,
        service_address=address,
        mesh_token=SecretStr("the mesh's own"),
        vault_key=SecretStr("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="),
        key_encryption_keys=SecretStr("AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="),
        database_url=url,
        redis_url=redis_server.url,
        site_hosts=frozenset({"shop.example"}),
    )
    own = settings_for(
        ROLES["destinations"],
        shared,
        webhooks_stripe_secrets=[STRIPE_SECRET],
        webhooks_woocommerce_secrets=[WOOCOMMERCE_SECRET],
        webhooks_mailchimp_secrets=[MAILCHIMP_SECRET],
        webhooks_klaviyo_secrets=[KLAVIYO_SECRET],
        webhooks_brevo_secrets=[BREVO_SECRET],
        webhooks_paypal_ids=[paypal.webhook_id],
    )
    known = {**webhook_senders(own), "paypal": PayPal(own, Certificates({paypal.host}, paypal.roots))}
    async with AsyncExitStack() as stack:
        log = await stack.enter_async_context(open_log(redis_server.url))
        await log.redis.flushall()
        await migrate(KEYS_DATABASE, shared.keys_database_url)
        for service in (*OTHERS, "destinations"):
            await stack.enter_async_context(newest_database(shared, service))
        resources = await stack.enter_async_context(open_resources(shared))
        runtimes = [ROLES[name].compose(settings_for(ROLES[name], shared), resources) for name in OTHERS]
        runtimes.append(compose(own, resources, webhooks_of=known))
        for runtime in runtimes:
            await runtime.prepare()
        server = Server(shared, [Part(runtime.service, runtime.rpcs) for runtime in runtimes])
        server.listen(address)
        await server.start()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(address))
        yield Shop(own, resources, channel, paypal)
        await server.drain(0, 0)


@pytest.fixture
async def shop(running: Shop) -> AsyncIterator[Shop]:
    """Without webhooks."""
    yield running
    async with running.database.sessions.begin() as session:
        await session.execute(delete(WebhookRow))
        await session.execute(delete(PaymentRow))


def by_plugin(shop: Shop, number: str, *, refunded: bool) -> list[Report]:
    pending = {"order_id": number, "payment_status": "pending", "reported_at": (START + timedelta(seconds=1)).isoformat()}
    paid = {
        **pending,
        "payment_status": "processing",
        "paid_at": PAID_AT.isoformat(),
        "reported_at": (PAID_AT + timedelta(seconds=1)).isoformat(),
    }
    refund = {"reference": f"5{number}", "amount": 30.01, "refunded_total": 30.01, "timestamp": REFUNDED_AT.isoformat(), "source": "plugin"}
    request = ParseDict(
        {"id": number, "refund": {**refund, "reported_at": (REFUNDED_AT + timedelta(seconds=1)).isoformat()}},
        purchases_pb2.RefundPurchaseRequest(),
    )
    reports: list[Report] = [lambda: shop.track(**pending), lambda: shop.track(**paid)]
    return [*reports, lambda: shop.inside(shop.purchases.RefundPurchase, request)] if refunded else reports


def by_stripe(shop: Shop, number: str, *, refunded: bool) -> list[Report]:
    calls = [stripe_event("payment_intent.succeeded", payment(number), PAID_AT)]
    session = {"id": f"cs_{number}", "payment_intent": f"pi_{number}", "payment_status": "paid", "client_reference_id": number}
    calls.append(stripe_event("checkout.session.completed", session, PAID_AT))
    if refunded:
        calls.append(stripe_event("charge.refunded", charge(number, 3001), REFUNDED_AT))
    return [lambda call=call: shop.receive_and_apply(call) for call in calls]


def by_woocommerce(shop: Shop, number: str, *, refunded: bool) -> list[Report]:
    stamp = PAID_AT.strftime("%Y-%m-%dT%H:%M:%S")
    calls = [
        woocommerce("order.created", woocommerce_order(int(number), START, START, status="pending")),
        woocommerce("order.updated", woocommerce_order(int(number), START, PAID_AT, date_paid_gmt=stamp)),
    ]
    if refunded:
        refunds = [{"id": int(f"5{number}"), "reason": "", "total": "-30.01"}]
        calls.append(woocommerce("order.updated", woocommerce_order(int(number), START, REFUNDED_AT, date_paid_gmt=stamp, refunds=refunds)))
    return [lambda call=call: shop.receive_and_apply(call) for call in calls]


def by_import(shop: Shop, number: str, *, refunded: bool) -> list[Report]:
    order = {
        "order_id": number,
        "timestamp": START.isoformat(),
        "user_id": "42",
        "amount": 100,
        "currency": "USD",
        "payment_status": "processing",
        "paid_at": PAID_AT.isoformat(),
        "refunded_total": 30.01 if refunded else 0,
        "reported_at": (START + timedelta(hours=2)).isoformat(),
        "source": "import",
        "historical": True,
    }
    request = ParseDict({"purchases": [order]}, purchases_pb2.TrackPurchasesRequest())
    return [lambda: shop.inside(shop.purchases.TrackPurchases, request)]


SOURCES = (by_plugin, by_stripe, by_woocommerce, by_import)
IN_TURN = factorial(len(SOURCES))
MIXED = 8
"""Orders whose reports arrive in any order, some of them twice."""


async def report(reports: Sequence[Report], turns: asyncio.Semaphore | None = None) -> None:
    async with turns or asyncio.Semaphore():
        for each in reports:
            await each()


@pytest.mark.parametrize("refunded", [False, True], ids=["paid", "refunded in part"])
async def test_an_order_of_four_sources_is_one_sale_in_every_order_of_arrival(shop: Shop, refunded: bool) -> None:
    first = 3000 if refunded else 2000
    chance, every = random.Random(7), dict[str, list[Report]]()  # noqa: S311 (no secret)
    for number, some in enumerate([*permutations(SOURCES), *[SOURCES] * MIXED], first):
        reports = [each for source in some for each in source(shop, str(number), refunded=refunded)]
        if number >= first + IN_TURN:
            reports += chance.choices(reports, k=3)
            chance.shuffle(reports)
        every[str(number)] = reports
    turns = asyncio.Semaphore(4)
    await asyncio.gather(*(report(reports, turns) for reports in every.values()))
    for attempt in range(1, 4):  # a call may take too long on a busy machine
        await shop.apply(LATER * attempt)
    assert set(await shop.states()) == {State.DONE}
    listed = await shop.inside(shop.purchases.ListPurchases, purchases_pb2.ListPurchasesRequest(page_size=500))
    assert sorted(order.order_id for order in listed.purchases if order.order_id in every) == list(every)
    returned = 30.01 if refunded else 0
    for number in every:
        order = await shop.order(number)
        assert (order.paid_amount, order.refunded_amount, order.currency, order.disputed) == (100, returned, "USD", False), number
        assert order.payment_status == ("partially_refunded" if refunded else "completed")
        assert [entry.kind for entry in order.entries].count("sale") == 1
        assert round(sum(entry.amount for entry in order.entries), 9) == round(100 - returned, 9), number
        assert order.sold_at.ToDatetime(UTC) == PAID_AT


async def test_a_buyer_who_never_returns_is_counted(shop: Shop) -> None:
    await shop.track(order_id="1", payment_status="pending", reported_at=START.isoformat())
    await shop.receive(stripe_event("payment_intent.succeeded", payment("1"), PAID_AT))
    await shop.track(order_id="2", payment_status="pending", reported_at=START.isoformat())
    await shop.receive(shop.from_paypal(paypal_event("PAYMENT.CAPTURE.COMPLETED", capture("2", PAID_AT), PAID_AT)))
    await shop.apply()
    for number in ("1", "2"):
        order = await shop.order(number)
        assert (order.payment_status, order.paid_amount, order.sold_at.ToDatetime(UTC)) == ("completed", 100, PAID_AT)


async def test_what_is_stated_of_an_unknown_order_waits_for_it(shop: Shop) -> None:
    await shop.receive(stripe_event("charge.refunded", charge("7", 3000), REFUNDED_AT))
    await shop.receive(stripe_event("payment_intent.succeeded", payment("7"), PAID_AT))
    await shop.apply()
    assert await shop.states() == [State.WAITING, State.WAITING]
    with pytest.raises(grpc.aio.AioRpcError):
        await shop.order("7")
    await shop.track(order_id="7", payment_status="pending", reported_at=START.isoformat())
    order = await shop.order("7")
    assert (order.payment_status, order.paid_amount, order.refunded_amount) == ("partially_refunded", 100, 30)
    await shop.apply(LATER)
    assert await shop.states() == [State.DONE, State.DONE]
    assert {row.request for row in await shop.rows()} == {None}


async def test_a_chargeback_finds_its_order_by_the_payment(shop: Shop) -> None:
    await shop.track(order_id="8", payment_status="processing", paid_at=PAID_AT.isoformat(), reported_at=PAID_AT.isoformat())
    lost_at, won_at = START + timedelta(hours=3), START + timedelta(hours=9)
    await shop.receive(stripe_event("charge.dispute.created", dispute("8", "warning_needs_response", lost_at), lost_at))
    await shop.receive(stripe_event("charge.dispute.funds_withdrawn", dispute("8", "needs_response", lost_at), lost_at))
    await shop.apply()
    assert await shop.states() == [State.WAITING], "an inquiry withdraws nothing, and no webhook has named the order"
    await shop.receive(stripe_event("charge.dispute.funds_withdrawn", dispute("88", "needs_response", lost_at), lost_at))
    await shop.apply()
    await shop.receive(stripe_event("payment_intent.succeeded", payment("8"), PAID_AT))
    assert await shop.worker.work(datetime.now(UTC)) == 2, "what waits for another payment goes on waiting"
    assert ((await shop.order("8")).payment_status, (await shop.order("8")).refunded_amount) == ("charged_back", 100)
    await shop.receive(stripe_event("charge.dispute.closed", dispute("8", "won", lost_at), won_at))
    await shop.receive(stripe_event("charge.dispute.funds_reinstated", dispute("8", "won", lost_at), won_at))
    await shop.apply()
    order = await shop.order("8")
    assert (order.payment_status, order.paid_amount, order.refunded_amount, order.disputed) == ("completed", 100, 0, False)
    assert [(entry.kind, entry.amount, entry.reason) for entry in order.entries][1:] == [
        ("chargeback", -100, ""),
        ("correction", 100, "reinstated"),
    ]


async def test_a_payment_that_is_named_while_its_webhook_is_being_worked_on_is_found_at_once(shop: Shop) -> None:
    at = START + timedelta(hours=3)
    await shop.receive(stripe_event("charge.dispute.funds_withdrawn", dispute("9", "needs_response", at), at))
    await shop.apply()
    async with shop.database.sessions.begin() as session:
        [row] = await Webhooks(session).claim(datetime.now(UTC) + LATER)
    leased_until = (await shop.rows())[0].next_attempt_at
    await shop.receive(stripe_event("payment_intent.succeeded", payment("9"), PAID_AT))
    assert (await shop.rows())[0].next_attempt_at == leased_until, "nobody else works on it"
    async with shop.database.sessions.begin() as session:
        await Webhooks(session).finish(row, Outcome(State.WAITING, "no webhook has named it"), NOW + LATER, NOW)
    assert (await shop.rows())[0].next_attempt_at == NOW


async def test_what_paypal_refunds_and_reverses_is_booked(shop: Shop) -> None:
    await shop.track(order_id="9", payment_status="processing", paid_at=PAID_AT.isoformat(), reported_at=PAID_AT.isoformat())
    await shop.receive(shop.from_paypal(paypal_event("PAYMENT.CAPTURE.COMPLETED", capture("9", PAID_AT), PAID_AT)))
    link = [{"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/CAP9", "method": "GET"}]

    def part(number: int, value: str, total: str) -> dict[str, Any]:
        return {
            "id": f"REF{number}",
            "amount": {"currency_code": "USD", "value": value},
            "seller_payable_breakdown": {"total_refunded_amount": {"currency_code": "USD", "value": total}},
            "create_time": (REFUNDED_AT + timedelta(hours=number)).isoformat(),
            "links": link,
        }

    for number, value, total in ((2, "12.50", "22.50"), (1, "10.00", "10.00")):
        await shop.receive(shop.from_paypal(paypal_event("PAYMENT.CAPTURE.REFUNDED", part(number, value, total), REFUNDED_AT)))
    await shop.apply()
    assert (await shop.order("9")).refunded_amount == 22.5
    reversal = {"id": "REV1", "amount": {"currency_code": "USD", "value": "77.50"}, "create_time": NOW.isoformat(), "links": link}
    await shop.receive(shop.from_paypal(paypal_event("PAYMENT.CAPTURE.REVERSED", reversal, NOW)))
    await shop.apply()
    order = await shop.order("9")
    assert (order.payment_status, order.refunded_amount) == ("charged_back", 100)
    assert sum(entry.amount for entry in order.entries) == 0


def paid(order_id: str) -> dict[str, str]:
    """The plugin's report of an order that was paid."""
    at = PAID_AT.isoformat()
    return {"order_id": order_id, "payment_status": "processing", "paid_at": at, "reported_at": at}


async def test_refunds_of_an_orders_payments_add_up_beside_what_the_shop_knows_of_them(shop: Shop) -> None:
    await shop.track(**paid("51"), refunded_total=0)
    second = charge("51", 4000, id="ch_51b", payment_intent="pi_51b")
    up = [{"rel": "up", "href": "https://api.paypal.com/v2/payments/captures/CAP51", "method": "GET"}]
    by_paypal = {"id": "REF51", "amount": {"currency_code": "USD", "value": "10.00"}, "create_time": NOW.isoformat(), "links": up}
    reports: list[Report] = [
        lambda: shop.receive_and_apply(stripe_event("charge.refunded", charge("51", 3001), REFUNDED_AT)),
        lambda: shop.receive_and_apply(stripe_event("charge.refunded", second, REFUNDED_AT)),
        lambda: shop.receive_and_apply(shop.from_paypal(paypal_event("PAYMENT.CAPTURE.REFUNDED", {**by_paypal, "custom_id": "51"}, NOW))),
        *by_plugin(shop, "51", refunded=True)[-1:],
    ]
    await report([*reports, reports[0]])
    order = await shop.order("51")
    assert (order.payment_status, round(order.refunded_amount, 2), order.disputed) == ("partially_refunded", 80.01, False)
    assert round(sum(entry.amount for entry in order.entries), 2) == 19.99


async def test_a_refund_that_fails_later_is_taken_back_on_its_day(shop: Shop) -> None:
    failed_at = REFUNDED_AT + timedelta(hours=2)
    await shop.track(**paid("52"), refunded_total=0)
    await shop.receive(stripe_event("refund.failed", refund("52", 1, 3000, "failed"), failed_at))
    await shop.receive(stripe_event("payment_intent.succeeded", payment("52"), PAID_AT))
    await shop.receive(stripe_event("charge.refunded", charge("52", 3000), REFUNDED_AT))
    again = stripe_event("charge.refund.updated", refund("52", 1, 3000, "failed"), failed_at + timedelta(seconds=1))
    assert (await shop.receive(again)).duplicate
    assert (await shop.receive(stripe_event("charge.refund.updated", refund("52", 2, 500, "succeeded"), failed_at))).ignored
    await shop.apply()
    order = await shop.order("52")
    assert (order.payment_status, order.refunded_amount) == ("completed", 0)
    assert {(entry.amount, entry.reason, entry.timestamp.ToDatetime(UTC)) for entry in order.entries} >= {
        (-30, "", REFUNDED_AT),
        (30, "refund_failed", failed_at),
    }
    await shop.receive_and_apply(stripe_event("charge.refunded", charge("52", 3000), NOW, "evt_52_again"))
    order = await shop.order("52")
    assert (order.payment_status, order.refunded_amount, order.entries[-1].amount) == ("partially_refunded", 30, -30)


async def test_a_dispute_that_never_withdraws_money_is_no_chargeback_and_a_lost_one_is(shop: Shop) -> None:
    await shop.track(**paid("53"))
    await shop.receive(stripe_event("payment_intent.succeeded", payment("53"), PAID_AT))
    assert (await shop.receive(stripe_event("charge.dispute.closed", dispute("53", "prevented", START), NOW))).ignored
    assert (await shop.receive(stripe_event("charge.dispute.closed", dispute("53", "warning_closed", START), NOW, "evt_53"))).ignored
    await shop.receive_and_apply(stripe_event("charge.dispute.closed", dispute("53", "lost", START), NOW, "evt_53b"))
    order = await shop.order("53")
    assert (order.payment_status, order.refunded_amount) == ("charged_back", 100)


@pytest.mark.parametrize(("outcome", "refunded"), [("RESOLVED_SELLER_FAVOUR", 0), ("RESOLVED_BUYER_FAVOUR", 100)])
async def test_a_dispute_at_paypal_that_the_seller_wins_returns_the_reversal(shop: Shop, outcome: str, refunded: float) -> None:
    number = "54" if refunded else "55"
    await shop.track(**paid(number))
    await shop.receive(shop.from_paypal(paypal_event("PAYMENT.CAPTURE.COMPLETED", capture(number, PAID_AT), PAID_AT)))
    for kind in ("CREATED", "UPDATED"):
        assert (await shop.receive(shop.from_paypal(paypal_event(f"CUSTOMER.DISPUTE.{kind}", paypal_dispute(number), START)))).ignored
    ended = shop.from_paypal(paypal_event("CUSTOMER.DISPUTE.RESOLVED", paypal_dispute(number, outcome), NOW))
    assert (await shop.receive(ended)).ignored == bool(refunded)
    await shop.apply()
    assert (await shop.order(number)).refunded_amount == 0
    up = [{"rel": "up", "href": f"https://api.paypal.com/v2/payments/captures/CAP{number}", "method": "GET"}]
    reversal = {"id": f"REV{number}", "amount": {"currency_code": "USD", "value": "100.00"}, "links": up}
    at = START + timedelta(hours=5)
    await shop.receive_and_apply(
        shop.from_paypal(paypal_event("PAYMENT.CAPTURE.REVERSED", {**reversal, "create_time": at.isoformat()}, at))
    )
    order = await shop.order(number)
    assert (order.payment_status, order.refunded_amount) == ("charged_back" if refunded else "completed", refunded)
    assert [entry.reason for entry in order.entries] == (["", ""] if refunded else ["", "", "reinstated"])
    stored = b"".join((row.request or b"") + (row.personal or b"") for row in await shop.rows())
    assert b"example.org" not in stored


async def test_woocommerce_alone_makes_the_order_with_the_plugins_number_and_takes_it_back(shop: Shop) -> None:
    stamp = PAID_AT.strftime("%Y-%m-%dT%H:%M:%S")
    whole = woocommerce_order(1016, START, PAID_AT, date_paid_gmt=stamp, coupon_lines=[{"code": "Spring10"}], number="A-77")
    assert not (await shop.receive(woocommerce("order.created", whole))).duplicate
    assert (await shop.receive(woocommerce("order.updated", whole, delivery="d2"))).duplicate
    await shop.apply()
    order = await shop.order("1016")
    assert (order.payment_status, order.paid_amount, order.user_id, order.country) == ("completed", 100, "42", "GB")
    assert order.utm_attribution.source == "newsletter"
    assert (order.tax_total, list(order.coupon_codes), order.metadata["order_number"]) == (19, ["spring10"], "A-77")
    assert [(line.product_id, line.amount) for line in order.lines] == [("201", 100)]
    assert order.billing_address["city"] == "London"
    await shop.receive(woocommerce("order.deleted", {"id": 1016}))
    await shop.apply()
    gone = await shop.order("1016")
    assert (gone.payment_status, gone.paid_amount, sum(entry.amount for entry in gone.entries)) == ("failed", 0, 0)
    assert [line.product_id for line in gone.lines] == ["201"]
    back = woocommerce_order(1016, START, START + timedelta(minutes=2), date_paid_gmt=stamp)
    assert not (await shop.receive(woocommerce("order.updated", back))).duplicate
    assert not (await shop.receive(woocommerce("order.restored", back))).duplicate
    assert (await shop.receive(woocommerce("order.restored", back, delivery="d2"))).duplicate
    await shop.apply()
    assert ((await shop.order("1016")).payment_status, (await shop.order("1016")).paid_amount) == ("completed", 100)


async def test_an_anonymised_order_names_nobody_any_more(shop: Shop) -> None:
    stamp, mark = PAID_AT.strftime("%Y-%m-%dT%H:%M:%S"), [{"id": 2, "key": "_anonymized", "value": "yes"}]
    billing = {"first_name": "[deleted]", "country": "GB", "email": "deleted@site.invalid"}
    for number, fields in ((1018, {"billing": billing}), (1019, {"meta_data": mark})):
        thing = woocommerce_order(number, START, PAID_AT, date_paid_gmt=stamp, **fields)
        await shop.receive(woocommerce("order.updated", thing))
        assert (await shop.rows())[-1].subject is None
        await shop.apply()
        order = await shop.order(str(number))
        assert (order.paid_amount, order.user_id, order.country) == (100, "", "")
        assert (len(order.billing_address), len(order.metadata), order.utm_attribution.source) == (0, 0, "")


async def test_a_staffs_order_stays_one_whatever_woocommerce_leaves_out(shop: Shop) -> None:
    await shop.track(
        order_id="1020", payment_status="processing", paid_at=PAID_AT.isoformat(), reported_at=PAID_AT.isoformat(), is_staff=True
    )
    await shop.receive_and_apply(woocommerce("order.updated", woocommerce_order(1020, START, REFUNDED_AT)))
    assert (await shop.order("1020")).is_staff


async def test_words_of_woocommerce_about_other_visits_are_no_campaign(shop: Shop) -> None:
    words = {"source_type": "organic", "utm_source": "google", "utm_medium": "organic"}
    meta = [{"id": 1, "key": f"_wc_order_attribution_{name}", "value": value} for name, value in words.items()]
    await shop.receive_and_apply(woocommerce("order.updated", woocommerce_order(1021, START, PAID_AT, meta_data=meta)))
    assert (await shop.order("1021")).utm_attribution.source == ""


async def test_of_woocommerces_webhooks_the_newest_counts_whatever_the_order_of_arrival(shop: Shop) -> None:
    stamp = PAID_AT.strftime("%Y-%m-%dT%H:%M:%S")
    older = woocommerce_order(1017, START, PAID_AT, date_paid_gmt=stamp)
    newer = woocommerce_order(1017, START, REFUNDED_AT, date_paid_gmt=stamp, refunds=[{"id": 1, "reason": "", "total": "-30.00"}])
    newest = woocommerce_order(1017, START, REFUNDED_AT + timedelta(hours=1), date_paid_gmt=stamp, total="80.00", refunds=newer["refunds"])
    for number, thing in enumerate((newest, older, newer, older)):
        await shop.receive_and_apply(woocommerce("order.updated", thing, delivery=str(number)))
    order = await shop.order("1017")
    assert (order.paid_amount, order.refunded_amount, order.disputed) == (80, 30, False)
    assert sum(entry.amount for entry in order.entries) == 50


@pytest.mark.parametrize("plugin_first", [True, False])
async def test_what_the_plugin_says_of_products_stays_beside_woocommerces_own_webhooks(shop: Shop, plugin_first: bool) -> None:
    number = 41 if plugin_first else 42
    line = {"product_id": "201", "product_name": "PMP", "product_type": "course", "amount": 100, "course_ids": ["77"]}
    own = {"order_id": str(number), "payment_status": "pending", "reported_at": START.isoformat(), "lines": [line]}
    reports: list[Report] = [lambda: shop.track(**own)]
    reports.insert(
        int(plugin_first), lambda: shop.receive_and_apply(woocommerce("order.updated", woocommerce_order(number, START, PAID_AT)))
    )
    await report(reports)
    [kept] = (await shop.order(str(number))).lines
    assert (kept.product_type, list(kept.course_ids)) == ("course", ["77"])


async def test_who_unsubscribes_wants_no_more_mail(shop: Shop) -> None:
    user = identity_pb2.Registration(wordpress_id=42, email="Ada@example.org")
    known = (await shop.inside(shop.identity.RegisterUser, identity_pb2.RegisterUserRequest(user=user))).user_id
    await shop.receive(mailchimp("unsubscribe", "ada@example.org ", NOW))
    await shop.receive(mailchimp("cleaned", "nobody@example.org", NOW, reason="hard"))
    await shop.apply()
    assert await shop.states() == [State.DONE, State.WAITING]
    person = (await shop.inside(shop.identity.GetUser, identity_pb2.GetUserRequest(id=known))).user
    assert [(each.list, each.subscribed) for each in person.email_subscriptions] == [("mailchimp:a6b5da1054", False)]
    consent = await shop.inside(shop.gdpr.GetConsent, gdpr_pb2.GetConsentRequest(id=known))
    assert consent.consent.marketing_emails.state == "denied"
    assert consent.consent.third_party_sharing.state == "unknown"
    await shop.receive(mailchimp("subscribe", "ada@example.org", NOW + timedelta(seconds=1)))
    await shop.apply()
    person = (await shop.inside(shop.identity.GetUser, identity_pb2.GetUserRequest(id=known))).user
    consent = await shop.inside(shop.gdpr.GetConsent, gdpr_pb2.GetConsentRequest(id=known))
    assert [each.subscribed for each in person.email_subscriptions] == [True]
    assert consent.consent.marketing_emails.state == "denied", "subscribing elsewhere is no consent of the shop's"


async def _marketing_of(shop: Shop, user_id: str) -> str:
    consent = await shop.inside(shop.gdpr.GetConsent, gdpr_pb2.GetConsentRequest(id=user_id))
    return consent.consent.marketing_emails.state


async def test_each_event_of_one_webhook_reaches_its_person(shop: Shop) -> None:
    people = {
        name: (await shop.inside(shop.identity.RegisterUser, identity_pb2.RegisterUserRequest(user=registration))).user_id
        for name, registration in (
            (name, identity_pb2.Registration(wordpress_id=number, email=f"{name}@example.org"))
            for number, name in enumerate(("ada", "bob", "cyd", "dan", "eve"), 100)
        )
    }
    events = [
        klaviyo_event("unsubscribed_from_email_marketing", "Ada@example.org ", NOW),
        klaviyo_event("marked_email_as_spam", "bob@example.org", NOW),
        klaviyo_event("bounced_email", "cyd@example.org", NOW, "b-1", **{"Bounce Type": "Hard"}),
        klaviyo_event("bounced_email", "dan@example.org", NOW, "b-2", **{"Bounce Type": "Soft"}),
        klaviyo_event("subscribed_to_email_marketing", "eve@example.org", NOW),
        klaviyo_event("opened_email", "eve@example.org", NOW),
        klaviyo_event("unsubscribed_from_email_marketing", "", NOW, "nobody"),
        {"topic": "event:klaviyo.marked_email_as_spam"},
    ]
    assert not (await shop.receive(klaviyo(*events))).duplicate
    assert (await shop.receive(klaviyo(*events))).duplicate, "sent again, it is signed anew"
    more = klaviyo_event("manually_suppressed_from_email_marketing", "dan@example.org", NOW)
    assert not (await shop.receive(klaviyo(*events, more))).duplicate
    await shop.apply()
    assert await shop.states() == [State.DONE] * 5
    assert {name: await _marketing_of(shop, user_id) for name, user_id in people.items()} == {
        **dict.fromkeys(("ada", "bob", "cyd", "dan"), "denied"),
        "eve": "unknown",
    }
    person = (await shop.inside(shop.identity.GetUser, identity_pb2.GetUserRequest(id=people["ada"]))).user
    assert [(each.list, each.subscribed) for each in person.email_subscriptions] == [("klaviyo:WBhXHN", False)]


async def test_who_leaves_at_brevo_wants_no_more_mail(shop: Shop) -> None:
    kinds = {"ada": "unsubscribe", "bob": "unsubscribed", "cyd": "spam", "dan": "hard_bounce", "eve": "soft_bounce"}
    people: dict[str, str] = {}
    for number, name in enumerate(kinds, 200):
        user = identity_pb2.Registration(wordpress_id=number, email=f"{name}@example.org")
        people[name] = (await shop.inside(shop.identity.RegisterUser, identity_pb2.RegisterUserRequest(user=user))).user_id
    for name, kind in kinds.items():
        await shop.receive(brevo(kind, f"{name}@example.org ", NOW, list_id=[3, 42]))
    await shop.apply()
    assert {name: await _marketing_of(shop, user_id) for name, user_id in people.items()} == {
        **dict.fromkeys(("ada", "bob", "cyd", "dan"), "denied"),
        "eve": "unknown",
    }
    person = (await shop.inside(shop.identity.GetUser, identity_pb2.GetUserRequest(id=people["ada"]))).user
    assert [(each.list, each.subscribed, each.changed_at.ToDatetime(UTC)) for each in person.email_subscriptions] == [("brevo", False, NOW)]


async def test_nothing_personal_of_a_webhook_is_kept_in_the_clear_or_when_it_is_done(shop: Shop) -> None:
    personal = (b"grace@example.org", b"ada@example.org", b"London", b"Ada", b"newsletter")
    order = woocommerce_order(5, START, START)
    await shop.receive(woocommerce("order.created", order))
    await shop.receive(stripe_event("charge.refunded", charge("5", 3000), REFUNDED_AT))
    await shop.receive(mailchimp("unsubscribe", "grace@example.org", NOW))
    stored = b"".join(
        (row.request or b"") + (row.personal or b"") + f"{row.subject}{row.fact}{row.payments}".encode() for row in await shop.rows()
    )
    assert [each for each in personal if each in stored] == []
    assert [bool(row.personal) for row in await shop.rows()] == [True, False, True]
    await shop.apply()
    await shop.apply(LATER)
    assert [(row.personal, row.subject) for row in await shop.rows() if row.state == State.DONE] == [(None, None)] * 2


async def test_an_order_of_somebody_erased_meanwhile_is_the_sale_alone(shop: Shop) -> None:
    order = woocommerce_order(6, START, PAID_AT, date_paid_gmt="2026-01-01T00:00:00", customer_id=0, billing={"email": "eve@example.org"})
    await shop.receive(woocommerce("order.created", order))
    [row] = await shop.rows()
    assert row.subject is not None
    await shop.keys.destroy([row.subject], datetime.now(UTC))
    data = SubjectData(shop.database, shop.keys, None, (RECEIVED,))
    assert (await data.erase([row.subject], "erased:1"))["received_webhooks"] == 1
    await shop.apply()
    known = await shop.order("6")
    assert (known.paid_amount, known.user_id, list(known.billing_address.fields)) == (100, "", [])
    refused = await shop.receive(mailchimp("unsubscribe", "Eve@example.org", NOW))
    assert refused.ignored, "nothing is stored of somebody who was erased"


async def test_what_can_not_be_applied_now_is_applied_later_and_never_lost(shop: Shop) -> None:
    await shop.receive(stripe_event("payment_intent.succeeded", payment("3"), PAID_AT))
    away = shop.settings.model_copy(update={"service_address": f"127.0.0.1:{free_port()}"})
    down = Worker(shop.database.sessions, Calls(away), shop.keys, shop.settings.webhooks_wait)
    assert await down.work(datetime.now(UTC)) == 1
    [row] = await shop.rows()
    assert (row.state, row.attempts, row.detail) == (State.PENDING, 1, "UNAVAILABLE")
    assert await shop.worker.work(datetime.now(UTC)) == 0, "not due yet"
    await shop.track(order_id="3", payment_status="pending", reported_at=START.isoformat())
    await shop.apply(timedelta(seconds=61))
    assert ((await shop.order("3")).payment_status, await shop.states()) == ("completed", [State.DONE])


async def test_a_webhook_that_a_killed_process_had_in_hand_is_taken_over(shop: Shop) -> None:
    await shop.track(order_id="4", payment_status="pending", reported_at=START.isoformat())
    await shop.receive(stripe_event("payment_intent.succeeded", payment("4"), PAID_AT))
    async with shop.database.sessions.begin() as session:
        assert len(await Webhooks(session).claim(datetime.now(UTC))) == 1
    assert await shop.worker.work(datetime.now(UTC) + timedelta(seconds=30)) == 0
    await shop.apply(timedelta(seconds=61))
    assert (await shop.order("4")).payment_status == "completed"


async def test_what_waits_for_too_long_is_given_up_and_what_is_refused_stays_to_be_seen(shop: Shop) -> None:
    await shop.receive(stripe_event("charge.dispute.closed", dispute("11", "lost", START), NOW))
    await shop.receive(stripe_event("payment_intent.succeeded", payment("12", id="pi with spaces"), PAID_AT))
    await shop.apply()
    assert await shop.states() == [State.WAITING, State.REFUSED]
    assert await shop.worker.work(datetime.now(UTC) + timedelta(days=29)) == 1
    assert await shop.worker.work(datetime.now(UTC) + timedelta(days=31)) == 1
    assert await shop.states() == [State.EXPIRED, State.REFUSED]
    await shop.worker.look(datetime.now(UTC))
    tables = [*expiries((RECEIVED,), KEPT), PAYMENTS]
    deleted = await Retention(shop.settings, "destinations", shop.database.sessions, tables).look(NOW + timedelta(days=800))
    assert deleted == {"received_webhooks": 2, "received_payments": 2}


async def test_one_fact_under_two_ids_is_stored_once_and_what_the_second_adds_is_kept(shop: Shop) -> None:
    first = stripe_event("payment_intent.succeeded", payment("13", metadata={}), PAID_AT)
    session = {"id": "cs_13", "payment_intent": "pi_13", "payment_status": "paid", "client_reference_id": "13"}
    assert not (await shop.receive(first)).duplicate
    assert (await shop.receive(first)).duplicate
    assert (await shop.receive(stripe_event("payment_intent.succeeded", payment("13"), PAID_AT, "evt_other"))).duplicate
    await shop.apply()
    assert (await shop.receive(stripe_event("checkout.session.completed", session, PAID_AT))).duplicate
    await shop.track(order_id="13", payment_status="pending", reported_at=START.isoformat())
    await shop.apply(LATER)
    assert ((await shop.order("13")).payment_status, await shop.states()) == ("completed", [State.DONE])
    storm = await asyncio.gather(*(shop.receive(stripe_event("charge.refunded", charge("13", 500), NOW)) for _ in range(20)))
    assert sorted(answer.duplicate for answer in storm) == [False] + [True] * 19


def _nothing() -> list[Call]:
    """Webhooks that state nothing about an order or a person, signed now."""
    return [
        stripe_event("customer.created", {"id": "cus_1"}, NOW),
        stripe_event("payment_intent.payment_failed", payment("1"), NOW),
        stripe_event("checkout.session.completed", {"id": "cs_1", "payment_status": "unpaid"}, NOW),
        stripe_event("payment_intent.succeeded", payment("1", metadata={"order_id": "1", "site_url": "https://another-shop.example"}), NOW),
        woocommerce("product.updated", {"id": 5}),
        woocommerce("action.woocommerce_add_to_cart", {}),
        woocommerce("order.created", woocommerce_order(5, NOW, NOW, status="checkout-draft")),
        mailchimp("campaign", "", NOW),
        mailchimp("profile", "ada@example.org", NOW),
        brevo("opened", "ada@example.org", NOW),
        brevo("contact_deleted", "ada@example.org", NOW),
        klaviyo(),
        klaviyo(klaviyo_event("clicked_email", "ada@example.org", NOW)),
        klaviyo(klaviyo_event("bounced_email", "ada@example.org", NOW)),
        Call("woocommerce", b"webhook_id=12", {"content-type": "application/x-www-form-urlencoded"}),
    ]


async def test_what_states_nothing_is_answered_what_is_bad_is_refused_and_neither_is_stored(shop: Shop) -> None:
    other = paypal_event("CHECKOUT.ORDER.APPROVED", {"id": "O1"}, NOW)
    for call in [*_nothing(), shop.from_paypal(other)]:
        answer = await shop.receive(call)
        assert (answer.success, answer.ignored) == (True, True), call
    await _what_is_not_signed_is_refused(shop)
    await _what_can_not_be_read_names_the_fields(shop)
    assert await shop.rows() == []


def _unsigned() -> list[Call]:
    """Webhooks without a valid signature of now."""
    stripe = stripe_event("charge.refunded", charge("1", 3000), NOW)
    shops = woocommerce("order.created", woocommerce_order(5, NOW, NOW))
    left, gone = mailchimp("unsubscribe", "ada@example.org", NOW), brevo("unsubscribe", "ada@example.org", NOW)
    event = klaviyo_event("unsubscribed_from_email_marketing", "ada@example.org", NOW)
    spam = klaviyo(event)
    return [
        spam._replace(headers={name: value for name, value in spam.headers.items() if name != "klaviyo-timestamp"}),
        spam._replace(headers={**spam.headers, "klaviyo-timestamp": spam.headers["klaviyo-timestamp"].replace("GMT", "UTC")}),
        spam._replace(headers={**spam.headers, "klaviyo-webhook-id": "another"}),
        spam._replace(body=spam.body.replace(b"ada", b"bob")),
        klaviyo(event, secret="another secret"),
        klaviyo(event, at=datetime.now(UTC) - timedelta(days=4)),
        stripe._replace(headers={}),
        stripe._replace(body=stripe.body + b" "),
        stripe._replace(headers={"stripe-signature": stripe_signature(stripe.body, NOW - timedelta(minutes=20))}),
        stripe_event("charge.refunded", charge("1", 3000), NOW, secret="whsec_another"),
        shops._replace(headers={"x-wc-webhook-topic": "order.created"}),
        shops._replace(body=b"{}"),
        woocommerce("order.created", woocommerce_order(5, NOW, NOW), secret="another secret"),
        Call("woocommerce", b"webhook_id=12&x=1", {}),
        left._replace(headers={"x-mailchimp-signature": "t=1,v1=00"}),
        left._replace(body=left.body.replace(b"ada", b"bob")),
        brevo("spam", "ada@example.org", NOW, secret="another token"),
        gone._replace(headers={}),
        gone._replace(headers={"authorization": f"Basic {BREVO_SECRET}"}),
        gone._replace(headers={"authorization": BREVO_SECRET}),
        Call("paypal", b"{}", {}),
    ]


async def _what_is_not_signed_is_refused(shop: Shop) -> None:
    for call in _unsigned():
        code, message = await shop.refusal(call)
        assert code is grpc.StatusCode.UNAUTHENTICATED, call
        assert "example" not in message


def signed_stripe(body: bytes) -> Call:
    stamp = int(datetime.now(UTC).timestamp())
    value = hmac.digest(STRIPE_SECRET.encode(), f"{stamp}.".encode() + body, "sha256").hex()
    return Call("stripe", body, {"stripe-signature": f"t={stamp},v1={value}"})


def _unreadable() -> list[tuple[Call, str]]:
    """Signed webhooks that can not be read, and what is said of each."""
    return [
        (signed_stripe(b""), "not JSON"),
        (signed_stripe(b"\xff\xfe{}"), "not JSON"),
        (signed_stripe(b"[1]"), "fields"),
        (signed_stripe(b'{"id": "evt_1"}'), "created, data, type"),
        (stripe_event("charge.refunded", {"id": "ch_1", "amount_refunded": -5, "currency": "usd"}, NOW), "amount_refunded"),
        (stripe_event("charge.refunded", {"id": "ch_1", "currency": 5}, NOW), "amount_refunded, currency"),
        (stripe_event("refund.failed", {"id": "re_1", "status": "failed", "currency": "usd"}, NOW), "amount"),
        (woocommerce("order.created", {"id": "ada@example.org"}), "id"),
        (woocommerce("order.created", woocommerce_order(5, NOW, NOW, total="NaN")), "total"),
        (woocommerce("order.deleted", {"id": -1}), "id"),
        (mailchimp("unsubscribe", "no address", NOW), "data.email"),
        (brevo("spam", "no address", NOW), "email"),
        (brevo("spam", "ada@example.org", NOW, ts_event="2026-11-30 10:00:00"), "ts_event"),
        (Call("brevo", b"[]", {"authorization": f"Bearer {BREVO_SECRET}"}), "fields"),
        (klaviyo(klaviyo_account_id="ada@example.org"), "meta.klaviyo_account_id"),
        (klaviyo({"topic": "event:klaviyo.marked_email_as_spam", "external_id": "ada@example.org"}), "payload"),
    ]


async def _what_can_not_be_read_names_the_fields(shop: Shop) -> None:
    for call, part in _unreadable():
        code, message = await shop.refusal(call)
        assert code is grpc.StatusCode.INVALID_ARGUMENT, call
        assert part in message, call
        assert "example.org" not in message
    call = stripe_event("charge.refunded", charge("1", 3000), NOW)
    assert (await shop.refusal(call._replace(sender="square")))[0] is grpc.StatusCode.NOT_FOUND
    assert (await shop.refusal(call._replace(sender="../etc")))[0] is grpc.StatusCode.INVALID_ARGUMENT
    answer = await shop.inside(shop.webhooks.CheckWebhook, pb.CheckWebhookRequest(sender="mailchimp"))
    assert answer.success


async def test_amounts_of_stripe_are_in_its_own_minor_units_and_the_database_has_no_secret(shop: Shop) -> None:
    for number, currency, units, amount in (("21", "jpy", 5000, 5000), ("22", "kwd", 1230, 1.23), ("23", "isk", 50000, 500)):
        await shop.track(order_id=number, currency=currency.upper(), amount=9000, payment_status="processing", paid_at=PAID_AT.isoformat())
        await shop.receive(stripe_event("charge.refunded", charge(number, units, currency=currency), NOW))
        await shop.apply()
        assert (await shop.order(number)).refunded_amount == amount
    async with shop.database.sessions.reading() as session:
        rows = (await session.execute(text("SELECT * FROM received_webhooks"))).all()
    assert STRIPE_SECRET not in repr(rows)
    assert all(isinstance(secret, SecretStr) for secret in shop.settings.webhooks_stripe_secrets)
    assert STRIPE_SECRET not in repr(shop.settings)


LIMIT = 40
ADDRESS = "203.0.113.{}"


@pytest.fixture(scope="module")
async def gateway(running: Shop, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[httpx.AsyncClient]:
    """The real gateway in front of the services."""
    port = int(running.settings.listen.rpartition(":")[2])
    own = {
        "PMP_MESH_TOKEN": running.settings.mesh_token.get_secret_value(),
        "PMP_RATE_SIGNED_PER_MINUTE": str(LIMIT),
        "PMP_GATEWAY_TRUSTED_HOPS": "1",
    }
    with running_gateway(tmp_path_factory.mktemp("gateway"), port, **own) as found:
        async with httpx.AsyncClient(base_url=f"http://{found.address}", timeout=20) as client:
            await _until_healthy(client)
            yield client
        assert_no_secrets(found.log.read_text())


def assert_no_secrets(log: str) -> None:
    """The gateway's log names no person, no secret, no signature and no payment."""
    assert "/api/v1/webhooks/{sender}" in log or "WebhooksService" in log
    assert [each for each in ("example.org", "v1=", "t=1", STRIPE_SECRET, "pi_31", "CAP32") if each in log] == []


async def _until_healthy(client: httpx.AsyncClient) -> None:
    async with asyncio.timeout(20):
        while (await client.get("/api/v1/webhooks/stripe", headers={"x-forwarded-for": ADDRESS.format(1)})).status_code != 200:  # noqa: ASYNC110
            await asyncio.sleep(0.2)


async def post(gateway: httpx.AsyncClient, call: Call, address: int = 5, **headers: str) -> httpx.Response:
    own = {**call.headers, **headers, "x-forwarded-for": ADDRESS.format(address)}
    return await gateway.post(f"/api/v1/webhooks/{call.sender}", content=call.body, headers=own)


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
async def test_the_gateway_passes_webhooks_as_they_were_sent_to_their_service(shop: Shop, gateway: httpx.AsyncClient) -> None:
    taken = [
        stripe_event("payment_intent.succeeded", payment("31", description="J\u00f6rg \u2603"), PAID_AT),
        shop.from_paypal(paypal_event("PAYMENT.CAPTURE.COMPLETED", capture("32", PAID_AT), PAID_AT)),
        woocommerce("order.created", woocommerce_order(33, START, START)),
        mailchimp("unsubscribe", "linus@example.org", NOW),
        klaviyo(klaviyo_event("marked_email_as_spam", "linus@example.org", NOW)),
    ]
    for call in taken:
        answer = await post(gateway, call)
        assert (answer.status_code, answer.json()) == (200, {"success": True, "duplicate": False, "ignored": False}), call
        assert (await post(gateway, call)).json()["duplicate"]
        changed = await post(gateway, call._replace(body=call.body + b" "))
        assert (changed.status_code, changed.json()["code"]) == (401, 16)
    by_token = brevo("spam", "linus@example.org", NOW)
    assert (await post(gateway, by_token)).json() == {"success": True, "duplicate": False, "ignored": False}
    assert (await post(gateway, by_token, authorization="Bearer another")).status_code == 401
    assert len(await shop.rows()) == len([*taken, by_token])
    test_call = Call("woocommerce", b"webhook_id=12", {"content-type": "application/x-www-form-urlencoded"})
    assert (await post(gateway, test_call)).status_code == 200


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
async def test_the_gateway_refuses_what_is_no_webhook(shop: Shop, gateway: httpx.AsyncClient) -> None:
    good = stripe_event("payment_intent.succeeded", payment("34"), PAID_AT)
    assert (await post(gateway, good._replace(headers={}), 6)).status_code == 401
    assert (await post(gateway, good._replace(body=b" " * 2_097_153), 6)).status_code == 413
    assert (await post(gateway, good._replace(sender="square"), 6)).status_code == 404
    assert (await post(gateway, good._replace(body=b"\xff\xfe"), 6)).status_code == 401
    unreadable = await post(gateway, signed_stripe(b"\xff\xfe"), 6)
    assert (unreadable.status_code, unreadable.json()["details"][0]["field_violations"][0]["field"]) == (400, "body")
    assert (await gateway.put("/api/v1/webhooks/stripe", content=b"{}")).status_code == 401, "no path without a key"
    forged = {"x-pmp-scope": "admin", "x-pmp-client": "shop", "authorization": "Bearer garbage", "x-api-key": "garbage"}
    assert (await post(gateway, good, 6, **forged, **{"content-type": "text/plain"})).status_code == 200, "the signature alone counts"
    assert [row.sender for row in await shop.rows()] == ["stripe"]


@pytest.mark.parametrize("running", ["sqlite"], indirect=True)
async def test_a_flood_of_webhooks_is_limited_by_address(shop: Shop, gateway: httpx.AsyncClient) -> None:
    forged = stripe_event("payment_intent.succeeded", payment("35"), PAID_AT, secret="whsec_another")
    statuses = [(await post(gateway, forged, 9)).status_code for _ in range(LIMIT + 1)]
    assert statuses == [401] * LIMIT + [429]
    limited = await post(gateway, forged, 9)
    assert (limited.json()["code"], int(limited.headers["retry-after"]) > 0) == (8, True)
    assert (await post(gateway, forged, 10)).status_code == 401
    assert await shop.rows() == []
