"""Batches of orders and of registrations, each record as in a call of its own, on each kind of database."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

import grpc
import pytest
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message
from pmp.gdpr.v1.change_pb2 import SuppressionChanged
from pmp.identity.v1 import identity_pb2
from pmp.identity.v1.identity_pb2_grpc import IdentityServiceStub
from pmp.purchases.v1 import purchases_pb2
from pmp.purchases.v1.purchases_pb2_grpc import PurchasesServiceStub
from sqlalchemy import func, select
from sqlalchemy.event import listens_for, remove

from kit.people.suppression import Suppressions, digest
from kit.service.resources import Resources
from kit.service.role import Role
from kit.service.runtime import ServiceRuntime
from kit.settings import Settings
from services.identity import composition as identity_service
from services.identity.models import UserRow
from services.purchases import composition as purchases_service
from services.purchases.models import PurchaseRow
from tests.databases import newest_database
from tests.roles import serving, settings_for

NOW = datetime.now(UTC).replace(microsecond=0)
Record: TypeAlias = dict[str, Any]


class Service:
    """A service that takes batches."""

    def __init__(self, runtime: ServiceRuntime, stub: Any, batch: Any, records: str) -> None:
        self.runtime = runtime
        self.stub = stub
        self._batch = batch
        self._records = records

    async def call(self, request: Message, *, scope: str = "site") -> Any:
        token = self.runtime.settings.mesh_token.get_secret_value()
        metadata = (("x-pmp-mesh-token", token), ("x-pmp-client", "shop"), ("x-pmp-scope", scope))
        return await getattr(self.stub, type(request).__name__.removesuffix("Request"))(request, metadata=metadata)

    async def post(self, records: Sequence[Any], *, strict: bool = False, scope: str = "site", **beside: Any) -> Any:
        """Sends a batch as JSON."""
        request = self._batch(strict=strict)
        request.json_body.data = json.dumps({self._records: records, **beside}).encode()
        return await self.call(request, scope=scope)

    async def send(self, records: Sequence[Record]) -> Any:
        """Sends a batch as a native caller does."""
        return await self.call(ParseDict({self._records: records}, self._batch()))

    async def erase(self, identifier: str, at: datetime) -> None:
        """Suppresses the identifier of an erased person."""
        suppressed = SuppressionChanged(digest=digest(self.runtime.keys.hasher, identifier))
        suppressed.erased_at.FromDatetime(at)
        async with self.runtime.sessions.begin() as session:
            await Suppressions(session).apply([suppressed])

    async def count(self, model: Any) -> int:
        async with self.runtime.sessions() as session:
            return await session.scalar(select(func.count()).select_from(model)) or 0


async def _running(role: Role[Any], settings: Settings, resources: Resources) -> AsyncIterator[tuple[ServiceRuntime, grpc.aio.Channel]]:
    async with newest_database(settings, role.name):
        runtime = role.compose(settings_for(role, settings), resources)
        async with serving(runtime) as channel:
            yield runtime, channel


@pytest.fixture
async def purchases(settings: Settings, resources: Resources) -> AsyncIterator[Service]:
    async for runtime, channel in _running(purchases_service.ROLE, settings, resources):
        yield Service(runtime, PurchasesServiceStub(channel), purchases_pb2.TrackPurchasesRequest, "purchases")


@pytest.fixture
async def identity(settings: Settings, resources: Resources) -> AsyncIterator[Service]:
    async for runtime, channel in _running(identity_service.ROLE, settings, resources):
        yield Service(runtime, IdentityServiceStub(channel), identity_pb2.RegisterUsersRequest, "users")


def order(number: str, **fields: Any) -> Record:
    return {"order_id": number, "timestamp": NOW.isoformat(), "user_id": "42", "amount": 100, "currency": "USD", **fields}


def broken(verdict: Any) -> list[str]:
    return [violation.field for violation in verdict.violations]


async def get(purchases: Service, number: str) -> purchases_pb2.RecordedPurchase:
    return (await purchases.call(purchases_pb2.GetPurchaseRequest(id=number))).purchase


async def user(identity: Service, user_id: str) -> identity_pb2.User:
    return (await identity.call(identity_pb2.GetUserRequest(id=user_id))).user


async def test_each_order_has_a_verdict_whatever_its_neighbours_are(purchases: Service) -> None:
    records = [
        order("1", total=1, payment_method="x" * 51),
        order("2", amount=None),
        None,
        order("3", timestamp=(NOW + timedelta(days=2)).isoformat()),
        order("4", currency="XYZ"),
        order("5", user_id=""),
        order("1"),
        order("6", payment_status="unheard of"),
        order("7", email="ada@example.org", billing_address={"city": "London"}),
    ]
    answer = await purchases.post(records, sender="import")
    assert [verdict.success for verdict in answer.results] == [True, False, False, False, False, False, True, False, True]
    assert (answer.success, answer.accepted, answer.rejected, answer.ignored_fields) == (False, 3, 6, ["sender"])
    first, _, _, _, _, _, again, _, last = answer.results
    assert (first.ignored_fields, [fault.field for fault in first.faults]) == (["total"], ["payment_method"])
    assert (first.duplicate, again.duplicate, again.purchase_id) == (False, True, first.purchase_id)
    assert [broken(verdict) for verdict in answer.results if not verdict.success] == [
        ["amount"],
        [""],
        ["timestamp"],
        ["currency"],
        [""],
        ["payment_status"],
    ]
    shown = await get(purchases, "7")
    assert (shown.purchase_id, shown.paid_amount, shown.billing_address["city"]) == (last.purchase_id, 100, "London")
    assert await purchases.count(PurchaseRow) == 2


async def test_reports_of_one_order_are_recorded_in_their_order(purchases: Service) -> None:
    def at(minute: int, **fields: Any) -> Record:
        return order("1", source="plugin", reported_at=(NOW - timedelta(minutes=9 - minute)).isoformat(), **fields)

    reports = [at(1), at(2, amount=80), at(3, payment_status="cancelled"), order("2"), at(4, amount=80), at(4, amount=80)]
    answer = await purchases.send(reports)
    assert [verdict.duplicate for verdict in answer.results] == [False, False, False, False, False, True]
    together = await get(purchases, "1")
    for report in reports:
        await purchases.call(ParseDict({"purchase": {**report, "order_id": "one by one"}}, purchases_pb2.TrackPurchaseRequest()))
    singly = await get(purchases, "one by one")
    figures = {"payment_status", "amount", "paid_amount", "refunded_amount"}
    assert {name: getattr(together, name) for name in figures} == {name: getattr(singly, name) for name in figures}
    assert [(entry.kind, entry.amount, entry.reason) for entry in together.entries] == [
        ("sale", 100, ""),
        ("correction", -20, "edited"),
        ("correction", -80, "cancelled"),
        ("correction", 80, "restored"),
    ]


async def test_orders_are_priced_at_the_rate_of_their_own_day(purchases: Service) -> None:
    answer = await purchases.post([order("1", currency="EUR"), order("2")])
    assert answer.accepted == 2
    assert [(await get(purchases, number)).paid_amount for number in ("1", "2")] == [100, 100]


@pytest.mark.parametrize("nobody", ["0", "null", "[object Object]"])
async def test_a_batch_has_no_orders_of_nobody(purchases: Service, nobody: str) -> None:
    answer = await purchases.post([order("1", user_id=nobody, session_id="undefined"), order("2", user_id=nobody, email="ada@example.org")])
    assert answer.success
    shown = [await get(purchases, number) for number in ("1", "2")]
    assert [(each.user_id, each.session_id, each.paid_amount) for each in shown] == [("", "", 100)] * 2


async def test_of_an_erased_persons_order_only_the_sale_is_kept_and_its_neighbour_is_whole(purchases: Service) -> None:
    await purchases.erase("wordpress:42", NOW)
    answer = await purchases.post([order("1", session_id="s-1"), order("2", user_id="43", session_id="s-2")])
    assert answer.success
    erased, other = [await get(purchases, number) for number in ("1", "2")]
    assert (erased.user_id, erased.session_id, erased.paid_amount) == ("", "", 100)
    assert (other.user_id, other.session_id, other.paid_amount) == ("43", "s-2", 100)


async def test_a_batch_takes_fewer_statements_than_orders(purchases: Service) -> None:
    statements: list[str] = []

    @listens_for(purchases.runtime.database.engine.sync_engine, "before_cursor_execute")
    def note(*arguments: Any) -> None:
        statements.append(arguments[2])

    records = [order(f"{number}", product_id="a", email=f"{number}@example.org", currency="EUR") for number in range(100)]
    for most in (12, 9):
        statements.clear()
        answer = await purchases.send(records)
        assert answer.accepted == 100
        assert len(statements) <= most, statements
    assert all(verdict.duplicate for verdict in answer.results)
    remove(purchases.runtime.database.engine.sync_engine, "before_cursor_execute", note)


async def test_strict_refuses_what_would_only_be_reported(purchases: Service) -> None:
    answer = await purchases.post([order("1", total=1), order("2")], strict=True)
    assert [broken(verdict) for verdict in answer.results] == [["total"], []]
    with pytest.raises(grpc.aio.AioRpcError, match="sender: there is no such field"):
        await purchases.post([order("3")], strict=True, sender="import")
    assert await purchases.count(PurchaseRow) == 1


@pytest.mark.parametrize("count", [0, 501])
async def test_a_batch_has_1_to_500_records(purchases: Service, count: int) -> None:
    for call in (purchases.post, purchases.send):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call([order(f"{number}") for number in range(count)])
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        assert "purchases" in (refused.value.details() or "")
    assert await purchases.count(PurchaseRow) == 0


async def test_a_body_without_a_list_is_refused(purchases: Service) -> None:
    for body in (b"{", b"[]", b'{"purchases": {}}'):
        request = purchases_pb2.TrackPurchasesRequest()
        request.json_body.data = body
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await purchases.call(request)
        assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_batches_are_for_the_shops_server(purchases: Service, identity: Service) -> None:
    for call in (purchases.post([order("1")], scope="track"), identity.post([{"email": "ada@example.org"}], scope="read")):
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await call
        assert refused.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_each_registration_has_a_verdict_whatever_its_neighbours_are(identity: Service) -> None:
    records = [
        {"wordpress_id": "1", "email": "ada@example.org", "first_name": "Ada", "session_id": "s-1", "age": 36},
        {"first_name": "nobody"},
        {"wordpress_id": -1, "email": "x@example.org"},
        {"wordpress_id": "2", "email": "grace@", "last_name": "Hopper"},
        {"email": "Ada@Example.org", "last_name": "Lovelace"},
        {"wordpress_id": "3", "timestamp": (NOW + timedelta(days=2)).isoformat()},
        "a text",
    ]
    answer = await identity.post(records)
    assert [verdict.success for verdict in answer.results] == [True, False, False, True, True, False, False]
    assert (answer.success, answer.accepted, answer.rejected) == (False, 3, 4)
    ada, _, _, grace, again, _, _ = answer.results
    assert (ada.created, ada.ignored_fields) == (True, ["age"])
    assert (grace.created, [fault.field for fault in grace.faults]) == (True, ["email"])
    assert (again.created, again.user_id) == (False, ada.user_id)
    assert [broken(verdict) for verdict in answer.results if not verdict.success] == [[""], ["wordpress_id"], ["timestamp"], [""]]
    shown = await user(identity, ada.user_id)
    assert (shown.email, shown.first_name, shown.last_name) == ("ada@example.org", "Ada", "Lovelace")
    assert await identity.count(UserRow) == 2


async def test_a_batch_registers_as_single_calls_do(identity: Service) -> None:
    def people(host: str, first: int) -> list[Record]:
        lead = {"email": f"lead@{host}", "session_id": f"lead-{host}", "timestamp": (NOW - timedelta(days=2)).isoformat()}
        account = {"wordpress_id": first, "timestamp": (NOW - timedelta(days=1)).isoformat(), "preferences": {"language": "en"}}
        both = {"wordpress_id": first, "email": f"lead@{host}", "first_name": "Ada", "timestamp": NOW.isoformat()}
        return [lead, account, both, {"email": f"lead@{host}", "session_id": "0", "preferences": {"language": "fr"}}]

    together = (await identity.send(people("together.example", 1))).results
    singly = [await identity.call(ParseDict({"user": each}, identity_pb2.RegisterUserRequest())) for each in people("singly.example", 1001)]
    assert [each.created for each in together] == [each.created for each in singly] == [True, True, False, False]
    shown = [MessageToDict(await user(identity, results[-1].user_id)) for results in (together, singly)]
    assert shown[0]["preferences"] == shown[1]["preferences"] == {"language": "fr"}
    assert [len(each["mergedUserIds"]) for each in shown] == [1, 1]
    assert [sorted(link["kind"] for link in each["links"]) for each in shown] == [["email", "session", "wordpress"]] * 2


async def test_an_erased_person_is_not_registered_again_and_its_neighbours_are(identity: Service) -> None:
    email = f"email:{identity.runtime.keys.hasher.fingerprint('ada@example.org').hex()}"
    await identity.erase(email, NOW - timedelta(hours=1))
    earlier, now = (NOW - timedelta(days=1)).isoformat(), NOW.isoformat()
    people = [{"wordpress_id": number, "email": f"p{number}@example.org", "timestamp": now} for number in range(1, 41)]
    ada = {"email": "ada@example.org", "first_name": "Ada"}
    answer = await identity.post([*people[:7], {**ada, "timestamp": earlier}, *people[7:], {**ada, "timestamp": now}])
    assert [number for number, verdict in enumerate(answer.results) if not verdict.success] == [7]
    [violation] = answer.results[7].violations
    assert (violation.field, "erased" in violation.description) == ("", True)
    shown = await user(identity, answer.results[-1].user_id)
    assert (shown.email, shown.first_name) == ("ada@example.org", "Ada")
    assert await identity.count(UserRow) == 41


async def test_what_a_batch_changed_is_published_once(purchases: Service) -> None:
    await purchases.send([order(f"{number}", timestamp=NOW.isoformat()) for number in range(200)])
    found: list[str] = []
    token = (("x-pmp-mesh-token", purchases.runtime.settings.mesh_token.get_secret_value()),)
    for partition in range(purchases.runtime.settings.log_partitions):
        request = purchases_pb2.ListPurchaseChangesRequest(partition=partition)
        async for answer in purchases.stub.ListPurchaseChanges(request, metadata=token):
            found += [change.order_id for change in answer.changes]
    assert sorted(found, key=int) == [f"{number}" for number in range(200)]
